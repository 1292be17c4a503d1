"""What notebook 06 builds by hand is what the module has."""

import copy
from dataclasses import replace

import pytest
import torch
from lift import definitions
from torch import nn

from wavelldm.audio import pitch
from wavelldm.codec import losses
from wavelldm.codec.model import Codec
from wavelldm.metrics import differentiable
from wavelldm.training import codec as train_codec
from wavelldm.training import loop
from wavelldm.training.presets import preset

torch.set_num_threads(1)
HAND = definitions("06")
SR = 16_000


def pair(n=6_000):
    g = torch.Generator().manual_seed(1)
    x = 0.1 * torch.randn(2, 1, n, generator=g)
    return x + 0.03 * torch.randn(2, 1, n, generator=g), x


def test_the_mel_loss():
    decoded, wav = pair()
    mine = HAND["my_mel_loss"](decoded, wav, SR)
    assert mine > 0.05
    assert mine.item() == pytest.approx(losses.MelLoss(SR)(decoded, wav).item(), abs=1e-6)


@pytest.mark.parametrize("gain", (1.0, 1e-3, 0.0))
def test_the_stft_loss(gain):
    decoded, wav = pair()
    mine = HAND["my_stft_loss"](decoded, gain * wav)
    assert mine > 0.05
    assert mine.item() == pytest.approx(losses.stft_loss(decoded, gain * wav).item(), rel=1e-4)


def test_the_weights():
    assert HAND["WEIGHTS"] == losses.LOSS_WEIGHTS


@pytest.mark.parametrize("gain", (1.0, 1e-4))
def test_the_magnitude_loss(gain):
    """Of the shipped preset: also where bins and bands lie below their floors."""
    torch.manual_seed(0)
    tiny = preset("tiny")
    task = train_codec.CodecTask(replace(tiny.codec, polish=4))
    codec, wav = task.networks["model"], gain * pair(8_192)[1]
    assert HAND["MAGNITUDES"] == train_codec.MAGNITUDES and HAND["POWER"] == train_codec.POWER
    with torch.no_grad():
        z_q = codec.quantise(codec.encode(wav, SR))[0]
        mine = HAND["my_magnitudes"](codec.spectrum(z_q).abs(), wav, codec.mel.bank)
        theirs = task.magnitudes(codec, z_q, wav)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value > 1e-3 and value.item() == pytest.approx(theirs[name].item(), rel=1e-4)


@pytest.mark.parametrize("silent", (False, True))
def test_what_a_source_decoder_is_taught(silent):
    """Where there is a voice, where there is none, and where the pitch is guessed nearly right and quite wrong."""
    assert HAND["VOICE"] == losses.PULSE_WEIGHTS | {"spread": train_codec.SPREAD} and HAND["NEAR"] == losses.NEAR
    torch.manual_seed(0)
    tiny = preset("tiny")
    codec = Codec(replace(tiny.codec, decoder="pulse", pitch_input=True))
    tone = 0.1 * torch.sin(torch.arange(8_192) * 2 * torch.pi * 150 / SR).sign()
    wav = torch.cat([0.3 * pair(8_192)[1][:1], (0 if silent else 1) * tone[None, None]])
    number, z_q = torch.arange(32), torch.randn(2, tiny.codec.latent_dim, 32)
    with torch.no_grad():
        mine = HAND["my_distances"](codec, z_q, wav, SR, number)
        theirs = losses.pulse_distances(codec, z_q, wav, losses.MelLoss(SR).mels, number)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value > 1e-3 and value.item() == pytest.approx(theirs[name].item(), rel=1e-4), name


