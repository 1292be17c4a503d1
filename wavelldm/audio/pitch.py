"""Pitch: a score for every candidate in every frame, and the best path through time.

The score is one minus the normalised difference of YIN (de Cheveigne & Kawahara 2002, equation 8): the squared
difference between the signal and itself one period later, divided by the mean over all shorter lags. The path is
found by the dynamic programming of RAPT (Talkin 1995, section 3.3), with jumps of limited size and one state for "no
pitch".
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .stft import hann

LOW, HIGH, COUNT = 60.0, 500.0, 160  # lowest and highest candidate in Hz, and their number: 23 cents apart
JUMP = 16  # candidates that a path moves at most from one frame to the next (3.7 semitones)
UNVOICED = 0.5  # score of a frame without pitch
SWITCH = 0.25  # cost of a change between voiced and unvoiced
SMOOTH = 161  # samples at 16 kHz of the moving average that is subtracted: low rumble matches itself at every short lag
SLOW = 0.06  # penalty of the lowest candidate: a sound that repeats after one period also repeats after two


def candidates(device: torch.device | str | None = None) -> Tensor:
    """The candidates in Hz (S,), evenly spaced on a logarithmic scale."""
    return LOW * (HIGH / LOW) ** (torch.arange(COUNT, device=device) / (COUNT - 1))


def layout(sr: int) -> tuple[int, int, int]:
    """Samples in the window that is compared, in the window and all lags, and in everything that a frame needs."""
    window = round(0.04 * sr)
    span = window + math.ceil(sr / LOW) + 2
    return window, span, span + 2 * round(SMOOTH * sr / 32_000)


def without_rumble(wav: Tensor, side: int) -> Tensor:
    """(B, 1, N) -> (B, 1, N - 2 side): minus a moving average with a Hann window of `side` samples to each side."""
    window = hann(2 * side + 2, 2 * side + 2, wav.dtype, wav.device)[1:]
    return wav[..., side:-side] - F.conv1d(wav, (window / window.sum())[None, None])


def scores(wav: Tensor, sr: int, hop: int, causal: bool = False) -> Tensor:
    """wav (B, 1, N) -> (B, S, ceil(N / hop)), between -1 and 1. A frame is centred, or (causal) ends with its hop."""
    window, span, whole = layout(sr)
    side = (whole - span) // 2
    left = whole - hop if causal else side + (window + (span - window) // 2 - hop) // 2
    wav = F.pad(wav, (left, whole - hop - left - wav.shape[-1] % -hop))
    frames = without_rumble(wav, side)[:, 0].unfold(-1, span, hop)  # (B, T, span)
    frames = frames - frames.mean(-1, keepdim=True)
    n_fft = 1 << (span + window - 1).bit_length()
    product = torch.fft.rfft(frames[..., :window], n_fft).conj() * torch.fft.rfft(frames, n_fft)
    lags = span - window + 1
    common = torch.fft.irfft(product, n_fft)[..., :lags]  # (B, T, lags)
    energy = F.pad(frames.square().cumsum(-1), (1, 0))
    later = (energy[..., window : window + lags] - energy[..., :lags]).clamp_min(0)
    difference = (later[..., :1] + later - 2 * common).clamp_min(0)  # squared difference to the signal a lag later
    mean = difference.cumsum(-1) / torch.arange(1, lags + 1, device=wav.device)
    score = (1 - difference / (mean + 1e-5 * window)).clamp_min(-1)
    score = torch.where(later[..., :1] > 1e-6 * window, score, 0.0)  # silence has no pitch
    period = sr / candidates(wav.device)  # (S,) lags, between whole ones
    lag = period.long()
    share = period - lag
    return (score[..., lag] * (1 - share) + score[..., lag + 1] * share).transpose(1, 2)


def track(score: Tensor) -> Tensor:
    """scores (B, S, T) -> the best path (B, T): the number of a candidate, or S where there is no pitch."""
    b, s, t = score.shape
    score = score.transpose(1, 2) - SLOW * torch.linspace(1, 0, s, device=score.device)
    jump_cost = 2.4 * math.log2(HIGH / LOW) / (s - 1) * torch.arange(-JUMP, JUMP + 1, device=score.device).abs()
    voiced, unvoiced = score[:, 0], score.new_full((b,), UNVOICED)  # the best path that ends in each state
    back = []
    for now in score.unbind(1)[1:]:
        near = F.pad(voiced, (JUMP, JUMP), value=-math.inf).unfold(-1, 2 * JUMP + 1, 1) - jump_cost  # (B, S, jumps)
        value, jump = near.max(-1)
        origin = jump - JUMP + torch.arange(s, device=score.device)
        begins = (unvoiced - SWITCH)[:, None] > value
        best, loudest = voiced.max(-1)
        ends = best - SWITCH > unvoiced
        back.append((origin.masked_fill(begins, s), torch.where(ends, loudest, s)))
        voiced = torch.maximum(value, (unvoiced - SWITCH)[:, None]) + now
        unvoiced = torch.maximum(unvoiced, best - SWITCH) + UNVOICED
    best, loudest = voiced.max(-1)
    path = [torch.where(unvoiced > best, s, loudest)]
    for origin, ended in reversed(back):
        here = path[-1]
        path.append(torch.where(here == s, ended, origin.gather(1, here.clamp(max=s - 1)[:, None])[:, 0]))
    return torch.stack(path[::-1], dim=1)


def hertz(logits: Tensor, reach: int = 3) -> Tensor:
    """(B, S, T) -> Hz (B, T): weighted mean around the likeliest candidate, as in CREPE (arXiv 1802.06182, equation
    3).
    """
    likeliest = logits.argmax(1, keepdim=True)  # (B, 1, T)
    near = torch.arange(-reach, reach + 1, device=logits.device)[:, None]
    index = (likeliest + near).clamp(0, logits.shape[1] - 1)  # (B, 7, T)
    weight = logits.gather(1, index).softmax(1)
    return (candidates(logits.device).log()[index] * weight).sum(1).exp()
