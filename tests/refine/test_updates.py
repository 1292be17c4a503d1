import math

import pytest
import torch

from wavelldm.diffusion.schedule import make
from wavelldm.errors import WavelldmError
from wavelldm.refine import updates as r

SHAPE = (64, 2, 16, 16)
PLAN = make("cosine", 200)


def seeded(k=0):
    return torch.Generator().manual_seed(k)


def gaussian(variance, mean=0.0):
    """The perfect prior of numbers that are normal with this mean and variance: E[x0 | x_t]."""

    def denoise(x_t, t):
        a, s = PLAN.at(t)
        a, s = a[..., None], s[..., None]
        return mean + a * variance / (a * a * variance + s * s) * (x_t - a * mean)

    return denoise


@pytest.mark.parametrize("then", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5])
def test_every_update_keeps_the_variance_of_its_step(then, sigma):
    """With the right x0 and the right sigma, what comes out has mean a x0 and variance s^2, whatever the etas."""
    g, a, s = seeded(), math.sqrt(then), math.sqrt(1 - then)
    x0 = torch.randn(SHAPE, generator=g)
    noisy, level, eps = (
        x0 + sigma * torch.randn(SHAPE, generator=g),
        torch.full((64, 1, 16, 16), sigma),
        torch.randn(SHAPE, generator=g),
    )
    outs = [r.with_residual(x0, noisy, level, then, eta, g) for eta in (0.0, 0.4, 0.9, 1.0)]
    outs += [
        r.with_residual_plus(x0, eps, noisy, level, then, *etas, g) for etas in ((0.4, 0.6), (0.0, 1.0), (0.7, 0.0))
    ]
    along = (eps + (noisy - x0) / sigma) / math.sqrt(2)  # noise that points the way of the observation's
    outs += [r.with_residual_plus(x0, along, noisy, level, then, 0.4, 0.5, g)]
    if s >= a * sigma:
        outs += [r.with_observation(x0, noisy, level, then, eta, g) for eta in (0.0, 0.5, 0.9, 1.0)]
    for out in outs:
        rest = out - a * x0
        assert abs(float(rest.mean())) < 0.03 * s and float(rest.var()) == pytest.approx(s * s, rel=0.03)


@pytest.mark.parametrize(
    "etas", [(0.9, 1.0, None), (None, 1.0, None), (0.9, 0.9, None), (0.4, 0.6, 0.0), (0.4, 0.6, 0.6)]
)
def test_without_noise_the_observation_comes_back(etas):
    noisy = torch.randn(2, 2, 16, 16, generator=seeded())
    out = r.refine(gaussian(1.0), noisy, torch.zeros(2, 1, 16, 16), PLAN, 100, *etas, generator=seeded(1))
    assert (out - noisy).abs().max() < (1e-6 if etas[1] == 1 else 0.1)


@pytest.mark.parametrize("etas", [(None, 1.0, None), (0.9, 0.9, None), (0.4, 0.6, 0.0)])
def test_with_endless_noise_the_prior_speaks(etas):
    noisy = 1e4 * torch.randn(SHAPE, generator=seeded())
    out = r.refine(
        gaussian(0.25, mean=2.0), noisy, torch.full((64, 1, 16, 16), 1e4), PLAN, 200, *etas, generator=seeded(1)
    )
    assert float(out.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(out.var()) == pytest.approx(0.25, rel=0.05 if etas[0] is None else 2.5), (
        "the paper's etas only come near the spread"
    )
    if etas[0] is None:
        assert abs(float(((out - 2) * noisy).mean() / noisy.std())) < 0.02, (
            "and has nothing to do with what was observed"
        )


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_known_posterior_is_recovered_in_mean_and_variance(sigma):
    """x0 is normal with variance 1, so given y it is normal with mean y / (1 + sigma^2) and variance sigma^2 / (1 +
    sigma^2)."""
    g = seeded(2)
    noisy = torch.randn(SHAPE, generator=g) * math.sqrt(1 + sigma**2)
    level = torch.full((64, 1, 16, 16), sigma)
    out = r.refine(gaussian(1.0), noisy, level, PLAN, 200, None, 1.0, generator=g)
    slope = float((out * noisy).sum() / noisy.square().sum())
    assert slope == pytest.approx(1 / (1 + sigma**2), abs=0.03)
    assert float((out - slope * noisy).var()) == pytest.approx(sigma**2 / (1 + sigma**2), abs=0.03)


def test_the_noise_map_is_the_deviation_of_one_part_of_what_was_taken_away():
    noisy, cleaned = torch.randn(1, 2, 4, 5, generator=seeded()), torch.randn(1, 2, 4, 5, generator=seeded(1))

    def complex_(x):
        return torch.complex(x[:, 0], x[:, 1])

    assert torch.allclose(r.noise_map(noisy, cleaned)[:, 0], (complex_(noisy) - complex_(cleaned)).abs() / math.sqrt(2))
    noise = 0.3 * torch.randn(SHAPE, generator=seeded(2))
    assert float(r.noise_map(noise, torch.zeros(SHAPE)).square().mean()) == pytest.approx(0.09, rel=0.02)


@pytest.mark.parametrize("then", [0.3, 0.9])  # before and after the step's noise has fallen to the observation's
def test_with_the_map_of_the_true_noise_every_step_has_the_noise_it_says(then):
    g, a, s = seeded(3), math.sqrt(then), math.sqrt(1 - then)
    x0, noise = (torch.randn(SHAPE, generator=g) for _ in range(2))
    level = r.noise_map(x0 + noise, x0)
    leaning, inner = (
        r.with_observation(x0, x0 + noise, level, then, 0.9, g),
        r.with_residual(x0, x0 + noise, level, then, 0.5, g),
    )
    small = s >= a * level
    rest = (torch.where(small, leaning, inner) - a * x0).square().mean(1, keepdim=True)
    for where in (small, ~small):
        assert where.float().mean() > 0.05 and float(rest[where].mean()) == pytest.approx(s * s, rel=0.05)


def test_errors_say_what_to_do():
    noisy, level = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
    for etas in ((1.5, 0.9, None), (0.9, -0.1, None), (0.4, 0.6, 2.0)):
        with pytest.raises(WavelldmError, match="between 0 and 1"):
            r.refine(gaussian(1.0), noisy, level, PLAN, 5, *etas)
    with pytest.raises(WavelldmError, match="no eta_c"):
        r.refine(gaussian(1.0), noisy, level, PLAN, 5, None, 0.9, 0.9)
    with pytest.raises(WavelldmError, match="lower one"):
        r.refine(gaussian(1.0), noisy, level, PLAN, 5, 0.9, 0.9, 0.9)
    for bad in (level - 1, noisy, level[..., :2]):
        with pytest.raises(WavelldmError, match="noise map"):
            r.refine(gaussian(1.0), noisy, bad, PLAN, 5)
