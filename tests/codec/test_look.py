import math

import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.codec import compress, look
from wavelldm.codec.fsq import ABSENT
from wavelldm.codec.look import Looks, LooksConfig, looks_of
from wavelldm.codec.losses import PULSE_WEIGHTS, MelLoss, pulse_distances
from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.errors import WavelldmError
from wavelldm.training.looks import LooksOptions, LooksTask
from wavelldm.training.loop import Plan, fit
from wavelldm.training.presets import preset

SR, HOP = 16_000, 256
TINY = override(preset("tiny"), ["codec.decoder=pulse", "codec.pitch_input=true"])
CONFIG = LooksConfig(latent_dim=48, looks=2, width=24, depth=1, seen=8, memory=8)


def codec(seed=0):
    torch.manual_seed(seed)
    return Codec(TINY.codec).eval()


def voice(n=6000, batch=1):
    t = torch.arange(n) / SR
    sounds = [sum(torch.cos(2 * math.pi * k * f * t) for k in range(1, 12)) for f in range(150, 150 + 40 * batch, 40)]
    return 0.05 * torch.stack(sounds)[:, None]


def worth(codec, codes, wav):
    with torch.no_grad():
        z_q = codec.quantiser.decode_codes(codes)
        parts = pulse_distances(codec, z_q, wav, MelLoss(SR).mels, torch.arange(codes.shape[2]))
        return float(sum(w * parts[k] for k, w in PULSE_WEIGHTS.items()))


def test_before_any_training_a_look_goes_down_the_gradient():
    model, wav = codec(), voice()
    torch.manual_seed(0)
    looks = Looks(CONFIG)
    found = list(looks(model, wav, number=torch.arange(24), heard=True))
    assert len(found) == 3
    moved = (found[1].u - found[0].u)[found[0].gradient.abs() > 1e-6]
    towards = -found[0].gradient[found[0].gradient.abs() > 1e-6]
    assert torch.equal(moved.sign(), towards.sign()) and float(moved.detach().abs().max()) <= CONFIG.step + 1e-6
    assert all(p.grad is None for p in model.parameters())


def test_looks_that_learn_one_sound_find_better_codes_for_it(tmp_path):
    model, wav = codec(), voice(8192, batch=2)
    task = LooksTask(CONFIG, model, LooksOptions(batch_size=2, seconds=0.512))
    task.with_data(lambda first: iter([(wav,)] * 200), [(wav,)])
    before = task.validate(task.networks["model"])
    fit(task, Plan(60, lr=3e-3, warmup=5, ema=0.9, valid_every=60), tmp_path, progress=False)
    after = task.validate(task.networks["model"])
    assert after["score"] < before["score"] - 0.01
    assert after["valid_after_0"] == before["valid_after_0"], "what the encoder itself finds stays"
    assert after["score"] == after["valid_after_2"] < after["valid_after_0"] - 0.02


@pytest.mark.parametrize("codebooks", [None, 2])
def test_codebooks_that_are_not_kept_are_absent(codebooks):
    model, wav = codec(), voice()
    torch.manual_seed(1)
    looks = Looks(CONFIG)
    u = looks.numbers(model, wav, codebooks)
    keep = torch.tensor([codebooks or 4])
    z_q, codes = model.quantiser.rounded(u, keep)
    assert (codes[:, keep.item() :] == ABSENT).all() and (codes[:, : keep.item()] >= 0).all()
    assert z_q.shape == (1, 48, 24)


def test_resumed_equals_uninterrupted(tmp_path):
    wavs = [voice(8192, batch=2).roll(i, -1) for i in range(6)]

    def task():
        made = LooksTask(CONFIG, codec(), LooksOptions(batch_size=2, seconds=0.512))
        return made.with_data(lambda first: iter([(w,) for w in wavs[first:]]), [(wavs[0],)])

    plan = {"lr": 1e-3, "warmup": 1, "valid_every": 4, "save_every": 2}
    whole, parts = task(), task()
    fit(whole, Plan(4, **plan), tmp_path / "whole", progress=False)
    short = task()
    short.batches = lambda first: iter([(w,) for w in wavs[first:2]])
    fit(short, Plan(4, **plan), tmp_path / "parts", progress=False)
    fit(parts, Plan(4, **plan), tmp_path / "parts", progress=False)
    for a, b in zip(whole.networks["model"].parameters(), parts.networks["model"].parameters()):
        assert torch.equal(a, b)


def test_a_codec_without_pulses_has_no_use_for_looks():
    model = Codec(preset("tiny").codec)
    with pytest.raises(WavelldmError, match="pulse decoder"):
        list(Looks(CONFIG)(model, voice()))
    assert looks_of(model) is None


def test_files_are_coded_with_the_looks_that_ship_for_their_codec(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(compress, "BLOCK_FRAMES", 32)
    (tmp_path / "shipped").mkdir()
    weights.save(tmp_path / "shipped/mine", codec())
    model = weights.load("mine", Codec)
    torch.manual_seed(3)
    looks = Looks(CONFIG)
    files.save(tmp_path / "a.wav", voice(90 * HOP + 5)[0], SR)

    def coded(name, **how):
        compress.compress_file(tmp_path / "a.wav", tmp_path / f"{name}.wll", model, progress=False, **how)
        return (tmp_path / f"{name}.wll").read_bytes()

    plain = coded("none")
    assert coded("quick", quick=True) == plain
    weights.save(tmp_path / "shipped/mine-looks", looks, needs={"codec": model})
    assert coded("looked") != plain and coded("quick2", quick=True) == plain
    assert coded("searched", steps=2) not in (plain, coded("looked2"))
    result = compress.decompress_file(tmp_path / "looked.wll", tmp_path / "b.wav", model, progress=False)
    assert result.complete and files.info(tmp_path / "b.wav").frames == 90 * HOP + 5
    blocks = list(compress.encode_blocks(model, files.load(tmp_path / "a.wav", SR)[0].split(5_000, dim=1), 3, looks))
    assert torch.cat(blocks, dim=2).shape == (1, 3, 91)

    weights.save(tmp_path / "shipped/mine", codec(seed=1), force=True)
    assert looks_of(weights.load("mine", Codec)) is None, "looks of another codec are of no use"
    assert look.looks_of(model) is not None
