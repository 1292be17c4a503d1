import csv
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.cli import main
from wavelldm.codec.model import Codec
from wavelldm.data import corpora
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.errors import DataError, WavelldmError
from wavelldm.training import loop
from wavelldm.training.codec import CodecTask
from wavelldm.training.presets import preset

SR = 16_000


def crops(n=4, seed=0, samples=8_000):
    t = torch.arange(samples) / SR
    g = torch.Generator().manual_seed(seed)
    pitch = 100 + 150 * torch.rand(n, 1, 1, generator=g)
    clean = 0.1 * sum(torch.sin(2 * torch.pi * k * pitch * t) / k for k in range(1, 8))
    return clean + 0.02 * torch.randn(clean.shape, generator=g), clean


@pytest.mark.parametrize("critics", [0, 1])
def test_one_batch_is_overfitted(tmp_path, critics):
    batch = crops()
    task = CodecTask(preset("tiny"), [batch], critics)
    before = task.validate(task.networks["model"])["score"]
    plan = loop.Plan(steps=40, lr=3e-3, warmup=5, valid_every=40, ema=0.5)
    result = loop.fit(task, lambda start: iter([batch] * 100), plan, tmp_path, progress=False)
    assert result["best"] < 0.6 * before
    (row,) = csv.DictReader(open(tmp_path / "log.csv"))
    wanted = {"valid_mel", "valid_stft", "distinct_codes", "codec", "mel", "stft"} | (
        {"critics", "adversarial", "features"} if critics else set()
    )
    assert wanted <= set(row)
    assert (tmp_path / "tensorboard").is_dir()


def test_critics_may_join_a_run_late(tmp_path):
    batch, plan = crops(), loop.Plan(steps=4, valid_every=4)
    loop.fit(CodecTask(preset("tiny"), [batch]), lambda start: iter([batch] * 9), plan, tmp_path, progress=False)
    late = CodecTask(preset("tiny"), [batch], critic_width=1)
    result = loop.fit(
        late, lambda start: iter([batch] * 9), loop.Plan(steps=8, valid_every=4), tmp_path, progress=False
    )
    assert result["step"] == 8
    state = loop.load_checkpoint(tmp_path / "last.pt")
    assert set(state["networks"]) == {"model", "critics"}
    with pytest.raises(WavelldmError, match="another model"):  # and may not leave again
        loop.fit(CodecTask(preset("tiny"), [batch]), lambda start: iter([]), plan, tmp_path, progress=False)


def test_critics_and_codec_each_get_their_own_gradients():
    task = CodecTask(preset("tiny"), [], 1)
    for group, loss, _ in task.losses(crops()):
        for network in task.networks.values():
            network.zero_grad()
        loss.backward()
        got = {
            name: any(p.grad is not None and p.grad.abs().sum() > 0 for p in n.parameters())
            for name, n in task.networks.items()
        }
        assert got["critics" if group == "critics" else "model"]
        if group == "critics":
            assert not got["model"]


def test_hearing_noisy_speech_means_giving_it_back():
    noisy, clean = crops()
    task = CodecTask(preset("tiny"), [], hear_noisy=True)
    heard = []
    encode = task.networks["model"].encode
    task.networks["model"].encode = lambda wav, sr: heard.append(wav) or encode(wav, sr)
    list(task.losses((noisy, clean)))
    assert torch.equal(heard[0][0::2], clean[0::2]) and torch.equal(heard[0][1::2], noisy[1::2])


@pytest.fixture
def folders(tmp_path):
    for i in range(12):
        noisy, clean = crops(1, i, 24_000)
        for side, wav in {"clean": clean, "noisy": noisy}.items():
            files.save(tmp_path / side / f"s{i}.wav", wav[0], SR)
    return tmp_path


TINY = ["--preset", "tiny", "--batch_size", "4", "--seconds", "0.25", "--steps", "4", "--lr", "1e-3"]


