"""The glossary: each word names the notebook where it comes up first, and the notebooks that it names have it."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([^|]+) \| ([^|]*\[\d\d\][^|]*) \| ([^|]+) \|$", re.M)
TEXTS = {
    path.name: "\n".join(
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"
    ).lower()
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
}
WORDS = {
    word: re.findall(r"\[\d\d\]\(\.\./notebooks/(\d\d\w+\.ipynb)\)", places)
    for word, places, _ in ROW.findall((ROOT / "docs" / "glossary.md").read_text())
}


def test_the_glossary_is_in_order_and_has_no_word_twice():
    rows = [word for word, *_ in ROW.findall((ROOT / "docs" / "glossary.md").read_text())]
    assert len(rows) > 60 and rows == sorted(set(rows), key=str.lower)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_stands_in_the_notebooks_that_it_names_and_in_none_before(word):
    having = [name for name, text in TEXTS.items() if word.lower() in text]
    assert WORDS[word] and WORDS[word][0] == having[0]
    assert [name for name in WORDS[word] if name not in having] == []


@pytest.mark.parametrize("name", [name for name in TEXTS if name < "10"])
def test_the_head_of_a_notebook_leads_to_the_glossary(name):
    head = "".join(json.loads((ROOT / "notebooks" / name).read_text())["cells"][0]["source"])
    assert "(../docs/glossary.md)" in head
