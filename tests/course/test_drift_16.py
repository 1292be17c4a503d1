"""What notebook 16 builds by hand is what the module has."""

import math

import pytest
import torch
from lift import definitions

from wavelldm.course.steps_late import leaning
from wavelldm.diffusion import samplers, schedule
from wavelldm.refine import unet2d, updates
from wavelldm.refine.prior import SpeechPrior
from wavelldm.training.presets import preset

HAND = definitions("16")
HAND["leaning"] = leaning  # what the reader writes


def some(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_definitions_are_the_notebooks_own():
    names = "separable_weights my_spectrum my_map lending lending_plus my_refine".split()
    for name in names:
        assert HAND[name].__module__ == "16_refining_with_diffusion"


def smooth(x_t, t):
    """Some estimate of x0, smooth in x_t and t."""
    return torch.tanh(1.5 * x_t.flip(2) - x_t) * (1 + t / 100)[:, None, None, None]


@pytest.mark.parametrize(("d_in", "d_out", "kernel"), [(32, 64, (3, 3)), (5, 7, (7, 3))])
def test_the_parameter_formulas(d_in, d_out, kernel):
    for separable, formula in ((True, "separable_weights"), (False, "plain_weights")):
        layer = unet2d.convolution(d_in, d_out, kernel, separable=separable)
        assert HAND[formula](*kernel, d_in, d_out) == sum(p.numel() for p in layer.parameters() if p.ndim > 1)


def test_spectrum_and_map():
    prior = SpeechPrior(preset("tiny").prior)
    prior.measure(0.1 + torch.rand(256, generator=torch.Generator().manual_seed(3)))
    noisy, cleaned = some(2, 5_000), some(2, 5_000, seed=1)
    spectra = [HAND["my_spectrum"](wav, prior.deviation) for wav in (noisy, cleaned)]
    torch.testing.assert_close(spectra[0], prior.spectrum(noisy))
    torch.testing.assert_close(HAND["my_map"](*spectra), updates.noise_map(*spectra))


@pytest.mark.parametrize(
    "etas", [(0.9, 0.9, None), (0.0, 1.0, None), (None, 1.0, None), (0.4, 0.6, 0.0), (0.5, 0.3, 0.6)]
)
@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_refiner(kind, etas):
    table = schedule.make(kind, 100)
    noisy, sigma = some(2, 2, 6, 7), some(2, 1, 6, 7, seed=1).abs() * 2
    sigma[0, 0, 0] = 0
    seen, found = [], []
    mine = HAND["my_refine"](
        smooth, noisy, sigma, table, 8, *etas, generator=torch.Generator().manual_seed(4), watch=seen
    )
    theirs = updates.refine(
        smooth,
        noisy,
        sigma,
        table,
        8,
        *etas,
        lambda i, t, x_t, x0: found.append((t, x_t, x0)),
        torch.Generator().manual_seed(4),
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert [t for t, *_ in seen] == [t for t, *_ in found] == samplers.timesteps(table, 8)
    torch.testing.assert_close(seen[-1][1], found[-1][1], rtol=1e-4, atol=1e-4)


def test_the_toys_answer_is_what_the_refiner_draws():
    space = HAND | {"seeded": lambda seed=0: torch.Generator().manual_seed(seed)}
    for name in ("my_refine", "perfect", "truth"):
        assert callable(space[name])
    draws = space["my_refine"](
        space["perfect"],
        torch.full((8_000, 2, 1, 1), 1.5),
        torch.ones(8_000, 1, 1, 1),
        space["TOY"],
        200,
        None,
        1.0,
        generator=space["seeded"](1),
    )
    mean, spread = space["truth"](1.5, 1.0)
    assert (mean, spread) == (0.75, pytest.approx(math.sqrt(0.5)))
    assert float(draws.mean()) == pytest.approx(mean, abs=0.03) and float(draws.std()) == pytest.approx(
        spread, abs=0.03
    )
