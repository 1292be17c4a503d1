"""Declipping: what is known stays, peaks come back, pieces make no seams, and whole stretches cost nothing."""

import numpy as np
import pytest
import torch
from signals import speechlike

from wavelldm.errors import AudioError
from wavelldm.light import clip
from wavelldm.restore.clip import Declipper, declip


def clipped(wav: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """wav (C, N) -> cut so that `share` of each channel's samples lie at a ceiling, low (C,), high (C,)."""
    high = wav.abs().quantile(1 - share, dim=1)
    return wav.clamp(-high[:, None], high[:, None]), -high, high


def speech(sr: int = 16_000, seconds: float = 2.0, channels: int = 1) -> torch.Tensor:
    return torch.stack([torch.from_numpy(speechlike(seconds, sr, k)).float() for k in range(channels)])


def closer(clean: torch.Tensor, cut: torch.Tensor, out: torch.Tensor) -> float:
    """How many dB nearer to the clean sound than the clipped one."""
    return float(10 * torch.log10((cut - clean).square().sum() / (out - clean).square().sum()))


@pytest.mark.parametrize("sr", [8_000, 11_025, 16_000, 44_100, 192_000])
def test_at_any_rate_peaks_come_back_and_the_rest_stays_to_the_bit(sr):
    clean = speech(sr, 1.0, 2)
    cut, low, high = clipped(clean, 0.1)
    out = declip(cut, low, high, sr)
    between = (cut > low[:, None]) & (cut < high[:, None])
    assert out.shape == cut.shape and torch.equal(out[between], cut[between])
    assert (out >= high[:, None])[cut >= high[:, None]].all() and (out <= low[:, None])[cut <= low[:, None]].all()
    assert closer(clean, cut, out) > 2.5


@pytest.mark.parametrize("share", [0.03, 0.2])
def test_the_more_is_clipped_the_less_comes_back_but_always_something(share):
    clean = speech()
    cut, low, high = clipped(clean, share)
    assert closer(clean, cut, declip(cut, low, high, 16_000)) > (8 if share < 0.1 else 4)


def test_ceilings_of_their_own_for_each_side_and_channel():
    clean = speech(channels=2)
    low, high = torch.tensor([-torch.inf, -0.08]), torch.tensor([0.1, torch.inf])
    cut = clean.maximum(low[:, None]).minimum(high[:, None])
    out = declip(cut, low, high, 16_000)
    assert closer(clean[0], cut[0], out[0]) > 4 and closer(clean[1], cut[1], out[1]) > 4
    for c in range(2):  # channels do not know of each other
        alone = declip(cut[c : c + 1], low[c : c + 1], high[c : c + 1], 16_000)
        assert torch.allclose(alone, out[c : c + 1], atol=1e-5)


def test_louder_or_quieter_it_does_the_same():
    cut, low, high = clipped(speech(), 0.1)
    for gain in (0.01, 30.0):
        scaled = declip(gain * cut, gain * low, gain * high, 16_000) / gain
        assert torch.allclose(scaled, declip(cut, low, high, 16_000), atol=1e-4)


def test_in_blocks_of_any_size_as_at_once():
    cut, low, high = clipped(speech(seconds=9.5), 0.1)
    whole = declip(cut, low, high, 16_000)
    for size in (1_000, 77_777):
        stage = Declipper(low, high, 16_000)
        parts = [stage.push(part) for part in cut.split(size, dim=1)]
        parts.append(stage.push(cut[:, :0], last=True))
        assert torch.equal(torch.cat(parts, dim=1), whole)


def test_pieces_are_nearly_as_one(monkeypatch):
    clean = speech(seconds=6.0)
    cut, low, high = clipped(clean, 0.2)
    whole = declip(cut, low, high, 16_000)
    monkeypatch.setattr(clip, "PIECE", 1.0)
    pieces = declip(cut, low, high, 16_000)
    apart = (pieces - whole).square().sum() / (whole - cut).square().sum()
    assert 10 * torch.log10(apart) < -30


def test_what_is_not_clipped_costs_nothing_and_comes_back_as_it_is(monkeypatch):
    clean = speech(seconds=9.0)
    full = torch.tensor([2.0])
    monkeypatch.setattr(np.fft, "rfft", None)  # whoever asks for a spectrum fails
    assert torch.equal(declip(clean, -full, full, 16_000), clean)
    assert declip(clean[:, :0], -full, full, 16_000).shape == (1, 0)


def test_only_frames_with_clipped_samples_are_computed(monkeypatch):
    cut, low, high = clipped(speech(seconds=4.0), 0.1)
    long = torch.cat([cut, 0.01 * torch.randn(1, 60 * 16_000, generator=torch.Generator().manual_seed(0))], dim=1)
    frames = []
    real = np.fft.rfft
    monkeypatch.setattr(np.fft, "rfft", lambda x: frames.append(len(x)) or real(x))
    declip(long, low, high, 16_000)
    assert sum(frames) <= clip.ROUNDS * (4.2 / clip.HOP)


def test_a_square_wave_stays_finite():
    square = torch.ones(1, 16_000)
    square[:, ::200] = -1.0
    out = declip(square, -torch.ones(1), torch.ones(1), 16_000)
    assert out.isfinite().all() and out.abs().max() < 10


def test_ceilings_that_do_not_fit_are_refused():
    wav = torch.zeros(2, 100)
    for low, high in (
        (torch.ones(2), torch.ones(2)),
        (torch.zeros(3), torch.ones(3)),
        (torch.zeros(()), torch.ones(())),
    ):
        with pytest.raises(AudioError, match="ceilings"):
            declip(wav, low, high, 16_000)
