"""What notebook 12 builds by hand is what the module has."""

import pytest
import torch
from lift import definitions

from wavelldm.course.steps_late import guidance
from wavelldm.diffusion import samplers, schedule
from wavelldm.diffusion.latent import DiffusionConfig, LatentDiffusion
from wavelldm.diffusion.unet import UNetConfig
from wavelldm.restore import gaps
from wavelldm.restore.filler import TOLD, Filler, FillerConfig, Told

HAND = definitions("12")


def some(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(z_t, t):
    """Some z0 estimate, smooth, of z_t and t alike."""
    return torch.tanh(z_t.flip(2) * 1.5 - z_t) * (1 + t / 1000)[:, None, None]


def test_the_definitions_are_the_notebooks_own():
    for name in ("repaint", "noised", "my_flow", "my_share"):
        assert HAND[name].__module__ == "12_ddpm_ddim_sampling"


@pytest.mark.parametrize("kind", ("linear", "cosine"))
@pytest.mark.parametrize(("steps", "jump", "resample"), ((1, 1, 1), (6, 6, 1), (10, 5, 3), (13, 5, 2)))
def test_repaint_is_the_modules(kind, steps, jump, resample):
    table, known = schedule.make(kind), some(2, 3, 9)
    keep = torch.ones(2, 1, 9, dtype=torch.bool)
    keep[0, :, 3:6], keep[1, :, 7:] = False, False
    mine = HAND["repaint"](network, known, keep, table, steps, jump, resample, torch.Generator().manual_seed(1))
    theirs = samplers.inpaint(
        network, known, keep, table, steps, None, torch.Generator().manual_seed(1), jump, resample
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    spread = keep.expand_as(known)
    assert torch.equal(mine[spread], known[spread]) and not torch.isclose(mine, known)[~spread].all()


@pytest.mark.parametrize("weight", (0.5, 1.5, 3.0))
def test_guidance_is_the_modules(weight):
    torch.manual_seed(0)
    unet = UNetConfig(dims=(8, 8), depth=1, stride=2, embedding=8, cond_dim=8, heads=2, window=8)
    model = LatentDiffusion(DiffusionConfig(6, unet, predicts="z0", path="noise")).eval()
    for p in model.parameters():  # new blocks hand on what they get, whatever the condition
        torch.nn.init.normal_(p, std=0.3)
    z_t, cond, t = some(2, 6, 12), some(2, 6, 12, seed=1), torch.tensor([999, 400])
    with torch.no_grad():
        mine, theirs = guidance(model.unet, z_t, t, cond, weight), model.denoise(z_t, t, cond, weight)
        plain = model.denoise(z_t, t, cond)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert (mine - plain).abs().max() > 0.01


def test_noise_leaves_the_share_it_says():
    z = torch.full((1, 1, 100_000), 2.0)
    out = HAND["noised"](z, 0.36, torch.Generator().manual_seed(2))
    assert out.mean() == pytest.approx(1.2, abs=0.02) and out.std() == pytest.approx(0.8, abs=0.02)
    assert HAND["noised"](z, 1, None) is z


def holes(n: int = 9_000) -> torch.Tensor:
    lost = torch.zeros(2, n, dtype=torch.bool)
    lost[0, 3_000:4_300], lost[1, :700], lost[1, 6_000:6_100] = True, True, True
    return lost


def test_the_share_that_is_known_is_the_modules():
    mine, theirs = HAND["my_share"](holes()), gaps.known_share(holes())
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert mine.min() < 0.05 and mine.max() == pytest.approx(1.0)


def test_straight_lines_are_the_modules():
    share = gaps.known_share(holes())
    x = some(2, 5, share.shape[1])
    theirs = gaps.interpolate(x, share)
    for i in range(2):
        torch.testing.assert_close(HAND["my_lines"](x[i], share[i]), theirs[i], rtol=1e-5, atol=1e-5)
    assert not torch.isclose(theirs, x).all()


@pytest.fixture(scope="module")
def gap():
    """A small filler that listens to everything, and what it is told of some gap."""
    torch.manual_seed(0)
    net = Filler(FillerConfig(size=6, width=16, dilations=(1, 0, 2), heads=2)).eval()
    for layer in (net.start, net.time[-1], net.out):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return net, Told(some(2, 6, 20), some(2, 2, 20, seed=1), torch.rand(2, 20), some(2, TOLD, 20, seed=2))


@pytest.mark.parametrize("sampler", ("bridge", "ddim", "ddpm", "dpmpp_2m"))
def test_the_filler_is_sampled_like_the_modules(gap, sampler):
    net, told = gap
    with torch.no_grad():
        theirs = net.sample(told, 5, sampler, samplers.FrameNoise(4))[0]
        if sampler == "bridge":
            mine = HAND["my_flow"](net, told, 5, samplers.FrameNoise(4))
        else:
            mine = HAND["my_diffusion"](net, told, 5, samplers.SAMPLERS[sampler], samplers.FrameNoise(4))
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    assert (mine - told.z).abs().max() > 0.1
