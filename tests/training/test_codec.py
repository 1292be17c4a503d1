import copy
import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.cli import main
from wavelldm.codec.model import Codec
from wavelldm.denoise.mask import MaskNet
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.errors import WavelldmError
from wavelldm.nn.layers import Conv1d
from wavelldm.training import loop
from wavelldm.training.codec import CodecOptions, CodecTask
from wavelldm.training.presets import preset

SR = 16_000


def crops(n=4, seed=0, samples=8_000):
    t = torch.arange(samples) / SR
    g = torch.Generator().manual_seed(seed)
    pitch = 100 + 150 * torch.rand(n, 1, 1, generator=g)
    clean = 0.1 * sum(torch.sin(2 * torch.pi * k * pitch * t) / k for k in range(1, 8))
    return clean + 0.02 * torch.randn(clean.shape, generator=g), clean


def tiny(batch=None, **options):
    task = CodecTask(preset("tiny").codec, CodecOptions(**options))
    return task.with_data(lambda first: iter([batch] * 100), [batch])


@pytest.mark.parametrize("critics", [0, 1])
def test_one_batch_is_overfitted(tmp_path, critics):
    batch = crops(2, samples=4_096)
    task = tiny(batch, critics=critics)
    before = task.validate(task.networks["model"])["score"]
    plan = loop.Plan(steps=40, lr=3e-3, warmup=5, valid_every=40, ema=0.5)
    result = loop.fit(task, plan, tmp_path, progress=False)
    assert result["best"] < 0.6 * before
    (row,) = csv.DictReader(open(tmp_path / "log.csv"))
    wanted = {"valid_mel", "valid_stft", "distinct_codes", "codec", "mel", "stft"} | (
        {"critics", "adversarial", "features"} if critics else set()
    )
    assert wanted <= set(row)
    assert (tmp_path / "tensorboard").is_dir()


def test_critics_may_join_a_run_late(tmp_path):
    batch = crops()
    loop.fit(tiny(batch), loop.Plan(steps=4, valid_every=4), tmp_path, progress=False)
    result = loop.fit(tiny(batch, critics=1), loop.Plan(steps=8, valid_every=4), tmp_path, progress=False)
    assert result["step"] == 8
    state = loop.load_checkpoint(tmp_path / "last.pt")
    assert set(state["networks"]) == {"model", "critics"}
    with pytest.raises(WavelldmError, match="another model"):  # and may not leave again
        loop.fit(tiny(batch), loop.Plan(steps=9), tmp_path, progress=False)


@pytest.mark.parametrize("decoder", ["istft", "pulse"])
def test_critics_hear_every_decoder_that_makes_sound(decoder):
    """With the pulse decoder, which the default preset has, there was no sound to listen to."""
    config = replace(preset("tiny").codec, decoder=decoder)
    parts = {}
    for _, loss, figures in CodecTask(config, CodecOptions(critics=1, half=False)).losses(crops()):
        assert torch.isfinite(loss)
        loss.backward()
        parts |= figures
    assert {"adversarial", "features", "mel"} <= set(parts)
    with pytest.raises(WavelldmError, match="critics listen"):
        CodecTask(replace(preset("tiny").codec, polish=4), CodecOptions(critics=1))


@pytest.fixture
def looked(tmp_path):
    """Looks for a tiny codec with the pulse decoder, by their path, and the codec's sizes."""
    from wavelldm.codec.look import Looks, LooksConfig

    config = replace(preset("tiny").codec, decoder="pulse", pitch_input=True)
    torch.manual_seed(0)
    looks = Looks(LooksConfig(latent_dim=config.latent_dim, looks=2, width=24, depth=1, seen=8, memory=8))
    return str(weights.save(tmp_path / "looks", looks)), config


