"""What notebook 13 builds by hand does what it says."""

import pytest
import torch
from lift import definitions

from wavelldm.course.steps import flow_step

torch.set_num_threads(1)
HAND = definitions("13")
for name in ("draw", "energies"):
    HAND[name].__globals__.update(flow_step=flow_step, sr=16_000)


def some(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_definitions_are_the_notebooks_own():
    for name in ("energies", "Net", "draw", "distance", "lost_places"):
        assert HAND[name].__module__ == "13_diffusion_that_wins"


def test_energies_of_a_tone_lie_in_its_band():
    tone = torch.sin(2 * torch.pi * 3_000 * torch.arange(16_000) / 16_000)[None]
    bands = HAND["energies"](tone)  # (24, T)
    assert bands.shape[0] == HAND["LOW"] + HAND["HIGH"]
    assert int(bands[:, 30].argmax()) == HAND["LOW"] + (3_000 * 512 // 16_000 - HAND["CUT"]) // 14


@pytest.mark.parametrize("steps", (1, 3, 16))
def test_a_flow_arrives_where_a_network_that_is_sure_says(steps):
    end = some(1, HAND["HIGH"], 9)
    made = HAND["draw"](lambda low, x, t: end, some(1, HAND["LOW"], 9), steps, 0)
    torch.testing.assert_close(made, end, rtol=1e-4, atol=1e-4)


def test_a_flow_to_a_normal_crowd_draws_that_crowd():
    """x1 of deviation 0.5: the mean of x1, given x = t x1 + (1 - t) eps, is known."""

    def expected(low, x, t):
        t = t[:, None, None]
        return x * t * 0.25 / (t**2 * 0.25 + (1 - t) ** 2)

    low = torch.zeros(1, HAND["LOW"], 5_000)
    draws = {steps: HAND["draw"](expected, low, steps, 1).std().item() for steps in (1, 50)}
    assert draws[1] < 0.01 and draws[50] == pytest.approx(0.5, abs=0.02)


def test_the_frechet_distance():
    a = some(16, 20_000)
    assert HAND["distance"](a, a) == pytest.approx(0, abs=1e-6)
    assert HAND["distance"](a, a + 1) == pytest.approx(16, rel=1e-3)
    assert HAND["distance"](a, 2 * a) == pytest.approx(16, rel=0.03)  # (2 - 1)^2 in each of 16 rows


def test_lost_places_have_the_length_that_is_asked_for():
    gaps = HAND["lost_places"](torch.zeros(1, 64_000), 200, 0)
    edges = gaps[0].int().diff()
    assert (edges == 1).sum() == 4 and gaps.sum() == 4 * 3_200
