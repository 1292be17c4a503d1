"""Every notebook, top to bottom, from a fresh kernel in an empty folder, in the quick profile, within a minute each."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import nbformat
import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
USUAL = 0.25  # seconds, see slowness
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
    assert took < 60 * slowness(), f"{path.name} took {took:.0f} s in the quick profile"


def slowness() -> float:
    """How many times longer a little work takes here and now than on two free cores of 2026; at least 1."""
    x, weight = torch.ones(8, 64, 2048), torch.ones(64, 64, 5)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(20):
            torch.nn.functional.conv1d(x, weight).sum()
        sum(i * i for i in range(3_000_000))
        times.append(time.perf_counter() - began)
    return max(1.0, sorted(times)[1] / USUAL)


def test_a_saved_notebook_keeps_small_excerpts_that_sound_alike():
    import base64
    import io
    import re

    import build
    import soundfile
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    (found,) = folder.glob("wavelldm-*.whl")
    return found


def bare(folder):
    """A fresh environment without wavelldm, but with the packages that it needs: those of this one."""
    venv.create(folder / "env", with_pip=True)
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith("wavelldm"):
            (packages / path.name).symlink_to(path)
    variables = {
        "PIP_NO_DEPS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": str(packages),
        "MPLBACKEND": "agg",
    }
    return folder / "env" / "bin" / "python", os.environ | variables


def test_the_set_up_cell_installs_a_wheel_that_lies_beside_it(wheel, tmp_path):
    import build

    cell = build.setup(ROOT / "notebooks" / "00_start_here.ipynb")
    python, variables = bare(tmp_path)
    run = [python, "-c", cell]
    done = subprocess.run(run, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith("beside this notebook, and run this cell again\n")
    shutil.copy(wheel, tmp_path)
    done = subprocess.run(run, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and "wavelldm 0" in done.stdout, done.stderr
    (tmp_path / wheel.name).write_bytes(b"half")
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", "wavelldm"], env=variables, check=True)
    done = subprocess.run(run, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and "could not be installed" in done.stderr
