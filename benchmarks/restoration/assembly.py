"""Wanted magnitudes become sound where samples are lost, and nowhere else: every sample that is known stays as it is.

Griffin-Lim's idea with two kinds of knowledge: in frames that see a gap the magnitudes are wanted ones, and after
each round the known samples are put back, so that phases grow into the gap from both sides.
"""

import math

import torch
import torch.nn.functional as F
from latent import HOP, N_FFT, UNIT
from torch import Tensor

from wavelldm.audio.stft import hann, istft, magnitude, stft

FREE = 0.7  # share of its window below which a frame takes the wanted magnitudes; above, its own are nearer the truth


def known_share(gaps: Tensor) -> Tensor:
    """gaps (B, N) bool -> how much of each frame's window (in energy) is known, (B, 1 + N // HOP)."""
    window = hann(N_FFT, N_FFT).square()
    known = F.pad((~gaps).float()[:, None], (N_FFT // 2, N_FFT // 2), value=1.0)
    return F.conv1d(known, (window / window.sum())[None, None], stride=HOP)[:, 0].clamp(0, 1)


def interpolate(size: Tensor, share: Tensor, least: float = 0.97) -> Tensor:
    """Logarithms of magnitudes (B, C, T) on straight lines across the frames that know too little (share (B, T) below
    `least`)."""
    out = size.clone()
    for row, here, known in zip(out, size, share >= least):
        at = known.nonzero()[:, 0]
        if not len(at):
            continue
        t = torch.arange(row.shape[1])
        right = torch.searchsorted(at, t).clamp(max=len(at) - 1)
        left = (right - 1).clamp_min(0)
        a, b = at[left], at[right]
        a, b = torch.where(b <= t, b, a), torch.where(a >= t, a, b)  # before the first and after the last: hold
        mix = ((t - a).float() / (b - a).clamp_min(1).float()).clamp(0, 1)
        straight = here[:, a] * (1 - mix) + here[:, b] * mix
        row[:, ~known] = straight[:, ~known]
    return out


def assemble(
    wav: Tensor,
    gaps: Tensor,
    size: Tensor,
    rounds: int = 32,
    seed: int = 0,
    start: Tensor | None = None,
    momentum: float = 0.5,
) -> Tensor:
    """wav (B, N) with zeros in gaps (B, N), size (B, 513, T) magnitudes in units of `latent.spectrum` without its
    level -> (B, N)."""
    free = (known_share(gaps) < FREE)[:, None]  # (B, 1, T)
    now = stft(wav, N_FFT, HOP, N_FFT, "center")
    wanted = size * UNIT
    if start is None:
        phase = 2 * math.pi * torch.rand(size.shape, generator=torch.Generator().manual_seed(seed))
        hidden = (known_share(gaps) < 0.5)[:, None]
        phase = torch.where(hidden, phase, now.angle())
    else:
        phase = start
    spec = torch.where(free, torch.polar(wanted, phase), now)
    previous = spec
    for _ in range(rounds):
        out = istft(spec, N_FFT, HOP, N_FFT, "center", wav.shape[-1])
        out = torch.where(gaps, out, wav)
        now = stft(out, N_FFT, HOP, N_FFT, "center")
        ahead = now + momentum * (now - previous)
        spec = torch.where(free, wanted * ahead / magnitude(ahead.real, ahead.imag), now)
        previous = now
    out = istft(spec, N_FFT, HOP, N_FFT, "center", wav.shape[-1])
    return torch.where(gaps, out, wav)
