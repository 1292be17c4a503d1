"""Where a benchmark's section stands in benchmarks/README.md: between two markers with its name."""

from pathlib import Path

README = Path(__file__).parent / "README.md"


def write_section(name: str, text: str) -> None:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = README.read_text() if README.exists() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = old.split(begin)
    README.write_text(f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}")
