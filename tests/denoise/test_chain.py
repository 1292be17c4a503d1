"""The whole chain on recordings of any length: equal to the networks run once over everything, at any rate, from any pipe."""

from dataclasses import replace

import pytest
import torch

from wavelldm.codec.model import Codec
from wavelldm.denoise import denoiser
from wavelldm.denoise.chain import Look, Networks, Settings, adjust, clean_blocks
from wavelldm.denoise.mask import MaskNet
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.diffusion.samplers import FrameNoise
from wavelldm.errors import WavelldmError
from wavelldm.training.presets import preset

SR = 16_000
TINY = preset("tiny")


def shaken(network, seed=0):
    torch.manual_seed(seed)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1) if p.ndim > 1 else None
    return network.eval()


@pytest.fixture(scope="module")
def chains():
    torch.manual_seed(0)
    codec, diffusion = Codec(TINY.codec).eval(), shaken(LatentDiffusion(TINY.diffusion))
    guided = shaken(MaskNet(replace(TINY.mask, latent_dim=TINY.codec.latent_dim)))
    return {
        "guided": Networks(codec, diffusion, guided),
        "decoded": Networks(codec, diffusion, None),
        "alone": Networks(None, None, shaken(MaskNet(TINY.mask))),
    }


def sound(n, channels=2, seed=0):
    return 0.1 * torch.randn(channels, n, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def at_once(chain, wav, settings=Settings()):
    latent = None
    if chain.diffusion is not None:
        z = chain.codec.encode(wav[:, None], SR)
        latent = chain.diffusion.sample(z, settings.steps, noise=FrameNoise(settings.seed, shared=True))
    if chain.mask is None:
        return chain.codec.decode(latent, wav.shape[-1])[:, 0]
    return chain.mask(wav[:, None], None if latent is None else chain.diffusion.normalise(latent))[:, 0]


@pytest.mark.parametrize("kind", ["guided", "decoded", "alone"])
@pytest.mark.parametrize("n, block, size, steps", [(40_000, 1_000, 7, 1), (25_601, 25_601, 1, 1), (30_000, 777, 64, 3)])
def test_block_by_block_equals_at_once(chains, kind, n, block, size, steps):
    wav, settings = sound(n), Settings(steps=steps, seed=4)
    joined = torch.cat(list(clean_blocks(chains[kind], wav.split(block, dim=1), SR, settings, size=size)), dim=1)
    apart = (joined - at_once(chains[kind], wav, settings)).abs().amax(0)
    assert joined.shape == wav.shape
    assert apart.max() < 1e-4, f"first difference at sample {int((apart > 1e-4).nonzero()[0])}"


def test_a_long_recording_has_no_seams(chains):
    """Five minutes, in many windows."""
    wav = sound(300 * SR, channels=1)
    joined = torch.cat(list(clean_blocks(chains["guided"], wav.split(160_000, dim=1), SR)), dim=1)
    assert (joined - at_once(chains["guided"], wav)).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["guided", "decoded", "alone"])
@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("n", [1, 100, 7_777])
def test_as_long_as_the_input_at_any_rate(chains, kind, sr, n):
    out = torch.cat(list(clean_blocks(chains[kind], iter([sound(n)]), sr)), dim=1)
    assert out.shape == (2, n) and torch.isfinite(out).all()


class Nothing(MaskNet):
    """A mask of ones."""

    def clean(self, spec, latent=None, state=None):
        return spec, torch.ones_like(spec), state


