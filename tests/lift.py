"""Lift the definitions out of a notebook, so that tests can hold them against the module's."""

import ast
import json
import re
from pathlib import Path

from wavelldm.course.steps import STEPS

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TODO = re.compile(r'^(\w+) = course\.todo\("([^"]+)"', re.M)


def definitions(name: str) -> dict:
    """The functions, classes, imports and capital-letter constants of notebook `name`, executed in order -> namespace.
    A step that the reader writes is there as well, as the finished function."""
    (path,) = NOTEBOOKS.glob(f"{name}*.ipynb")
    space: dict = {"__name__": path.stem}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(line for line in cell["source"] if not line.lstrip().startswith(("%", "!")))
        if "%pip" in "".join(cell["source"]):
            continue  # the set-up cell
        kept = [node for node in ast.parse(source).body if _is_definition(node)]
        exec(compile(ast.Module(kept, []), path.name, "exec"), space)
        space |= {variable: STEPS[step].right for variable, step in TODO.findall(source)}
    return space


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return all(isinstance(t, ast.Name) and t.id.isupper() for t in node.targets)
    return isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))


class Place:
    """Stands for what `display(..., display_id=True)` gives back: keeps all that was ever shown there."""

    def __init__(self, item):
        self.items = [item]

    def update(self, item):
        self.items.append(item)


def catch_displays(monkeypatch, widgets) -> list:
    """From now on the sliders of `widgets` display into the list that is returned, a Place for each."""
    places = []

    def display(item, display_id=False):
        if display_id:
            places.append(Place(item))
            return places[-1]

    monkeypatch.setattr(widgets, "display", display)
    return places


def slider_cell(notebook: str, name: str) -> str:
    """The notebook's cell that shows the sliders of function `name`."""
    (path,) = NOTEBOOKS.glob(f"{notebook}*.ipynb")
    sources = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    (cell,) = [s for s in sources if f"widgets.sliders({name}," in s]
    return cell


def move(controls, places, values: dict) -> None:
    """Move sliders one by one: each time a new figure and a new sound are shown, and in the end it sounds different."""
    for control, value in values.items():
        assert controls[control].value != value
        controls[control].value = value
    figures, sounds = (place.items for place in places)
    assert len(figures) == len(sounds) == 1 + len(values)
    assert sounds[0].data != sounds[-1].data
