"""Where a benchmark's section stands in benchmarks/README.md: between two markers with its name."""

from pathlib import Path

README = Path(__file__).parent / "README.md"
ROOT = Path(__file__).parent.parent
FRONT = ROOT / "README.md"  # of the project: a few rows of the denoisers' table
CODEC_PAGE = ROOT / "docs" / "codec.md"  # the codec's page: a few rows of its table


def write_section(name: str, text: str, readme: Path = README) -> None:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = readme.read_text() if readme.exists() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = old.split(begin)
    readme.write_text(f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}")
