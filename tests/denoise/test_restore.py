import pytest
import torch
from signals import speechlike

from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.data.degrade import band_limit, dropouts
from wavelldm.denoise import denoiser
from wavelldm.denoise.chain import DEFAULTS, Settings
from wavelldm.denoise.mask import MaskNet
from wavelldm.denoise.restore import find_cutoff, find_gaps, patch
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.errors import WavelldmError
from wavelldm.training.presets import preset

SR = 16_000


def speech(seconds=4.0, seed=0):
    return torch.from_numpy(speechlike(seconds, SR, seed)).float()[None]


def test_dropouts_are_found_and_pauses_are_not():
    hiss = 0.05 * torch.randn(2, 3 * SR, generator=torch.Generator().manual_seed(0))
    broken, lost = dropouts(hiss[:, None], SR, torch.Generator().manual_seed(1))
    found = find_gaps(broken[:, 0], SR)
    assert (found == lost[:, 0]).float().mean() > 0.999
    paused = hiss.clone()
    paused[:, SR : 2 * SR] = 0  # a second of nothing is a pause
    fade = torch.ones(3 * SR)
    fade[2000:4000], fade[4000:8000], fade[8000:10000] = torch.linspace(1, 0, 2000), 0, torch.linspace(0, 1, 2000)
    assert (
        not find_gaps(paused, SR).any() and not find_gaps(hiss * fade, SR).any() and not find_gaps(0 * hiss, SR).any()
    )


@pytest.mark.parametrize("edge", [2_000, 3_400, 4_000, 6_000, None])
def test_a_missing_band_is_found_to_within_a_few_hundred_hertz(edge):
    wav = speech() + 0.01 * torch.randn(1, 4 * SR, generator=torch.Generator().manual_seed(0))
    if edge:
        wav = band_limit(wav[None], SR, torch.tensor([float(edge)]))[0]
    found = denoiser.look_at([wav], SR).cutoffs[0]
    assert found is None if edge is None else abs(found - edge) < 350, found


def test_a_perfect_idea_of_what_was_lost_fills_it_and_touches_nothing_else():
    clean = speech()
    broken, lost = dropouts(clean[None], SR, torch.Generator().manual_seed(3), (3, 3), (0.06, 0.2))
    broken, lost = broken[0], lost[0]
    gaps = find_gaps(broken, SR) | lost
    filled = patch(broken, clean, gaps, None, SR)
    near = torch.nn.functional.max_pool1d(gaps.float()[None], 401, 1, 200)[0] > 0
    assert torch.equal(filled[~near], broken[~near])

    def error(x):
        return (x - clean)[lost].square().mean() / clean[lost].square().mean()

    assert error(broken) == 1 and error(filled) < 0.5


def test_a_missing_band_gets_the_right_energy():
    clean = speech() + 0.02 * torch.randn(1, 4 * SR, generator=torch.Generator().manual_seed(0))
    dull = band_limit(clean[None], SR, torch.tensor([3_000.0]))[0]
    bright = patch(dull, clean, torch.zeros_like(dull, dtype=torch.bool), 3_000.0, SR)

    def power(x, low, high):
        return torch.fft.rfft(x)[0, low * 4 : high * 4].abs().square().sum()

    assert power(dull, 3_500, 7_500) < 1e-3 * power(clean, 3_500, 7_500)
    assert 0.5 < power(bright, 3_500, 7_500) / power(clean, 3_500, 7_500) < 2
    assert abs(power(bright, 100, 2_500) / power(dull, 100, 2_500) - 1) < 0.05


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    p = preset("tiny")
    return Codec(p.codec).eval(), LatentDiffusion(p.diffusion).eval()


def guided(pair):
    torch.manual_seed(0)
    return denoiser.MaskDenoiser(MaskNet(override(preset("tiny").mask, ["latent_dim=48"])).eval(), lambda: pair)


def test_the_whole_chain_restores_any_length_and_leaves_whole_recordings_alone(pair):
    model = guided(pair)
    whole = speech(6.0) + 0.01 * torch.randn(1, 6 * SR, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.enhance(whole, SR, Settings(restore=True)), model.enhance(whole, SR))
    broken = whole.clone()
    broken[:, 30_000:33_000] = 0
    for steps in (1, 3):
        out = model.enhance(broken, SR, Settings(steps, restore=True))
        assert out.shape == broken.shape and torch.isfinite(out).all()
        changed = (out - model.enhance(broken, SR, Settings(steps))).abs()[0] > 1e-6
        assert changed[30_500:32_500].float().mean() > 0.9 and not changed[:29_000].any() and not changed[34_000:].any()
    session = model.stream(SR, 1, Settings(restore=True), cutoff=4_000.0)
    out = torch.cat([*(session.push(part) for part in whole.split(9_999, dim=1)), session.finish()], dim=1)
    assert out.shape == whole.shape and torch.isfinite(out).all()


def test_a_gap_in_one_channel_does_not_touch_the_other(pair):
    whole = speech(3.0) + 0.01 * torch.randn(1, 3 * SR, generator=torch.Generator().manual_seed(0))
    broken = torch.cat([whole, whole])
    broken[0, 20_000:22_000] = 0
    out, plain = (guided(pair).enhance(broken, SR, settings) for settings in (Settings(restore=True), DEFAULTS))
    assert torch.equal(out[1], plain[1]) and not torch.equal(out[0], plain[0])


def test_who_cannot_restore_says_so(pair):
    p = preset("tiny")
    alone = denoiser.MaskDenoiser(MaskNet(p.mask).eval())
    predictor = LatentDiffusion(override(p.diffusion, ["path=none", "predicts=z0"])).eval()
    for model in (alone, denoiser.load("logmmse")):
        with pytest.raises(WavelldmError, match="cannot restore what is missing; choose another --model"):
            model.enhance(speech(), SR, Settings(restore=True))
    with pytest.raises(WavelldmError, match="pure noise"):
        denoiser.LatentDenoiser(pair[0], predictor).stream(SR, 1, Settings(restore=True))


def test_a_flat_spectrum_and_silence_have_no_edge():
    assert find_cutoff(torch.ones(500), SR) is None and find_cutoff(torch.zeros(500), SR) is None
