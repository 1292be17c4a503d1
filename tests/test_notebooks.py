"""Every notebook, top to bottom, from a fresh kernel in an empty folder, in the quick profile, within a minute each."""

import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    import build

    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    began = time.time()
    build.execute(notebook, tmp_path, timeout=120, profile="quick")
    took = time.time() - began
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.get("outputs", [])]
    printed = "".join(o.get("text", "") for o in outputs if o.output_type == "stream")
    assert "profile 'quick'" in printed
    assert "✗" not in printed, "a check in the notebook failed"
    assert ("your turn" in printed) == (path.parent.name != "solutions"), (
        "exercises are open in the notebook, solved in the solutions"
    )
    errors = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr" and "Warning" in o.text]
    assert not errors, f"warnings in normal use: {errors[:1]}"
    assert took < 60, f"{path.name} took {took:.0f} s in the quick profile"
