"""The documents: links lead somewhere, lines are short, the README's tree follows the order of imports."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from signals import speechlike
from test_structure import ORDER, PACKAGES

from wavelldm.audio import files
from wavelldm.cli import main

ROOT = Path(__file__).parent.parent
FOLDERS = (".", "docs", "benchmarks", "data", "wavelldm/weights", "web", "android")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def targets(text: str) -> list[str]:
    """Relative targets of the links in a Markdown text, without those in blocks of code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings: `## What lies where` -> what-lies-where."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    headings = (re.sub(r"[^\w\- ]", "", h.lower()) for h in re.findall(r"^#+ (.+)$", text, re.M))
    return {heading.strip().replace(" ", "-") for heading in headings}


def broken(path: Path, text: str) -> list[str]:
    bad = []
    for link in targets(text):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            bad.append(link)
    return bad


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(path):
    assert broken(path, path.read_text()) == []


def test_the_check_of_links_sees_missing_files_and_headings(tmp_path):
    (tmp_path / "b.md").write_text("# Two words\n```\n# not a heading\n```\n")
    text = "[1](b.md) [2](c.md) [3](b.md#two-words) [4](b.md#not-a-heading) [5](https://example.org/x)\n```\n[6](d.md)\n```"
    assert broken(tmp_path / "a.md", text) == ["c.md", "b.md#not-a-heading"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_lines_outside_tables_are_short(path):
    assert [line for line in path.read_text().splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_the_tree_lists_the_packages_in_the_order_of_imports():
    tree = (ROOT / "README.md").read_text().split("## What lies where")[1].split("```")[1]
    names = re.findall(r"^  (\w+)/", tree, re.M)
    rooms = {p.name for p in PACKAGES} | {"weights"}
    assert names == [name for name in ORDER if name in rooms]


def test_the_files_that_the_documents_name_exist():
    """A path with a folder, such as `audio/stft.py` or `benchmarks/codec.py`, is one in the repository."""
    for path in DOCUMENTS:
        named = re.findall(r"`([\w.-]+(?:/[\w.-]+)+\.(?:py|md|csv|ipynb|toml))`", path.read_text())
        missing = [n for n in named if not ((ROOT / n).exists() or (ROOT / "wavelldm" / n).exists())]
        assert missing == [], f"{path.name} names files that are not there"


def test_benchmarks_write_short_lines(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from report import wrapped

    table = "| a | b |\n| --- | --- |"
    text = f"## Title\n\n{'word ' * 40}\n\n* {'item ' * 40}\n* two\n  lines\n\n{table}"
    lines = wrapped(text).split("\n")
    assert max(map(len, lines)) <= 120 and lines[0] == "## Title" and lines[-2:] == table.split("\n")
    assert wrapped(text).split() == text.split() and "* two lines" in lines
    assert wrapped(wrapped(text)) == wrapped(text)


def blocks(language: str = "") -> list:
    """The blocks of code in a language of all documents, each with its document."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
    found = [(path, code) for path in DOCUMENTS for name, code in fenced.findall(path.read_text()) if name == language]
    return [pytest.param(code, id=f"{path.stem}-{i}") for i, (path, code) in enumerate(found)]


def test_the_commands_in_the_documents_exist():
    lines = [line.split("  #")[0] for block in blocks() for line in block.values[0].replace("\\\n", " ").splitlines()]
    found = [words for line in lines for words in re.findall(r"(?:^|\| |-m )wavelldm ([^|>]+)", line)]
    assert len(found) > 30
    for words in found:
        main.read(shlex.split(words))  # leaves with exit code 2 if there is no such command or option


@pytest.mark.parametrize("code", blocks("python"))
def test_the_examples_in_python_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.save("talk.wav", torch.tensor(speechlike(1.0))[None].float(), 16_000)
    exec(code, {})


@pytest.mark.parametrize("code", blocks("py"))
def test_what_long_examples_import_exists(code):
    """Blocks marked `py` take too long to be run."""
    compile(code, "example", "exec")
    exec("\n".join(line for line in code.splitlines() if line.startswith(("import ", "from "))), {})


def test_the_page_on_the_layout_shows_the_order_of_imports():
    shown = next(block.values[0] for block in blocks() if "errors -> " in block.values[0])
    assert shown.replace("->", " ").split() == list(ORDER)
