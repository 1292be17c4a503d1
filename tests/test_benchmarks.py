"""What the benchmark of restoration does to clips, how it asks peers, and that it runs from clip to table."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from signals import speechlike

from wavelldm.audio import files

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SR = 16_000


@pytest.fixture
def script(monkeypatch):
    """A script of benchmarks/, by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def noise(seconds: float = 5.0) -> torch.Tensor:
    return 0.1 * torch.randn(1, round(seconds * SR), generator=torch.Generator().manual_seed(0))


def test_packets_are_lost_whole_up_to_three_in_a_row_and_a_tenth_in_all(script):
    wav = noise()
    damaged, known = script("damaged").packets(wav, torch.Generator().manual_seed(0))
    lost = known["gaps"].unflatten(1, (-1, 320))[0]  # (250, 320)
    assert torch.equal(lost.any(1), lost.all(1)) and lost.all(1).sum() == 25
    runs = "".join(str(int(x)) for x in lost.all(1)).split("0")
    assert set(map(len, runs)) <= {0, 1, 2, 3} and max(map(len, runs)) > 1
    assert torch.equal(damaged, wav.masked_fill(known["gaps"], 0.0))


def test_clipping_cuts_the_share_that_it_is_asked_for_and_tells_where(script):
    damaged, known = script("damaged").clipping(0.1)(noise(), torch.Generator())
    assert float(known["clipped"].float().mean()) == pytest.approx(0.1, abs=1e-3)
    assert torch.equal(damaged.abs() == damaged.abs().max(), known["clipped"])


def test_every_task_has_scores_with_a_label(script):
    tasks, labels = script("damaged").TASKS, script("judges").LABELS
    assert all(set(task.scores) <= set(labels) for task in tasks.values())


def test_an_interval_holds_the_mean_and_narrows_with_more_clips(script):
    judges = script("judges")
    few, many = (np.random.default_rng(0).standard_normal(n).tolist() for n in (10, 1000))
    for values in (few, many):
        mean, low, high = judges.interval([*values, None])
        assert low < mean < high and mean == pytest.approx(np.mean(values))
    width = 2 * 1.96 * np.std(many) / np.sqrt(1000)
    assert high - low == pytest.approx(width, rel=0.1)
    assert judges.differences([1.0, None, 3.0], [0.5, 1.0, 1.0]) == [0.5, 2.0]
    assert judges.cell([None], "stoi") == "" and judges.cell([1.0], "pesq_wb", signed=True) == "+1.00 [+1.00, +1.00]"


def test_the_spline_keeps_what_is_not_clipped_and_goes_beyond_the_ceiling(script):
    t = torch.arange(SR) / SR
    clean = torch.sin(2 * torch.pi * 200 * t)[None]
    damaged = clean.clamp(-0.8, 0.8)
    out = script("repairs").spline(damaged, None)
    below = damaged.abs() < 0.79
    assert torch.equal(out[below], damaged[below])
    assert float((out - clean).abs().max()) < 0.05 < float((damaged - clean).abs().max())


def test_a_restorer_is_told_the_gaps_as_they_are(script):
    damaged, repairs = script("damaged"), script("repairs")
    wav, known = damaged.gaps(noise(), torch.Generator().manual_seed(3))
    told = repairs.truth(damaged.Clip("gaps", 0, "", wav, wav, **known)).gaps
    mask = torch.zeros_like(wav, dtype=torch.bool)
    for a, b in told:
        mask[:, a:b] = True
    assert len(told) > 1 and torch.equal(mask, known["gaps"])


@pytest.fixture
def concealing(monkeypatch):
    """In place of the tflite runtime: a network that answers with 0.5 under its window, and the inputs that it saw."""
    seen = []

    class Interpreter:
        def __init__(self, model_path, num_threads):
            pass

        allocate_tensors = invoke = lambda self: None

        def get_input_details(self):
            return [{"index": 0}]

        get_output_details = get_input_details

        def set_tensor(self, index, value):
            seen.append(value.copy())

        def get_tensor(self, index):
            return 0.5 * np.hanning(321)[:-1][None].astype(np.float32)

    package = types.ModuleType("ai_edge_litert.interpreter")
    package.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", package)
    return seen


