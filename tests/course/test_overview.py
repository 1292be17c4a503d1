"""The pictures of the course: every notebook has its box, and builds on what its head says."""

import json
import re
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from wavelldm import plots
from wavelldm.course import overview, path
from wavelldm.errors import WavelldmError

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))


def faces(figure) -> dict:
    """Text of each box -> its colour."""
    boxes = [text for text in figure.axes[0].texts if text.get_bbox_patch() is not None]
    return {text.get_text(): to_hex(text.get_bbox_patch().get_facecolor()) for text in boxes}


def test_there_are_as_many_notebooks_as_the_pictures_say():
    assert [int(p.name[:2]) for p in NOTEBOOKS] == list(overview.NOTEBOOKS) == list(range(overview.LAST + 1))


@pytest.mark.parametrize("number", range(overview.LAST + 1))
def test_the_path_marks_what_a_notebook_builds(number):
    shown = faces(path(number))
    now = [text for text, face in shown.items() if face == plots.ACCENT]
    assert len(shown) == len(overview.BOXES)
    assert all(f"{number:02d}" in text for text in now) and bool(now) == (number > 0)


def test_the_path_grows_from_notebook_to_notebook():
    done = [sum(face != "#ffffff" for face in faces(path(n)).values()) for n in range(overview.LAST + 1)]
    assert done[0] == 0 and done == sorted(done) and done[-1] == len(overview.BOXES)


@pytest.mark.parametrize("number", (-1, 21, 3.5))
def test_a_number_of_no_notebook_is_refused(number):
    with pytest.raises(WavelldmError, match="choose one from 0 to 20"):
        path(number)


@pytest.mark.parametrize("notebook", NOTEBOOKS[:-1], ids=lambda p: p.stem)
def test_the_map_shows_what_the_head_of_a_notebook_asks_for(notebook):
    head = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
    asked = re.search(r"\*\*You need\*\*(.*?)\*\*You make\*\*", head, re.S)[1]
    assert sorted(map(int, re.findall(r"\b\d\d\b", asked))) == sorted(overview.NOTEBOOKS[int(notebook.name[:2])][1])


def test_the_map_leaves_out_arrows_that_follow_from_others():
    axes = overview.needs().axes[0]
    arrows = {(text.xyann, text.xy) for text in axes.texts if getattr(text, "arrow_patch", None)}
    place = {text.get_text()[:2]: text.get_position() for text in axes.texts if text.get_bbox_patch() is not None}
    assert (place["01"], place["03"]) in arrows and (place["03"], place["04"]) in arrows
    assert (place["01"], place["04"]) not in arrows


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_shows_its_own_place_on_the_path(notebook):
    source = "".join(
        "".join(c["source"]) for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"
    )
    found = re.findall(r"course\.path\((\d+)\)", source)
    assert all(int(number) == int(notebook.name[:2]) for number in found)
