"""What notebook 15 builds by hand is what the module has."""

import pytest
import torch
from lift import definitions

from wavelldm.audio import blocks
from wavelldm.course.steps_late import noise_level
from wavelldm.denoise import segan, waveform
from wavelldm.denoise.segan import SeganConfig

HAND = definitions("15")
HAND["level_of"] = noise_level  # what the reader writes


def some(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_definitions_are_the_notebooks_own():
    names = "my_emphasis my_deemphasis out_length my_convolution Generator my_critic_loss my_generator_loss".split()
    for name in [*names, "my_level", "my_windows"]:
        assert HAND[name].__module__ == "15_segan_and_waveform"


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
