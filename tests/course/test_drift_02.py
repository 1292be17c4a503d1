"""What notebook 02 builds by hand is what the module has."""

import numpy as np
import pytest
import torch
from lift import definitions

from wavelldm.audio import levels
from wavelldm.data import degrade, noises

SR = 16_000
HAND = definitions("02")


def speech_like(seed: int, seconds: float = 3.3) -> torch.Tensor:
    """Bursts of noise of random strength with pauses between them, over a hiss: (N,)."""
    rng = np.random.default_rng(seed)
    n = round(seconds * SR)
    gate = np.repeat(rng.uniform(0, 1, 60) * (rng.random(60) < 0.4), -(-n // 60))[:n]
    wav = 10 ** rng.uniform(-2, -0.5) * gate * rng.standard_normal(n) + 1e-4 * rng.standard_normal(n)
    return torch.from_numpy(wav).float()


@pytest.mark.parametrize("seed", range(8))
def test_the_active_mask_and_level_are_the_modules(seed):
    wav = speech_like(seed, 3.3 + 0.0037 * seed)  # lengths that are no multiple of a frame
    mask = HAND["active_mask"](wav, SR)
    assert 0 < mask.sum() < len(wav)
    assert torch.equal(mask, levels.active_mask(wav, SR))
    assert torch.isclose(HAND["active_power"](wav, SR), levels.active_power(wav, SR), rtol=1e-5)


def test_the_constants_are_the_modules():
    for name in ("FRAME", "HANGOVER", "MARGIN_DB", "SILENCE_DB"):
        assert HAND[name] == getattr(levels, name)
    assert HAND["LOWEST"] == noises.LOWEST


@pytest.mark.parametrize("snr", (-5.0, 0.0, 15.0))
def test_the_mixture_is_the_modules(snr):
    clean, disturbance = speech_like(1), speech_like(2)
    mine = HAND["mix_at_snr"](clean, disturbance, snr, SR)
    assert torch.allclose(mine, levels.mix_at_snr(clean, disturbance, snr, SR), atol=1e-6)
    assert abs(HAND["measured"](clean, mine, SR) - snr) < 1e-3


@pytest.mark.parametrize("n", (SR, 1001, 44_100))
@pytest.mark.parametrize("name", ("white", "pink", "brown"))
def test_the_coloured_noises_are_the_modules(name, n):
    mine = HAND["coloured"](n, SR, np.random.default_rng(5), HAND["SLOPES"][name])
    assert np.allclose(mine, noises.NOISES[name](n, SR, np.random.default_rng(5)), atol=1e-5)


@pytest.mark.parametrize("seconds", (0.3, 1.0, 3.0))
def test_the_dropouts_are_the_modules(seconds):
    wav = torch.randn(round(seconds * SR), generator=torch.Generator().manual_seed(0))
    for seed in range(50):
        mine, mask = HAND["dropouts"](wav, SR, torch.Generator().manual_seed(seed))
        theirs, lost = degrade.dropouts(wav[None, None], SR, torch.Generator().manual_seed(seed))
        assert mask.any() and torch.equal(mask, lost[0, 0]) and torch.equal(mine, theirs[0, 0])


def test_a_room_by_hand_is_a_room_to_the_module():
    response = HAND["room_by_hand"](0.4, SR, torch.Generator().manual_seed(0))
    assert response[0] == response.abs().max() and abs(response[1:].square().sum() - 1) < 1e-4
    half = SR // 5  # after half of RT60 the echoes have fallen by 30 dB
    fallen = response[half : half + 400].square().mean() / response[40:440].square().mean()
    assert abs(10 * torch.log10(fallen) - -60 * (half - 40) / (0.4 * SR)) < 2