def test_with_looks_the_decoder_alone_learns_and_its_sound_gets_better(looked, tmp_path):
    name, config = looked
    batch = crops(2, samples=4_096)
    task = CodecTask(config, CodecOptions(looks=name, half=False))
    task.with_data(lambda first: iter([batch] * 60), [batch])
    model = task.networks["model"]
    before, state = task.validate(model)["score"], {k: v.clone() for k, v in model.state_dict().items()}
    result = loop.fit(task, loop.Plan(steps=40, lr=3e-3, warmup=5, valid_every=40, ema=0.5), tmp_path, progress=False)
    assert result["best"] < 0.8 * before
    for key, value in model.state_dict().items():
        learns = key.startswith(("decoder.", "upsampler."))
        assert torch.equal(value, state[key]) != (learns and value.is_floating_point()), key


def test_corrected_codes_are_what_the_looks_give_when_a_file_is_written(looked):
    from wavelldm.codec.look import Looks

    name, config = looked
    task, wav = CodecTask(config, CodecOptions(looks=name, half=False)), crops(2, samples=4_096)[1]
    codec = task.networks["model"].eval()
    z_q, number = task.corrected(codec, wav, None)
    for i in range(len(wav)):
        u = weights.load(name, Looks).numbers(codec, wav[i : i + 1], first=int(number[i, 0]))
        torch.testing.assert_close(codec.quantiser.rounded(u)[0], z_q[i : i + 1], rtol=1e-4, atol=1e-4)


def test_looks_are_for_the_pulse_decoder(looked):
    with pytest.raises(WavelldmError, match="pulse decoder"):
        CodecTask(preset("tiny").codec, CodecOptions(looks=looked[0]))


def test_critics_and_codec_each_get_their_own_gradients():
    task = tiny(critics=1)
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
    task = CodecTask(preset("tiny").codec, with_noisy=True)
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
    argv = "train codec --preset tiny --set decoder_dim=32 --add_random_cutting --batch_size 4 --lr 2e-5 "
    argv += "--use_scheduler --epochs 0.5 --num_workers 1 --json --seconds 0.5"
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


