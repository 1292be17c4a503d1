"""Lost stretches of sound: which frames still know something, magnitudes on straight lines across the others, sound
that rings on from both sides, and the way from wanted magnitudes back to samples.

Nothing here is trained. Every sample that is known stays as it is, to the bit. Shapes: wav (B, N), gaps (B, N) True
where samples are lost, magnitudes (B, bins, T), shares (B, T).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.stft import hann, istft, magnitude, stft
from ..light import gaps as light
from ..light.gaps import BINS, FREE, FULL, HALF, HOP, LEAST, MOMENTUM, N_FFT, NEAR, ROUNDS, SR, TRUST

__all__ = ["BINS", "FREE", "FULL", "HALF", "HOP", "N_FFT", "SR", "assemble", "brought_to_length", "interpolate"]
__all__ += ["known_share", "rung_on", "spectrum", "straight"]


def spectrum(wav: Tensor) -> Tensor:
    """wav (B, N) -> magnitudes (B, 513, 1 + N // HOP)."""
    spec = stft(wav, N_FFT, HOP, N_FFT, "center")
    return magnitude(spec.real, spec.imag)


def known_share(gaps: Tensor) -> Tensor:
    """How much of each frame's window, in energy, is known (B, 1 + N // HOP)."""
    window = hann(N_FFT, N_FFT, device=gaps.device).square()
    known = F.pad((~gaps).float()[:, None], (N_FFT // 2, N_FFT // 2), value=1.0)
    return F.conv1d(known, (window / window.sum())[None, None], stride=HOP)[:, 0].clamp(0, 1)


def interpolate(x: Tensor, share: Tensor, least: float = HALF) -> Tensor:
    """Rows x (B, C, T), on straight lines across the frames of which less than `least` is known; before the first
    known frame, and after the last, it is held."""
    out = x.clone()
    for row, here, known in zip(out, x, share >= least):
        at = known.nonzero()[:, 0]
        if not len(at):
            continue
        t = torch.arange(row.shape[1], device=x.device)
        right = torch.searchsorted(at, t).clamp(max=len(at) - 1)
        left = (right - 1).clamp_min(0)
        a, b = at[left], at[right]
        a, b = torch.where(b <= t, b, a), torch.where(a >= t, a, b)
        mix = ((t - a).float() / (b - a).clamp_min(1).float()).clamp(0, 1)
        straight = here[:, a] * (1 - mix) + here[:, b] * mix
        row[:, ~known] = straight[:, ~known]
    return out


def brought_to_length(size: Tensor, share: Tensor) -> Tensor:
    """Magnitudes of frames that are known in part, as large as if they were known whole: the window's energy that is
    missing counts as lost at random."""
    return size / share.clamp_min(0.1).sqrt()[:, None]


def straight(wav: Tensor, gaps: Tensor) -> Tensor:
    """The magnitudes of a damaged sound with those of lost frames on straight lines, in logarithms (B, 513, T)."""
    share = known_share(gaps)
    return interpolate(brought_to_length(spectrum(wav), share).clamp_min(LEAST).log(), share).exp()


def rung_on(wav: Tensor, gaps: Tensor) -> Tensor:
    """wav (B, N) with its gaps filled by what rings on from both sides, see `light/gaps.py`."""
    rows = zip(wav.cpu().float().numpy(), gaps.cpu().numpy())
    return torch.from_numpy(np.stack([light.rung_on(row, lost) for row, lost in rows])).to(wav)


def nearest_known(gaps: Tensor) -> Tensor:
    """How many samples lie between the middle of each frame and the nearest known sample (B, 1 + N // HOP)."""
    n = gaps.shape[1]
    middle = (torch.arange(1 + n // HOP, device=gaps.device) * HOP).clamp(max=n - 1)
    place = torch.arange(n, device=gaps.device)
    last = torch.where(gaps, -n, place).cummax(1).values
    following = torch.where(gaps, 2 * n, place).flip(1).cummin(1).values.flip(1)
    return torch.minimum(place - last, following - place)[:, middle].float()


def assemble(wav: Tensor, gaps: Tensor, size: Tensor, rounds: int = ROUNDS) -> Tensor:
    """wav (B, N) and magnitudes (B, 513, T) for its frames -> wav (B, N), changed in the gaps alone.

    Near what is known, what rings on has a share in the magnitudes; it gives the first phases everywhere. Then come
    Griffin and Lim's rounds (1984) with momentum (Perraudin et al. 2013, eq. 4), and with two kinds of knowledge:
    frames that see a gap take the wanted magnitudes, and after each round the known samples are put back.
    """
    free, start = (known_share(gaps) < FREE)[:, None], rung_on(wav, gaps)  # (B, 1, T), (B, N)
    now = stft(start, N_FFT, HOP, N_FFT, "center")
    trust = TRUST * torch.exp(-(nearest_known(gaps) / NEAR).square())[:, None]
    rings = magnitude(now.real, now.imag)
    wanted = size.clamp_min(LEAST) ** (1 - trust) * rings.clamp_min(LEAST) ** trust
    spec = previous = torch.where(free, wanted * now / rings, now)
    for _ in range(rounds):
        out = torch.where(gaps, istft(spec, N_FFT, HOP, N_FFT, "center", wav.shape[-1]), wav)
        now = stft(out, N_FFT, HOP, N_FFT, "center")
        ahead = now + MOMENTUM * (now - previous)
        spec = torch.where(free, wanted * ahead / magnitude(ahead.real, ahead.imag), now)
        previous = now
    return torch.where(gaps, istft(spec, N_FFT, HOP, N_FFT, "center", wav.shape[-1]), wav)