def test_the_seeds_command_line(folders, capsys, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(folders / "data"))
    argv = "train codec --preset tiny --set codec.decoder_dim=32 --add_random_cutting --batch_size 4 --lr 2e-5 --use_scheduler --epochs 0.5 "
    argv += "--num_workers 1 --json --seconds 0.5"
    paths = [
        "--clean_data_path",
        str(folders / "clean"),
        "--noisy_data_path",
        str(folders / "noisy"),
        "--output",
        str(folders / "run"),
    ]
    assert main.main([*argv.split(), *paths]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == round(0.5 * 11 * 1.5 / 2) and not result["stopped"]
    best = torch.load(folders / "run" / "best.pt", weights_only=True)
    assert best["model"]["decoder.bins.weight"].shape[1] == 32
    codec = weights.load(folders / "run" / "tiny.safetensors", Codec)  # ready to use
    assert torch.equal(codec.decoder.bins.weight, best["model"]["decoder.bins.weight"].half().float())
    assert main.main([*argv.split(), *paths]) == 0  # again: nothing left to do


def test_stopping_before_the_first_validation_is_no_error(folders, capsys, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(folders / "data"))
    losses = CodecTask.losses

    def pressed(self, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return losses(self, batch)

    monkeypatch.setattr(CodecTask, "losses", pressed)
    argv = ["train", "codec", *TINY, "--clean_data_path", str(folders / "clean"), "--output", str(folders / "run")]
    assert main.main(argv) == 0
    assert "stopped; the same command goes on: step 1 of 4, not validated yet" in capsys.readouterr().out
    monkeypatch.setattr(CodecTask, "losses", losses)
    assert main.main(argv) == 0
    assert "done: step 4 of 4, best score" in capsys.readouterr().out


@pytest.mark.parametrize("network", ["codec", "diffusion"])
def test_two_processes_equal_one(folders, network):
    """torchrun with two CPU processes: the same global batch, the same weights. After two steps, because Adam turns rounding
    errors of gradients near zero into whole steps, and from there on they grow by themselves."""
    environment = {
        **os.environ,
        "WAVELLDM_DATA": str(folders / "data"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    common = [
        "-m",
        "wavelldm",
        "train",
        network,
        *TINY,
        "--no-half",
        "--clean_data_path",
        str(folders / "clean"),
        "--steps",
        "2",
    ]
    if network == "diffusion":
        codec = weights.save(folders / "tiny", CodecTask(preset("tiny"), []).networks["model"])
        common += ["--codec", str(codec), "--hours", "0.005", "--noisy_data_path", str(folders / "noisy")]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launch, out in (([sys.executable], "one"), (several, "two")):
        done = subprocess.run(
            [*launch, *common, "--output", str(folders / out)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(folders / out / "last.pt", weights_only=True) for out in ("one", "two"))
    assert one["step"] == two["step"] == 2
    torch.manual_seed(0)  # where both runs began
    start = Codec(preset("tiny").codec) if network == "codec" else LatentDiffusion(preset("tiny").diffusion)
    flat = lambda state: torch.cat([state[name].flatten() for name, _ in start.named_parameters()])
    moved = (flat(one["networks"]["model"]) - flat(start.state_dict())).norm()
    apart = (flat(one["networks"]["model"]) - flat(two["networks"]["model"])).norm()
    assert moved > 0.05 and apart < 0.002 * moved, f"{apart:.1e} apart after moving by {moved:.1e}"


def test_what_there_is_to_hear(folders, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(folders / "data"))
    heard = corpora.gather(folders / "clean", folders / "noisy")
    assert heard.recorded and heard.noise is None and len(heard.speech) + len(heard.valid_speech) == 12
    assert not {i.path for i in heard.speech} & {i.path for i in heard.valid_speech}
    embedded = corpora.gather(minutes=0.5)
    assert not embedded.recorded and embedded.noise and {i.split for i in embedded.valid_speech} == {"valid"}
    with pytest.raises(DataError, match="clean twins"):
        corpora.gather(noisy=folders / "noisy")
    with pytest.raises(DataError, match="not both"):
        corpora.gather(clean=folders / "clean", manifest="m.tsv")
