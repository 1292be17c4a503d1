import csv
import math
import os
import signal
import threading

import pytest
import torch
from torch import nn

from wavelldm.errors import WavelldmError
from wavelldm.training import loop
from wavelldm.training.loop import Plan
from wavelldm.training.options import Options


class Line(loop.Task):
    """The smallest task: fit y = 3x with one weight and some dropout noise."""

    sr = 8_000

    def __init__(self, batches=None):
        super().__init__(Options())
        self.networks = {"model": nn.Linear(1, 1)}
        self.groups = {"line": ["model"]}
        self.with_data(batches or endless, [])

    def samples(self, model):
        return {"a sound": torch.zeros(1, 800)}

    def losses(self, batch):
        (batch,) = batch
        noisy = batch + 0.01 * torch.randn_like(batch)
        loss = (self.networks["model"](noisy) - 3 * batch).square().mean()
        yield "line", loss, {"size": batch.abs().mean()}

    def validate(self, model):
        x = torch.ones(1, 1)
        return {"score": (model(x) - 3).abs().item()}


def endless(start):
    step = start
    while True:
        yield (torch.randn(8, 1, generator=torch.Generator().manual_seed(step)),)
        step += 1


PLAN = Plan(steps=60, lr=0.1, warmup=5, valid_every=10, save_every=10, ema=0.9)


def weights(folder):
    return torch.load(folder / "last.pt", weights_only=True)


def test_it_learns_and_keeps_the_best(tmp_path):
    result = loop.fit(Line(), PLAN, tmp_path, progress=False)
    assert result["step"] == 60 and result["best"] < 0.1
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert min(float(r["score"]) for r in rows) == pytest.approx(best["score"], rel=1e-4)
    assert int(min(rows, key=lambda r: float(r["score"]))["step"]) == best["step"]
    assert [int(r["step"]) for r in rows] == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("stop", [10, 37])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, stop):
    loop.fit(Line(), PLAN, tmp_path / "whole", progress=False)

    def broken(start):
        for i, batch in enumerate(endless(start), start):
            if i == stop:
                raise OSError("power cut")
            yield batch

    with pytest.raises(OSError):
        loop.fit(Line(broken), PLAN, tmp_path / "parts", progress=False)
    loop.fit(Line(), PLAN, tmp_path / "parts", progress=False)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for part in ("networks", "average"):
        left = a[part]["model"] if part == "networks" else a[part]
        right = b[part]["model"] if part == "networks" else b[part]
        for name in left:
            assert torch.equal(left[name], right[name]), f"{part}.{name}"
    steps = [r["step"] for r in csv.DictReader(open(tmp_path / "parts" / "log.csv"))]
    assert steps == [r["step"] for r in csv.DictReader(open(tmp_path / "whole" / "log.csv"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_step_and_save(tmp_path, number):
    def pressing(start):
        for i, batch in enumerate(endless(start), start):
            if i == 23:
                os.kill(os.getpid(), number)
            yield batch

    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(number)
    result = loop.fit(Line(pressing), PLAN, tmp_path, progress=False)
    assert result["stopped"] and result["step"] == 24 == weights(tmp_path)["step"]
    assert signal.getsignal(number) is before
    assert loop.fit(Line(), PLAN, tmp_path, progress=False)["step"] == 60


def test_the_rate_rises_joins_and_falls():
    plan = Plan(steps=1000, lr=1.0, warmup=100, final=0.1)
    rates = [loop.learning_rate(s, plan) for s in range(1000)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(1.0) and rates[-1] == pytest.approx(0.1)
    assert max(abs(a - b) for a, b in zip(rates, rates[1:])) < 0.011  # no jump anywhere
    assert rates[549] == pytest.approx(0.55, abs=0.01)  # the cosine's middle
    assert rates[:100] == sorted(rates[:100]) and rates[100:] == sorted(rates[100:], reverse=True)


def test_a_loss_that_explodes_is_refused(tmp_path):
    task = Line()
    task.losses = lambda batch: iter([("line", task.networks["model"](*batch).sum() * math.inf, {})])
    before = task.networks["model"].weight.clone()
    with pytest.raises(WavelldmError, match="lower the learning rate"):
        loop.fit(task, PLAN, tmp_path, progress=False)
    assert torch.equal(task.networks["model"].weight, before)


def test_broken_and_foreign_checkpoints_are_named(tmp_path):
    loop.fit(Line(), PLAN, tmp_path, progress=False)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WavelldmError, match="not a whole checkpoint"):
        loop.fit(Line(), PLAN, tmp_path, progress=False)
    (tmp_path / "last.pt").write_bytes(whole)
    other = Line()
    other.networks["model"] = nn.Linear(2, 1)
    with pytest.raises(WavelldmError, match="another model"):
        loop.fit(other, PLAN, tmp_path, progress=False)


def test_the_average_follows_the_weights():
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    target = b.weight.clone()
    gaps = []
    for step in range(50):
        loop.update_average(a, b, 0.9, step)
        gaps.append((a.weight - target).abs().item())
    assert gaps[-1] < 1e-2 * gaps[0] + 1e-7 and gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"valid_every": 0}, {"save_every": -1}, {"lr": 0.0}, {"ema": 1.0}])
def test_a_plan_that_cannot_be_followed_is_refused(wrong):
    with pytest.raises(WavelldmError, match=next(iter(wrong)).replace("lr", "learning rate")):
        Plan(**wrong)


def test_options_have_limits():
    assert Options(batch_size=1, num_workers=0).seconds == 1.0
    for wrong in ({"batch_size": 0}, {"seconds": 0.0}, {"num_workers": -1}):
        with pytest.raises(WavelldmError, match=f"{next(iter(wrong))} is"):
            Options(**wrong)
