"""What notebook 10 builds by hand is what the module has."""

import pytest
import torch
from lift import definitions

from wavelldm.course import steps
from wavelldm.diffusion import unet
from wavelldm.diffusion.unet import UNetConfig
from wavelldm.nn import attention as layers_attention
from wavelldm.nn import layers
from wavelldm.training.presets import PRESETS, preset

torch.set_num_threads(1)
HAND = definitions("10")
HAND["turn"] = steps.turn  # the reader writes it
NAMES = "step_embedding Norm Block rotary Attention Middle Level MyUNet count_macs numbers shake influence".split()
SMALL = UNetConfig(dims=(16, 24, 32), embedding=16, cond_dim=8, heads=2, window=5)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(mine, theirs, atol=1e-4):
    assert mine.shape == theirs.shape
    assert torch.allclose(mine, theirs, atol=atol), f"differ by {(mine - theirs).abs().max():.2g}"
    assert mine.std() > 0


def shaken(network):
    """Weights that are still 0 or 1 would hide a mistake."""
    for i, p in enumerate(network.parameters()):
        p.data += 0.2 * noise(*p.shape, seed=i)
    return network


def pair(mine, theirs):
    theirs.load_state_dict(shaken(mine).state_dict())
    return mine.eval(), theirs.eval()


def test_the_definitions_are_the_notebooks_own():
    for name in NAMES:
        assert HAND[name].__module__ == "10_latent_unet"


@pytest.mark.parametrize("dim", (2, 32, 160))
def test_the_step_embedding(dim):
    t = torch.arange(0, 1000, 7)
    same(HAND["step_embedding"](t, dim), unet.step_embedding(t, dim), 2e-4)


def test_the_norm():
    mine, theirs = pair(HAND["Norm"](12), layers.ChannelNorm(12))
    same(mine(3 * noise(2, 12, 9) + 1), theirs(3 * noise(2, 12, 9) + 1), 1e-5)


@pytest.mark.parametrize("start", (0, 9))
@pytest.mark.parametrize("shape", [(11, 8), (2, 3, 11, 8)])
def test_rotary(shape, start):
    same(HAND["rotary"](noise(*shape), start), layers_attention.rotary(noise(*shape), start), 1e-5)


@pytest.mark.parametrize("window", (1, 5, 100))
def test_attention(window):
    mine, theirs = pair(HAND["Attention"](24, 3, window), layers_attention.RotaryAttention(24, 3, window, causal=True))
    same(mine(noise(2, 24, 21)), theirs(noise(2, 24, 21)), 1e-5)


@pytest.mark.parametrize("c_in", (16, 32))
def test_the_block(c_in):
    mine, theirs = pair(HAND["Block"](c_in, 16, SMALL), unet.Block(c_in, 16, SMALL))
    given = noise(2, c_in, 21), noise(2, 16, seed=2), noise(2, 8, 21, seed=3)
    same(mine(*given), theirs(*given))


@pytest.mark.parametrize("dims", [(16,), (16, 24), (16, 24, 32)])
@pytest.mark.parametrize("stride, depth, kernel", [(2, 1, 3), (3, 2, 5)])
def test_the_network(dims, stride, depth, kernel):
    c = UNetConfig(dims=dims, embedding=16, cond_dim=8, heads=2, window=5, stride=stride, depth=depth, kernel=kernel)
    mine, theirs = pair(HAND["MyUNet"](c, 10), unet.UNet(c, 10))
    for frames in (1, 4, 23):
        z_t, cond, t = noise(2, 10, frames), noise(2, 10, frames, seed=4), torch.tensor([0, 900])
        drop = torch.tensor([True, False])
        same(mine(z_t, t, cond), theirs(z_t, t, cond))
        same(mine(z_t, t), theirs(z_t, t))
        same(mine(z_t, t, cond, drop), theirs(z_t, t, cond, drop))


def test_a_fresh_network_is_the_modules_too():
    """Both begin by predicting zero, whatever goes in."""
    for network in (HAND["MyUNet"](SMALL, 10), unet.UNet(SMALL, 10)):
        assert not network(noise(2, 10, 9), torch.tensor([3, 700]), noise(2, 10, 9)).any()
        given = noise(2, 16, 9), noise(2, 16), noise(2, 8, 9)
        assert torch.equal(network.network.before[0](*given), given[0])


def test_the_widths_that_the_notebook_draws():
    for name in PRESETS:
        with torch.device("meta"):
            p = preset(name)
            mine, theirs = (
                HAND["MyUNet"](p.diffusion.unet, p.codec.latent_dim),
                unet.UNet(p.diffusion.unet, p.codec.latent_dim),
            )
        assert layers.count_parameters(mine) == layers.count_parameters(theirs)


def test_the_count_of_multiplications_and_of_the_state():
    """One rate, counted by hand: 7 frames, width 4, latent 3, condition 2, embedding 6."""
    c = UNetConfig(dims=(4,), embedding=6, cond_dim=2, heads=1, window=3)
    network = unet.UNet(c, 3)
    frames = 7
    block = frames * (2 * 4 * 4 * 3 + 8 * 2) + 6 * 8
    attention = frames * (3 * 16 + 16) + 2 * 4 * (1 + 2 + 3 * 5)
    outside = 4 * 6 + 6 * 6 + 6 * 6 + frames * (3 * 2 * 3 + 6 * 4 * 3 + 4 * 3)
    z = noise(1, 3, frames)
    assert HAND["count_macs"](network, z, torch.tensor([5]), z) == 2 * block + attention + outside
    state = network.step(z, torch.tensor([5]), z, network.initial_state(1))[1]
    inputs = (6 + 3) * 2 + 4 * 4 * 2  # the last two frames before every convolution
    assert HAND["numbers"](state) == inputs + 2 * 2 * 4  # and keys and values


@pytest.mark.parametrize("place", (0, 7, 22))
def test_influence_finds_the_future(place):
    looks_ahead = HAND["influence"](lambda x: x.flip(-1), noise(1, 3, 23), place)
    assert looks_ahead.nonzero().flatten().tolist() == [22 - place]
    felt = HAND["influence"](lambda x: x.cumsum(-1), noise(1, 3, 23), place)
    assert felt.nonzero().flatten().tolist() == list(range(place + 1))
