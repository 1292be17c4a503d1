import math

import numpy as np
import pytest
import torch

from wavelldm.audio import pitch

SR, HOP = 16_000, 256


def voice(f0, seconds=1.0, noise=0.0, seed=0):
    """Twenty harmonics of f0 (a number, or one per sample), and noise: (1, 1, N)."""
    n = round(seconds * SR)
    f0 = torch.as_tensor(f0, dtype=torch.float64).expand(n)
    phase = 2 * math.pi * (f0 / SR).cumsum(0)
    wav = sum(torch.cos(k * phase) / k for k in range(1, 21)).float() * 0.1
    return (wav + noise * torch.randn(n, generator=torch.Generator().manual_seed(seed)))[None, None]


@pytest.mark.parametrize("f0", [65.0, 100.0, 187.5, 311.0, 480.0])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_pitch_of_a_voice_is_found(f0, noise):
    path = pitch.track(pitch.scores(voice(f0, noise=noise), SR, HOP))[0, 3:-3]
    assert (path < pitch.COUNT).all()
    cents = 1200 * (pitch.candidates()[path] / f0).log2().abs()
    assert cents.max() < 25, "within one candidate"


def test_a_glide_is_followed_and_noise_has_no_pitch():
    n = 2 * SR
    f0 = torch.linspace(100, 250, n)
    path = pitch.track(pitch.scores(voice(f0, 2.0), SR, HOP))[0]
    found = pitch.candidates()[path.clamp(max=pitch.COUNT - 1)]
    middle = f0[HOP // 2 :: HOP][: len(found)]
    assert (1200 * (found / middle).log2().abs())[4:-4].max() < 60
    noise = torch.randn(1, 1, n, generator=torch.Generator().manual_seed(1))
    assert (pitch.track(pitch.scores(noise, SR, HOP)) == pitch.COUNT).float().mean() > 0.95
    assert (pitch.track(pitch.scores(torch.zeros(1, 1, n), SR, HOP)) == pitch.COUNT).all()


@pytest.mark.parametrize("n", [1, 255, 256, 257, 5000])
@pytest.mark.parametrize("causal", [False, True])
def test_one_column_of_scores_per_frame(n, causal):
    score = pitch.scores(torch.randn(2, 1, n), SR, HOP, causal)
    assert score.shape == (2, pitch.COUNT, -(-n // HOP)) and score.abs().max() <= 1.01


def test_causal_scores_end_with_their_frame():
    wav = torch.randn(1, 1, 20 * HOP).requires_grad_()
    (grad,) = torch.autograd.grad(pitch.scores(wav, SR, HOP, causal=True)[0, :, 11].sum(), wav)
    assert (grad[..., 12 * HOP :] == 0).all() and (grad[..., 11 * HOP : 12 * HOP] != 0).any()


def test_the_best_path_is_the_best_of_all():
    """Against every path of a small problem."""
    import itertools

    g = torch.Generator().manual_seed(0)
    score = torch.rand(1, 5, 4, generator=g)
    far = 2.4 * math.log2(pitch.HIGH / pitch.LOW) / 4
    bias = [pitch.SLOW * (1 - i / 4) for i in range(5)]

    def worth(path):
        total = 0.0
        for t, state in enumerate(path):
            total += pitch.UNVOICED if state == 5 else float(score[0, state, t]) - bias[state]
            if t and (state == 5) != (path[t - 1] == 5):
                total -= pitch.SWITCH
            elif t and state != 5:
                total -= far * abs(state - path[t - 1])
        return total

    best = max(itertools.product(range(6), repeat=4), key=worth)
    assert tuple(pitch.track(score)[0].tolist()) == best


def test_logits_are_read_between_the_candidates():
    place = torch.tensor([40.3, 80.0, 120.7])
    logits = -0.5 * (torch.arange(pitch.COUNT)[:, None] - place).square()[None]
    want = pitch.LOW * (pitch.HIGH / pitch.LOW) ** (place / (pitch.COUNT - 1))
    assert np.allclose(pitch.hertz(logits)[0], want, rtol=2e-3)
    edge = torch.zeros(1, pitch.COUNT, 1)
    edge[0, 0] = 9.0
    assert pitch.LOW <= float(pitch.hertz(edge)) < 62


def test_rumble_is_no_high_pitch_and_rumble_and_hum_hide_none():
    n = 2 * SR
    rumble = torch.randn(n, generator=torch.Generator().manual_seed(3)).cumsum(0)
    rumble = 0.2 * (rumble / rumble.abs().max())[None, None]
    assert (pitch.track(pitch.scores(rumble, SR, HOP)) == pitch.COUNT - 1).float().mean() < 0.05, (
        "slow sounds hardly change in a short time"
    )
    hum = 0.05 * torch.sin(2 * math.pi * 60 * torch.arange(n) / SR)
    path = pitch.track(pitch.scores(voice(150.0, 2.0) + 0.3 * rumble + hum, SR, HOP))[0, 4:-4]
    found = pitch.candidates()[path.clamp(max=pitch.COUNT - 1)]
    assert ((path < pitch.COUNT) & ((found / 150).log2().abs() < 1 / 24)).float().mean() > 0.95