def test_an_idle_network_changes_nothing_at_any_rate_and_any_gain():
    """Also above its own band, which comes from the original."""
    chain = Networks(None, None, Nothing(TINY.mask))
    for sr in (16_000, 44_100):
        wav = sound(sr, seed=sr)
        for gain in (1.0, 7.0):
            out = torch.cat(list(clean_blocks(chain, wav.split(4_321, dim=1), sr, look=Look(gain))), dim=1)
            middle = slice(sr // 10, -sr // 10)  # resampling rings at the ends
            assert (out - wav)[:, middle].abs().max() < 2e-3, (sr, gain)


def test_level_and_loudness(chains):
    """The networks hear speech at one level, and what comes out is as loud as what went in."""
    model = denoiser.Denoiser("", "", denoiser.neural(chains["guided"]))
    t = torch.arange(3 * SR) / SR
    wav = (0.2 * torch.sin(2 * torch.pi * 220 * t) * ((2 * t).long() % 2))[None]
    loud, quiet = model.enhance(wav, SR), model.enhance(0.02 * wav, SR)
    assert torch.allclose(loud * 0.02, quiet, atol=1e-5)
    assert denoiser.look_at([torch.zeros(1, SR)], SR) == Look(1.0, None)


def test_strength_and_background():
    mask = torch.polar(torch.tensor([0.1, 0.5, 1.0]), torch.tensor([0.3, -0.5, 0.0]))
    spec, early = torch.tensor([1.0, 2.0j, -0.1]), torch.tensor([0.2, 0.0, 0.1j])  # early: what earlier frames add
    cleaned = spec * mask + early
    for strength, expected in ((1, mask), (2, mask * mask.abs()), (0, mask / mask.abs())):
        out, gain = adjust(spec, cleaned, mask, Settings(strength=strength))
        assert torch.allclose(gain, expected)
        assert torch.allclose(out, spec * expected + (0 if strength == 0 else early * mask.abs() ** (strength - 1)))
    for x, y in zip(adjust(spec, cleaned, mask, Settings(background=1.0)), (spec, torch.ones_like(mask))):
        assert torch.allclose(x, y)
    out, gain = adjust(spec, cleaned, mask, Settings())
    assert torch.equal(out, cleaned) and torch.equal(gain, mask)
    for wrong in ({"steps": 0}, {"strength": 5}, {"background": -0.1}):
        with pytest.raises(WavelldmError, match="steps begin at 1"):
            Settings(**wrong)


def test_same_seed_same_sound(chains):
    run = lambda seed: torch.cat(
        list(clean_blocks(chains["guided"], iter([sound(9_000)]), SR, Settings(2, seed=seed))), dim=1
    )
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_a_latent_may_be_rounded_before_it_is_decoded(chains):
    chain, wav = chains["decoded"], sound(9_000)
    plain, rounded = (
        torch.cat(list(clean_blocks(chain, iter([wav]), SR, Settings(rounded=r))), dim=1) for r in (False, True)
    )
    with torch.no_grad():
        z = chain.codec.encode(wav[:, None], SR)
        z = chain.diffusion.sample(z, noise=FrameNoise(shared=True))
        for got, latent in ((plain, z), (rounded, chain.codec.quantise(z)[0])):
            assert torch.allclose(got, chain.codec.decode(latent, 9_000)[:, 0], atol=1e-4)
    assert (plain - rounded).abs().max() > 1e-3


def test_a_diffusion_beside_a_mask_that_works_alone_is_left_in_peace(chains):
    alone, guided = chains["alone"], chains["guided"]
    both = Networks(guided.codec, guided.diffusion, alone.mask)
    wav = 0.1 * torch.randn(1, 9_000, generator=torch.Generator().manual_seed(0))
    first, second = (torch.cat(list(clean_blocks(chain, iter([wav]), SR)), dim=1) for chain in (alone, both))
    assert torch.equal(first, second) and not both.guided and guided.guided


def test_chains_that_cannot_work_are_refused(chains):
    with pytest.raises(WavelldmError, match="guided by a latent"):
        Networks(None, None, chains["guided"].mask)
    with pytest.raises(WavelldmError, match="needs a mask network"):
        Networks(None, None, None)
    with pytest.raises(WavelldmError, match="make them equal"):
        Networks(chains["guided"].codec, chains["guided"].diffusion, MaskNet(replace(TINY.mask, hop=128)))
