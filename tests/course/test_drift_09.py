"""What notebook 09 builds by hand is what the module has."""

import math

import pytest
import torch
from lift import definitions

from wavelldm.diffusion import samplers, schedule

HAND = definitions("09")
TABLES = ("linear", "scaled_linear", "cosine")
NAMES = "linear scaled_linear cosine zero_terminal q_sample to_z0 from_z0 min_snr times walk ddpm ddim dpmpp_2m".split()


def some(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(z_t, t):
    """Some z0 estimate, smooth, of z_t and t alike."""
    return torch.tanh(z_t.flip(1) * 1.5 - z_t) * (1 + t / 1000)[:, None, None]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_definitions_are_the_notebooks_own():
    for name in NAMES:
        assert HAND[name].__module__ == "09_diffusion_basics"


@pytest.mark.parametrize("steps", (40, 1000))
@pytest.mark.parametrize("kind", TABLES)
def test_schedules_are_the_modules(kind, steps):
    mine = HAND[kind](steps)
    assert torch.equal(mine, schedule.make(kind, steps).alpha_bar)
    assert torch.equal(HAND["zero_terminal"](mine), schedule.make(kind, steps, zero_terminal=True).alpha_bar)


@pytest.mark.parametrize("kind", TABLES)
def test_noise_is_the_modules(kind):
    z0, eps, t = some(50, 3, 7), some(50, 3, 7, seed=1), torch.arange(0, 1000, 20)
    assert torch.equal(HAND["q_sample"](HAND[kind](), z0, t, eps), schedule.q_sample(schedule.make(kind), z0, t, eps))


@pytest.mark.parametrize("target", schedule.KINDS)
@pytest.mark.parametrize("source", schedule.KINDS)
def test_conversions_are_the_modules(source, target):
    table, t = schedule.make("linear"), torch.arange(0, 1000, 20)
    said, z_t = some(50, 3, 7).double(), some(50, 3, 7, seed=1).double()
    a, s = table.at(t, torch.float64)
    mine = HAND["from_z0"](HAND["to_z0"](said, z_t, a, s, source), z_t, a, s, target)
    torch.testing.assert_close(mine, schedule.convert(table, said, z_t, t, source, target), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", schedule.KINDS)
@pytest.mark.parametrize("gamma", (1.0, 5.0))
def test_weights_are_the_modules(kind, gamma):
    t = torch.arange(1000)
    mine = HAND["min_snr"](HAND["cosine"](), t, kind, gamma)
    torch.testing.assert_close(mine, schedule.min_snr(schedule.make("cosine"), t, kind, gamma), rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", (1, 2, 7, 333, 1000))
def test_timesteps_are_the_modules(steps):
    assert HAND["times"](1000, steps) == samplers.timesteps(schedule.make("cosine"), steps)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("steps", (1, 2, 3, 25))
def test_samplers_are_the_modules(kind, steps):
    table, z_T = schedule.make(kind), some(8, 2, 5, seed=2)
    alpha_bar = table.alpha_bar
    mine = HAND["ddpm"](network, z_T, alpha_bar, steps, generator=seeded())
    assert torch.equal(mine, samplers.ddpm(network, z_T, table, steps, generator=seeded()))
    for eta in (0.0, 0.4, 1.0):
        mine = HAND["ddim"](network, z_T, alpha_bar, steps, generator=seeded(), eta=eta)
        assert torch.equal(mine, samplers.ddim(network, z_T, table, steps, None, seeded(), eta))
    assert torch.equal(HAND["dpmpp_2m"](network, z_T, alpha_bar, steps), samplers.dpmpp_2m(network, z_T, table, steps))


def test_the_callback_sees_what_the_modules_sees():
    table, z_T = schedule.make("cosine"), some(4, 2, 5)
    seen = {"mine": [], "theirs": []}
    HAND["ddim"](network, z_T, table.alpha_bar, 6, lambda *now: seen["mine"].append(now))
    samplers.ddim(network, z_T, table, 6, lambda *now: seen["theirs"].append(now))
    assert len(seen["mine"]) == len(seen["theirs"]) == 6
    for (i, t, z_t, z0), (j, u, want, clean) in zip(seen["mine"], seen["theirs"]):
        assert (i, t) == (j, u) and torch.equal(z_t, want) and torch.equal(z0, clean)


def test_the_best_denoiser_is_the_mean_of_exact_draws():
    """Two ways to the same mean, and the error of a draw is twice the best: what the notebook's last part stands on."""
    sigma, alpha_bar = HAND["SIGMA"], HAND["cosine"]()
    played = HAND["chime"](3000, seeded(3))
    heard = played + sigma * some(3000, 2, 1, seed=4)
    draws = HAND["possible"](heard, 400, seeded(5))[0]  # (400, B, 2, 1)
    cut = int((alpha_bar - 1 / (1 + sigma**2)).abs().argmin())
    best = HAND["ideal"](heard / math.sqrt(1 + sigma**2), torch.full((3000,), cut), alpha_bar)
    assert (draws.mean(0) - best).square().mean().sqrt() < 0.04
    smallest = (best - played).square().mean()
    assert (draws[0] - played).square().mean() / smallest == pytest.approx(2, abs=0.1)
    assert HAND["in_tune"](draws[0]) > 0.97 > 0.6 > HAND["in_tune"](best)


def test_sliced_wasserstein_by_hand():
    """Moved by d, a cloud is |d cos| away from itself, which is 2 |d| / pi on average over all sides."""
    z = some(500, 2, 1)
    away = torch.tensor([0.3, -0.4])[:, None]
    assert HAND["sliced_wasserstein"](z, z) == 0
    assert HAND["sliced_wasserstein"](z, z + away) == pytest.approx(2 * 0.5 / math.pi, rel=1e-2)
    assert HAND["sliced_wasserstein"](z, torch.cat([z, z])) < 1e-6
