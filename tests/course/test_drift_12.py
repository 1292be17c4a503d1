"""What notebook 12 builds by hand is what the module has."""

import math

import pytest
import torch
from lift import definitions

from wavelldm.audio import blocks
from wavelldm.denoise import segan, waveform
from wavelldm.denoise.segan import SeganConfig
from wavelldm.diffusion import samplers, schedule
from wavelldm.refine import unet2d, updates
from wavelldm.refine.prior import SpeechPrior
from wavelldm.training.presets import preset

HAND = definitions("12")


def some(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(x_t, t):
    """Some estimate of x0, smooth in x_t and t."""
    return torch.tanh(1.5 * x_t.flip(2) - x_t) * (1 + t / 100)[:, None, None, None]


def test_the_definitions_are_the_notebooks_own():
    names = "my_emphasis my_deemphasis out_length my_convolution Generator my_critic_loss my_generator_loss".split()
    names += "my_level my_windows separable_weights".split()
    for name in [*names, "my_spectrum", "my_map", "leaning", "lending", "lending_plus", "my_refine"]:
        assert HAND[name].__module__ == "12_refining_with_diffusion"


def test_emphasis_and_its_inverse():
    wav = some(2, 1, 500)
    lifted = HAND["my_emphasis"](wav, 0.9)
    assert torch.equal(lifted, segan.emphasise(wav, 0.9))
    torch.testing.assert_close(HAND["my_deemphasis"](lifted, 0.9), wav, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(HAND["my_deemphasis"](lifted, 0.9), segan.deemphasise(lifted, 0.9), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "kernel", "stride", "padding"), [(101, 31, 2, 15), (64, 15, 4, 7), (7, 3, 1, 0)])
def test_strided_convolutions(n, kernel, stride, padding):
    x, weight, bias = some(2, 3, n), some(4, 3, kernel, seed=1), some(4, seed=2)
    mine, theirs = (
        HAND["my_convolution"](x, weight, bias, stride, padding),
        torch.nn.functional.conv1d(x, weight, bias, stride, padding),
    )
    assert mine.shape[-1] == HAND["out_length"](n, kernel, stride, padding)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("widths", [(8,), (4, 8, 8)])
def test_the_generator_takes_segans_weights(widths):
    theirs = segan.Segan(SeganConfig(widths=widths, kernel=7, window=64))
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    mine = HAND["Generator"](widths, 7)
    mine.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert torch.equal(mine(some(2, 1, 64)), theirs.generate(some(2, 1, 64)))


def test_the_losses_with_binary_targets():
    true, false = some(3, 1, 9), some(3, 1, 9, seed=1)
    torch.testing.assert_close(HAND["my_critic_loss"](true, false), segan.critic_loss(true, false))
    torch.testing.assert_close(HAND["my_generator_loss"](false), segan.generator_loss(false))
    assert HAND["my_critic_loss"](torch.ones(3), torch.zeros(3)) == 0 and HAND["my_generator_loss"](torch.ones(3)) == 0


def test_the_level():
    ratios = torch.tensor([-90.0, -40.0, -5.0, 0.0, 3.3, 20.0, 60.0, 120.0])
    clean, noise = some(8, 1, 400), some(8, 1, 400, seed=1)
    noise = (
        noise
        * (
            clean.square().mean(2, keepdim=True)
            / noise.square().mean(2, keepdim=True)
            * 10 ** (-ratios[:, None, None] / 10)
        ).sqrt()
    )
    mine = HAND["my_level"](clean, noise)
    torch.testing.assert_close(mine, waveform.level(clean, noise), rtol=0, atol=0.02)
    assert (mine.diff() <= 0).all() and mine[0] == 999 and mine[-1] == 0


@pytest.mark.parametrize("n", [50, 100, 101, 175, 430])
@pytest.mark.parametrize("overlap", [0, 20, 50])
def test_overlapping_windows(n, overlap):
    def process():
        gains = iter(range(1, 99))
        return lambda x: next(gains) * x.flip(1)

    wav = some(2, n)
    theirs = torch.cat(list(blocks.cross_faded([wav], process(), 100, overlap, pad=True)), dim=1)
    torch.testing.assert_close(HAND["my_windows"](wav, 100, overlap, process()), theirs, rtol=1e-5, atol=1e-5)


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
