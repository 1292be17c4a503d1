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


def test_a_saved_notebook_keeps_small_excerpts_that_sound_alike():
    import base64
    import io
    import re

    import build
    import soundfile
    import torch
    from signals import speechlike

    from wavelldm.course import notebook as course
    from wavelldm.metrics.scores import pesq_wb

    wav = speechlike(8.0)
    html = course.player(torch.from_numpy(wav)[None], 16_000)._repr_html_()
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data={"text/html": html})])
    saved = nbformat.v4.new_notebook(cells=[cell])
    build.shrink(saved)
    kept = saved.cells[0].outputs[0]["data"]["text/html"]
    sound = base64.b64decode(re.search(r"data:audio/ogg;base64,([^\"]+)", kept)[1])
    played, sr = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert sr == 16_000 and len(played) == 6 * 16_000 and len(sound) < 70_000
    assert pesq_wb(wav[: len(played)], played, sr) > 4.3
    before = saved.cells[0].outputs[0]["data"]["text/html"]
    build.shrink(saved)
    assert saved.cells[0].outputs[0]["data"]["text/html"] == before


def test_no_saved_sound_is_large():
    import re

    for path in NOTEBOOKS:
        sounds = re.findall(r"data:audio/[\w-]+;base64,([\w+/=]+)", path.read_text())
        assert max((len(s) for s in sounds), default=0) < 200_000, path.name
