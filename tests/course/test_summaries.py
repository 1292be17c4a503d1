"""The summary cell of a notebook: the finished piece in at most thirty lines, which runs with nothing from above it."""

import json
import re
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))


def summary(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    (at,) = [i for i, cell in enumerate(cells) if "".join(cell["source"]).startswith("## In thirty lines")]
    return "".join(cells[at + 1]["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_summary_runs_by_itself(path, tmp_path, monkeypatch, capsys):
    code = summary(path)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    monkeypatch.chdir(tmp_path)
    with torch.enable_grad():
        torch.manual_seed(0)
        exec(compile(code, path.name, "exec"), {"__name__": path.stem})
    said = capsys.readouterr().out
    assert re.search(r"\d", said) and "✗" not in said, "it prints what it found"
    assert list(tmp_path.iterdir()) == [], "it leaves no files"
    if path.name.startswith("09"):
        assert int(re.search(r"(\d+)% of the points lie on the ring", said)[1]) > 70