@pytest.mark.parametrize("sr", (16_000, 22_050))
def test_one_minus_estoi(sr):
    decoded, wav = pair(sr)
    wav[..., : sr // 3] = 0  # a pause
    mine = HAND["my_estoi_distance"](decoded, wav, sr)
    assert mine.min() > 0.01 and torch.allclose(mine, differentiable.estoi_distance(decoded, wav, sr), atol=1e-4)
    short = decoded[..., -4_096:], wav[..., -4_096:]
    assert torch.allclose(HAND["my_estoi_distance"](*short, sr), differentiable.estoi_distance(*short, sr), atol=1e-4)


def test_the_pitch_that_is_taken():
    path = torch.tensor([[80, 80, pitch.COUNT]])
    right = pitch.candidates()[80]
    guess = torch.stack([right * 1.02, right * 1.5, torch.tensor(99.0)])[None]
    assert torch.equal(HAND["pitch_taken"](guess, path), torch.stack([guess[0, 0], right, guess[0, 2]])[None])


@pytest.mark.parametrize("scale, shift", [(1, 0), (3, 0), (1, 1), (0, 2)])
def test_the_spread_loss(scale, shift):
    u = scale * torch.randn(3, 50, 20, generator=torch.Generator().manual_seed(2)) + shift
    mine = HAND["my_spread_loss"](u)
    assert mine > 1e-3 and mine.item() == pytest.approx(train_codec.spread_loss(u).item(), rel=1e-4)


@pytest.mark.parametrize("n", (1_000, 2_311))
def test_the_critics(n):
    torch.manual_seed(0)
    mine, theirs = HAND["MyCritics"](2), losses.Critics(2)
    theirs.load_state_dict(mine.state_dict())
    _, wav = pair(n)
    for seen, expected in zip(mine(wav), theirs(wav), strict=True):
        for a, b in zip(seen, expected, strict=True):
            assert torch.allclose(a, b, atol=1e-6) and a.abs().sum() > 0


def test_the_losses_of_the_critics_and_their_gradients():
    torch.manual_seed(0)
    critics = losses.Critics(1)
    decoded, wav = pair(2_000)
    decoded.requires_grad_()
    real, fake = critics(wav), critics(decoded)
    pairs = {
        "verdict": (HAND["verdict_loss"](real, fake), losses.critic_loss(real, fake)),
        "fooling": (HAND["fooling_loss"](fake), losses.adversarial_loss(fake)),
        "matching": (HAND["matching_loss"](real, fake), losses.feature_loss(real, fake)),
    }
    for name, (mine, theirs) in pairs.items():
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-5), name
        a, b = (torch.autograd.grad(x, decoded, retain_graph=True)[0] for x in (mine, theirs))
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-8) and a.abs().sum() > 0, name


@pytest.mark.parametrize(
    "plan", [loop.Plan(), loop.Plan(steps=10, warmup=0, final=1.0), loop.Plan(steps=5, warmup=5)], ids=str
)
def test_the_learning_rate(plan):
    for step in {*range(min(plan.steps, 20)), plan.steps // 2, plan.steps - 1, plan.steps + 7}:
        assert HAND["my_learning_rate"](step, plan) == pytest.approx(loop.learning_rate(step, plan), rel=1e-9)


@pytest.mark.parametrize("step", (0, 3, 10_000))
def test_the_average(step):
    torch.manual_seed(0)
    model, start = nn.Linear(4, 3), nn.Linear(4, 3)
    mine, theirs = copy.deepcopy(start), copy.deepcopy(start)
    HAND["my_follow"](mine, model, 0.9, step)
    loop.update_average(theirs, model, 0.9, step)
    assert torch.allclose(mine.weight, theirs.weight, atol=1e-6)
    assert not torch.equal(mine.weight, start.weight)


def test_folding_puts_what_repeats_into_columns():
    folded = HAND["fold"](torch.arange(12.0)[None, None] % 5, 5)
    assert folded.shape == (1, 1, 3, 5)
    assert torch.equal(folded[0, 0, :2], torch.arange(5.0).expand(2, 5))
    assert folded[0, 0, 2].tolist() == [0, 1, 0, 0, 0]
