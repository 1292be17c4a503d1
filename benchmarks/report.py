"""Where a benchmark's section stands in benchmarks/README.md: between two markers with its name."""

import platform
import re
import textwrap
from pathlib import Path

import torch

README = Path(__file__).parent / "README.md"
ROOT = Path(__file__).parent.parent
FRONT = ROOT / "README.md"  # of the project: a few rows of the denoisers' table
CODEC_PAGE = ROOT / "docs" / "codec.md"  # a few rows of the codec's table


def wrapped(text: str, width: int = 120) -> str:
    """Markdown with its paragraphs and lists filled anew; tables, headings and pictures stay as they are."""
    return "\n\n".join(
        block if block[0] in "|#!" else _filled(block, width) for block in re.split(r"\n{2,}", text.strip())
    )


def _filled(block: str, width: int) -> str:
    lines = []
    for item in re.split(r"\n(?=\* )", block):
        indent = "  " if item.startswith("* ") else ""
        text = " ".join(item.split())
        lines.append(
            textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(lines)


def line(cells: list) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


def source(manifest: str | None) -> str:
    """Where the recordings of a benchmark come from, in words."""
    return "a manifest" if manifest else "the embedded corpus"


def made_by(script: str, manifest: str | None, *options: str) -> str:
    """The last line under a table: versions, and the command that makes it again."""
    command = " ".join([f"python benchmarks/{script}", *(["--manifest manifest.tsv"] if manifest else []), *options])
    return f"Python {platform.python_version()}, torch {torch.__version__}, one thread. Made by `{command}`"


def write_section(name: str, text: str, readme: Path = README) -> None:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = readme.read_text() if readme.exists() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = old.split(begin)
    readme.write_text(f"{before}{begin}\n{wrapped(text)}\n{end}{rest.split(end)[1]}")
