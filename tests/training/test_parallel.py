"""Several processes, and several turns, equal one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
from together import made, train

from wavelldm.errors import WavelldmError
from wavelldm.training import NETWORKS, loop, parallel

SCRIPT = Path(__file__).parent.parent / "together.py"
# losses that divide by a mean over the batch: turns take the mean of their own items, processes that of all
BY_BATCH = {"codec", "diffusion", "latent", "filler"}


def torchrun(*arguments: str, processes: int = 2) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*start, str(SCRIPT), *arguments]


def flat(name: str, state: dict) -> torch.Tensor:
    return torch.cat([state[key].flatten() for key, _ in made(name).networks["model"].named_parameters()])


def apart(name: str, one: Path, two: Path) -> float:
    """How far two runs lie apart, as a share of how far the first one came."""
    a, b = (torch.load(run / name / "last.pt", weights_only=True)["networks"]["model"] for run in (one, two))
    start = flat(name, made(name).networks["model"].state_dict())
    return float((flat(name, a) - flat(name, b)).norm() / (flat(name, a) - start).norm())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every network, trained for two steps by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(torchrun(str(folder / "two")), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in NETWORKS:
        train(name, folder / "one")
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_equal_one(runs, name):
    """After two steps, because Adam turns rounding errors of gradients near zero into whole steps."""
    assert apart(name, runs / "one", runs / "two") < 0.003


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in BY_BATCH])
def test_two_turns_equal_one(runs, name):
    train(name, runs / "turns", accumulate=2)
    assert apart(name, runs / "one", runs / "turns") < 0.003


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(WavelldmError, match="a batch of 4 cannot be shared evenly by 1 processes in 3 turns"):
        train("mask", tmp_path, accumulate=3)


def test_numbers_for_each_item_are_a_share_of_those_of_the_batch():
    torch.manual_seed(0)
    whole = torch.randn(4, 3), torch.rand_like(torch.zeros(4, 2)), torch.randint(9, (4, 1)), torch.rand(5)
    dropped = torch.nn.functional.dropout(torch.ones(4, 8))
    for turn in range(2):
        torch.manual_seed(0)
        with parallel.drawing(2, turn, 2):
            drawn = torch.randn(2, 3), torch.rand_like(torch.zeros(2, 2)), torch.randint(9, (2, 1)), torch.rand(5)
            ours = torch.nn.functional.dropout(torch.ones(2, 8))
        for all_of_it, part in zip(whole[:3], drawn[:3]):
            assert torch.equal(all_of_it[turn::2], part)
        assert torch.equal(whole[3], drawn[3]), "what is not for each item is the same for all"
        assert torch.equal(dropped[turn::2], ours)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two steps of two networks by one process, then two more by two."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("mask", "codec"):
        train(name, folder, steps=2)
    done = subprocess.run(torchrun(str(folder), "mask:4", "codec:4"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", ["mask", "codec"])
def test_a_run_goes_on_with_another_number_of_processes(parts, tmp_path, name):
    """With one, two and one again; the codec has critics, and so two optimisers."""
    train(name, tmp_path, steps=6)
    assert torch.load(parts / name / "last.pt", weights_only=True)["step"] == 4
    train(name, parts, steps=6)
    assert apart(name, tmp_path, parts) < 0.01


def goes_on(folder: Path) -> None:
    """What was saved is of a whole step amid the run, and one process alone goes on with it."""
    step = torch.load(folder / "mask/last.pt", weights_only=True)["step"]
    assert 0 < step < 250
    train("mask", folder, steps=step + 1)
    assert torch.load(folder / "mask/last.pt", weights_only=True)["step"] == step + 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_when_one_process_is_killed_or_hangs_the_others_save_and_say_which(tmp_path, number):
    """One of two goes amid the run, long before the next checkpoint is due; where it hangs, the other one is told to
    stop."""
    run = subprocess.Popen(torchrun(str(tmp_path), "mask:100000"), stdout=PIPE, stderr=PIPE, text=True)
    pids = dict(run.stdout.readline().split()[1:] for _ in range(2))
    assert run.stdout.readline() == "third\n"
    os.kill(int(pids["0"]), number)
    if number == signal.SIGSTOP:
        os.kill(int(pids["1"]), signal.SIGTERM)
        deadline = time.monotonic() + 60
        while not (tmp_path / "mask/last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(int(pids["0"]), signal.SIGKILL)
    said = run.communicate()[1]
    assert run.returncode != 0
    assert "WavelldmError: the process of rank 0 died or hangs; the same command goes on" in said
    goes_on(tmp_path)


def test_when_one_process_fails_the_others_save_and_say_why(tmp_path):
    """After its fifth step."""
    done = subprocess.run(
        torchrun(str(tmp_path), "mask:100000"), capture_output=True, text=True, env={**os.environ, "FAILS": "1"}
    )
    assert done.returncode != 0
    assert "WavelldmError: the process of rank 1 failed: the disk is gone; the same command goes on" in done.stderr
    assert torch.load(tmp_path / "mask/last.pt", weights_only=True)["step"] == 5
    goes_on(tmp_path)


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
@pytest.mark.parametrize("name", ["waveform"])
def test_the_compiler_changes_nothing_but_the_time(tmp_path, name):
    train(name, tmp_path / "plain", steps=3)
    train(name, tmp_path / "compiled", steps=3, compile=True)
    assert apart(name, tmp_path / "plain", tmp_path / "compiled") < 1e-3


def test_without_a_compiler_it_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(WavelldmError, match="--compile needs the C\\+\\+ compiler no-such-compiler"):
        train("mask", tmp_path, compile=True)


def test_bfloat16_and_the_compiler_are_options_of_the_loop(tmp_path, monkeypatch):
    """With the compiler's own checks, but without its minutes of C++."""
    monkeypatch.setattr(loop, "COMPILER", "eager")
    train("mask", tmp_path / "plain")
    train("mask", tmp_path / "compiled", compile=True)
    assert apart("mask", tmp_path / "plain", tmp_path / "compiled") < 0.003
    monkeypatch.setattr(loop, "fast_half", lambda device: True)
    train("mask", tmp_path / "half", half=True)
    assert 1e-6 < apart("mask", tmp_path / "plain", tmp_path / "half") < 1.5


def test_the_sizes_of_the_paper_take_a_step_on_two_processes(tmp_path):
    names = "codec", "diffusion"
    run = torchrun(str(tmp_path), *(f"{name}:1:paper44k" for name in names))
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in names:
        state = torch.load(tmp_path / name / "last.pt", weights_only=True)
        assert state["step"] == 1
        assert sum(x.numel() for x in state["networks"]["model"].values()) > 10e6
