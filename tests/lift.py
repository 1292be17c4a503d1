"""Lift the definitions out of a notebook, so that tests can hold them against the module's."""

import ast
import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def definitions(name: str) -> dict:
    """The functions, classes, imports and capital-letter constants of notebook `name`, executed in order -> namespace."""
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
    return space


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return all(isinstance(t, ast.Name) and t.id.isupper() for t in node.targets)
    return isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))
