import math

import numpy as np
import pytest
import torch

from wavelldm.audio.files import load
from wavelldm.data import voices
from wavelldm.metrics import differentiable, scores
from wavelldm.metrics.differentiable import disturbance, estoi_distance, opinion

SR = 16_000


@pytest.fixture(scope="module")
def speech():
    """Three synthetic sentences (3, 1, 3 s)."""
    folder = voices.build_corpus().parent
    paths = (
        sorted(folder.rglob("*speech*/*.flac"))[:3]
        or sorted(p for p in folder.rglob("*.*") if "speech" in str(p) and p.suffix in (".flac", ".wav"))[:3]
    )
    return torch.stack([load(p, SR, mono=True)[0][:, : 3 * SR] for p in paths])


def noisy(clean, snr, seed=0):
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    gain = (clean.square().mean((1, 2), keepdim=True) / noise.square().mean((1, 2), keepdim=True)).sqrt() * 10 ** (
        -snr / 20
    )
    return clean + gain * noise


def test_nothing_is_disturbed_by_nothing_or_by_a_louder_copy(speech):
    for gain in (1.0, 3.0, 0.1):
        assert disturbance(gain * speech, speech, SR).max() < 0.05
        assert estoi_distance(gain * speech, speech, SR).abs().max() < 1e-3


@pytest.mark.parametrize("measure", [disturbance, estoi_distance])
def test_more_noise_is_worse(measure, speech):
    values = torch.stack([measure(noisy(speech, snr), speech, SR) for snr in (30, 20, 10, 0, -10)])
    assert (values.diff(dim=0) > 0).all(), values


def test_they_rank_sounds_as_the_real_measures_do(speech):
    pairs = [[], []]
    for snr in (0, 5, 10, 15, 20, 25):
        wav = noisy(speech, snr, seed=snr)
        for i in range(len(wav)):
            clean, bad = speech[i, 0].numpy(), wav[i, 0].numpy()
            pairs[0].append(
                (scores.pesq_wb(clean, bad, SR), float(opinion(disturbance(wav[i : i + 1], speech[i : i + 1], SR))))
            )
            pairs[1].append(
                (scores.estoi(clean, bad, SR), float(estoi_distance(wav[i : i + 1], speech[i : i + 1], SR)))
            )
    (real, guess), (estoi, away) = (np.array(p).T for p in pairs)
    assert np.corrcoef(real, guess)[0, 1] > 0.9
    assert np.corrcoef(estoi, away)[0, 1] < -0.95


@pytest.mark.parametrize("measure", [disturbance, estoi_distance])
def test_following_the_gradient_helps_and_it_is_finite_on_silence(measure, speech):
    clean = speech[:1]
    wav = noisy(clean, 5).requires_grad_()
    before = measure(wav, clean, SR)
    (slope,) = torch.autograd.grad(before.sum(), wav)
    moved = wav - 0.05 * slope * wav.norm() / slope.norm()
    assert measure(moved, clean, SR) < before, (
        "the gradient must be that of the value, with everything that depends on the sound"
    )
    silent = torch.zeros_like(wav).requires_grad_()
    for a, b in ((silent, clean), (wav, torch.zeros_like(clean))):
        (slope,) = torch.autograd.grad(measure(a, b, SR).sum(), a)
        assert slope.isfinite().all()


def test_bands_hold_all_power_above_the_lowest_once():
    member, width, quiet, _ = differentiable.bark_bands(SR, 512)
    assert torch.allclose(member.sum(1)[3:-1], torch.ones(253), atol=1e-5) and member.min() >= 0
    assert math.isclose(width * differentiable.BARK_BANDS, 26.81 * 8000 / 9960 - 0.53 - 0.2, rel_tol=1e-5)
    assert 10**0.2 < quiet[20] < 10**1 and quiet[0] > 500, "hearing is better at a kilohertz than at the lowest pitches"


def test_what_inference_has_kept_serves_training(speech):
    differentiable.bark_bands.cache_clear()
    differentiable.third_octaves.cache_clear()
    with torch.inference_mode():
        disturbance(speech, speech, SR), estoi_distance(speech, speech, SR)
    wav = noisy(speech, 5).clone().requires_grad_()
    (disturbance(wav, speech.clone(), SR) + estoi_distance(wav, speech.clone(), SR)).sum().backward()
    assert wav.grad.abs().max() > 0


@pytest.mark.parametrize("n", (1, 300, 5_000))
def test_short_sounds_can_be_compared(n):
    clean = torch.randn(1, 1, n, generator=torch.Generator().manual_seed(0))
    for measure in (disturbance, estoi_distance):
        assert measure(clean + 1, clean, SR).isfinite().all()
        assert n == 1 or measure(clean, clean, SR) < 0.05