@pytest.mark.parametrize("network", ["codec", "diffusion", "mask"])
def test_two_processes_equal_one(folders, network, monkeypatch):
    """torchrun with two CPU processes: the same global batch, the same weights. After two steps, because Adam turns
    rounding errors of gradients near zero into whole steps, and from there on they grow by themselves."""
    monkeypatch.setenv("WAVELLDM_DATA", str(folders / "data"))
    common = ["train", network, *TINY, "--device", "cpu", "--steps", "2"]
    common += [] if network == "mask" else ["--no-half"]
    common += ["--clean_data_path", str(folders / "clean"), "--noisy_data_path", str(folders / "noisy")]
    if network == "diffusion":
        codec = weights.save(folders / "tiny", CodecTask(preset("tiny").codec).networks["model"])
        common += ["--codec", str(codec), "--hours", "0.005"]
    assert main.main([*common, "--output", str(folders / "one")]) == 0
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "wavelldm"]
    done = subprocess.run([*several, *common, "--output", str(folders / "two")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("done: step 2 of 2") == 1  # said once
    one, two = (torch.load(folders / out / "last.pt", weights_only=True) for out in ("one", "two"))
    assert one["step"] == two["step"] == 2
    torch.manual_seed(0)  # where both runs began
    kinds = {"codec": Codec, "diffusion": LatentDiffusion, "mask": MaskNet}
    start = kinds[network](getattr(preset("tiny"), network))

    def flat(state):
        return torch.cat([state[name].flatten() for name, _ in start.named_parameters()])

    moved = (flat(one["networks"]["model"]) - flat(start.state_dict())).norm()
    apart = (flat(one["networks"]["model"]) - flat(two["networks"]["model"])).norm()
    assert moved > 0.05 and apart < 0.002 * moved, f"{apart:.1e} apart after moving by {moved:.1e}"


def pulse_config(**choices):
    return replace(preset("tiny").codec, decoder="pulse", pitch_input=True, **choices)


@torch.no_grad()
def test_a_causal_codec_begins_as_one_that_looks_ahead_does_without_its_future(tmp_path):
    torch.manual_seed(0)
    both = Codec(pulse_config())
    path = weights.save(tmp_path / "both", both)
    task = CodecTask(pulse_config(causal=True, ahead=1))
    task.start_from(str(path))
    both, causal = weights.load(path, Codec), task.networks["model"]
    for layer in both.modules():  # nothing from the future
        if isinstance(layer, Conv1d):
            layer.weight[..., layer.span // 2 + 1 :] = 0
    features, z = torch.randn(1, both.encoder[0].in_channels, 50), torch.randn(1, 48, 50)
    assert torch.allclose(causal.encoder(features), both.encoder(features), atol=1e-5)
    for a, b in zip(causal.decoder.parts(z), both.decoder.parts(z)):
        assert torch.allclose(a, b, atol=1e-5)
    again = CodecTask(pulse_config(causal=True, ahead=1))
    again.start_from(str(weights.save(tmp_path / "causal", causal)))
    assert torch.equal(again.networks["model"].encoder[0].weight, causal.encoder[0].weight.half().float())
    with pytest.raises(WavelldmError, match="another size"):
        CodecTask(pulse_config(latent_dim=32)).start_from(str(path))


@torch.no_grad()
def test_a_codec_that_corrects_its_spectra_begins_as_one_that_does_not_and_goes_back(tmp_path):
    torch.manual_seed(0)
    plain, codes = Codec(pulse_config()).eval(), torch.randint(0, 15_360, (1, 4, 20))
    path = weights.save(tmp_path / "plain", plain)
    task = CodecTask(pulse_config(correction=16))
    task.start_from(str(path))
    before, corrected = weights.load(path, Codec).eval().codes_to_wav(codes), task.networks["model"].eval()
    assert torch.equal(corrected.codes_to_wav(codes), before)
    torch.nn.init.normal_(corrected.decoder.correction.out.weight)
    assert not torch.allclose(corrected.codes_to_wav(codes), before, atol=1e-3)
    back, path = CodecTask(pulse_config()), weights.save(tmp_path / "corrected", corrected)
    back.start_from(str(path))
    assert torch.equal(back.networks["model"].eval().codes_to_wav(codes), before)
    live = CodecTask(pulse_config(causal=True, ahead=1))
    live.start_from(str(path))
    assert torch.equal(live.networks["model"].decoder.gains.weight, back.networks["model"].decoder.gains.weight)
    for other in (pulse_config(correction=8), pulse_config(latent_dim=32)):
        with pytest.raises(WavelldmError, match="another size"):
            CodecTask(other).start_from(str(path))


def test_the_decoder_alone_learns_and_codes_stay_as_they_are():
    torch.manual_seed(0)
    task = CodecTask(pulse_config(correction=16), CodecOptions(half=False, decoder_alone=True))
    model, batch = task.networks["model"], crops(2, samples=4_096)
    before, codes = copy.deepcopy(model.state_dict()), model(batch[1]).codes
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for _ in range(2):
        for _, loss, _ in task.losses(batch):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    moved = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert {name.split(".")[0] for name in moved} == {"decoder"} and "decoder.correction.out.weight" in moved
    assert torch.equal(model(batch[1]).codes, codes)


def test_lost_frames_are_hidden_from_the_decoder_in_training(monkeypatch):
    """With all frames lost no gradient reaches the encoder from what is decoded."""
    from wavelldm.training import codec as module

    batch = crops(2, samples=4_096)
    monkeypatch.setattr(module, "SPREAD", 0.0)
    monkeypatch.setattr(module, "random_losses", lambda size, frames, most: torch.ones(size, frames, dtype=torch.bool))

    def gradients(lost):
        task = CodecTask(pulse_config(), CodecOptions(lost=lost)).with_data(None, [batch])
        ((_, loss, _),) = task.losses(batch)
        loss.backward()
        return [p.grad for p in task.networks["model"].encoder.parameters() if p.grad is not None]

    assert any(g.abs().max() > 0 for g in gradients(0.0))
    assert all(g.abs().max() == 0 for g in gradients(0.3))