def test_tplcnet_answers_in_lost_packets_and_crosses_over_in_the_blocks_beside_them(script, concealing):
    wav, gaps = noise(1.003), torch.zeros(1, round(1.003 * SR), dtype=torch.bool)
    run = script("peers").tplcnet("file")
    assert torch.allclose(run(wav, gaps), wav, atol=1e-6) and not concealing
    gaps[:, 3_200:3_520] = True
    out = run(wav.masked_fill(gaps, 0.0), gaps)
    assert torch.allclose(out[gaps], torch.tensor(0.5), atol=1e-6)
    apart = ((out - wav).abs() > 1e-5)[0].nonzero()[:, 0]
    assert 3_040 <= int(apart.min()) and int(apart.max()) < 3_680
    assert len(concealing) == 3 and all(not x[0, -1].any() for x in concealing[:2])
    assert np.allclose(concealing[1][0, -3], out[0, 3_040:3_200])  # what it said last


def test_a_pitch_is_wrong_where_both_trackers_say_so(script):
    p = script("pitch")
    f0 = np.array([100, 100, 100, 100, 100, 100, 0, 0, np.nan])
    heard = p.Heard(np.nan_to_num(np.tile(f0, (2, 1))), f0, np.full(9, 0.5))
    now = np.array([[101, 200, 50, 0, 130, 140, 0, 80, 300], [100, 205, 52, 50, 100, 140, 80, 90, 300]])
    kinds = ["", "up", "down", "lost", "", "elsewhere", "", "buzz", ""]
    assert p.judge(heard, now).tolist() == kinds
    counted = p.count(heard, now)
    assert {k: counted[k] for k in p.KINDS} == dict.fromkeys(p.KINDS, 1)
    assert (counted["voiced"], counted["unvoiced"], counted["heard"], counted["heard_wrong"]) == (6, 2, 4.0, 2.5)
    assert counted["cents"] == pytest.approx(600 * np.log2(1.01))  # frame 0, mean of the two trackers
    row = {**counted, "clip": "one"}
    assert p.share([row, row], ("up",), "voiced").startswith("16.67 [16.67")
    assert p.share([{**row, "voiced": 0}], ("up",), "voiced") == ""


def test_the_benchmark_runs_from_clip_to_table(script, tmp_path, monkeypatch, capsys):
    rows = [("path", "kind", "source", "licence", "label", "language", "seconds", "split", "note")]
    for i in range(2):
        files.save(tmp_path / f"{i}.wav", torch.tensor(speechlike(5.5, seed=i))[None].float(), SR)
        rows.append((f"{i}.wav", "speech", "test", "CC0 1.0", f"voice{i}", "en", "5.5", "valid", ""))
    files.save(tmp_path / "noise.wav", noise(), SR)
    rows.append(("noise.wav", "noise", "test", "CC0 1.0", "hiss", "-", "5", "valid", ""))
    (tmp_path / "manifest.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "data"))
    restore = script("restore")
    monkeypatch.setattr(restore, "OUT", tmp_path / "out")
    tasks = ["--tasks", "clipping, 10 %", "nothing", "--only", "as it is", "plain", "`restore`"]
    restore.main(["--manifest", str(tmp_path / "manifest.tsv"), "--quick", *tasks])
    text = capsys.readouterr().out
    assert "### Clipping, 10 %\n\n2 clips." in text and "| plain |" in text and "*plain - as it is*" not in text
    assert "| `restore` | as it is | 0 of 6 |" in text
    assert len(list((tmp_path / "out").glob("worst-*.png"))) == 2
