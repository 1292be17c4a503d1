"""Soft overload: the curve is found from the sound alone and undone; sounds that nothing bent stay as they are."""

import math

import numpy as np
import pytest
import torch
from signals import noisy, speechlike

from wavelldm.audio import files
from wavelldm.errors import AudioError
from wavelldm.restore.bend import SHAPES, find_curves, straighten

SR = 16_000
BENT = {
    "tanh": torch.tanh,
    "arctan": lambda x: (2 / math.pi) * torch.atan(math.pi / 2 * x),
    "knee 2": lambda x: x / (1 + x**2).sqrt(),
    "knee 4": lambda x: x / (1 + x**4) ** 0.25,
}


def speech(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(noisy(speechlike(3.0, SR, seed), 25.0)).float()[None]


def overloaded(wav: torch.Tensor, shape: str, db: float) -> torch.Tensor:
    """Driven `db` dB beyond the ceiling, and rounded to 16 bits."""
    ceiling = wav.abs().max() * 10 ** (-db / 20)
    return (ceiling * BENT[shape](wav / ceiling) * 32_767).round() / 32_767


def nearness(clean: torch.Tensor, out: torch.Tensor) -> float:
    gain = (clean * out).sum() / out.square().sum()
    return float(10 * torch.log10(clean.square().sum() / (clean - gain * out).square().sum()))


@pytest.mark.parametrize("shape", BENT)
@pytest.mark.parametrize("db", [6.0, 12.0])
def test_a_curve_is_found_and_undone(shape, db):
    clean = speech()
    cut = overloaded(clean, shape, db)
    curves = find_curves(cut, SR)
    assert curves[0] is not None and curves[0].shape == shape
    assert curves[0].ceiling == pytest.approx(float(clean.abs().max()) * 10 ** (-db / 20), rel=0.06)
    assert nearness(clean, straighten(cut, curves)) > nearness(clean, cut) + 10


@pytest.mark.parametrize("sr", [8_000, 44_100])
def test_at_other_rates(sr):
    clean = files.resample(speech(), SR, sr)
    cut = overloaded(clean, "tanh", 9.0)
    assert nearness(clean, straighten(cut, find_curves(cut, sr))) > nearness(clean, cut) + 10


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_found_in_sound_that_nothing_bent(seed):
    assert find_curves(speech(seed), SR) == [None]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2])
def test_a_flat_cut_is_no_curve(share):
    clean = speech()
    ceiling = clean.abs().quantile(1 - share)
    assert find_curves(clean.clamp(-ceiling, ceiling), SR) == [None]


def test_each_channel_has_its_own_and_those_without_stay_to_the_bit():
    wav = torch.cat([speech(0), overloaded(speech(0), "tanh", 9.0), torch.zeros(1, 3 * SR)])
    curves = find_curves(wav, SR)
    assert [c and c.shape for c in curves] == [None, "tanh", None]
    out = straighten(wav, curves)
    assert torch.equal(out[[0, 2]], wav[[0, 2]]) and not torch.equal(out[1], wav[1])


def test_louder_or_quieter_it_is_the_same_curve():
    cut = overloaded(speech(), "tanh", 9.0)
    a, b = find_curves(cut, SR)[0], find_curves(0.01 * cut, SR)[0]
    assert a.shape == b.shape and b.ceiling == pytest.approx(0.01 * a.ceiling, rel=1e-3)


def test_too_short_silent_or_misshapen():
    assert find_curves(torch.zeros(1, SR), SR) == [None] and find_curves(torch.ones(2, 10), SR) == [None, None]
    with pytest.raises(AudioError, match="channels"):
        find_curves(torch.zeros(SR), SR)


@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_and_its_slope_agree(shape):
    u, step = np.linspace(-0.95, 0.95, 101), 1e-6
    x, slope = SHAPES[shape](u)
    derivative = (SHAPES[shape](u + step)[0] - SHAPES[shape](u - step)[0]) / (2 * step)
    assert np.allclose(np.log(derivative), slope, atol=1e-7)
    if shape in BENT:
        assert np.allclose(BENT[shape](torch.from_numpy(x)), u, atol=1e-9)
