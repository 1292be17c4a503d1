"""Approximations of PESQ and ESTOI that gradients pass through: to train on, not to report.

`disturbance` follows ITU-T P.862.2 in the differentiable form of PMSQE (arXiv 1809.05009): power in Bark bands,
loudness, differences after masking. `estoi_distance` is one minus ESTOI (Jensen & Taal 2016, equations 1 to 8) on
third octaves. The bands are computed here; the standards print tables.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.stft import hann

BARK_BANDS = 49
# all clips are brought to it; with it `opinion` is right on average on noisy and cleaned mixtures
SPEECH_POWER = 10**9.5
LOUDNESS_EXPONENT, LOUDNESS_SCALE = 0.23, 0.187  # Zwicker's exponent, and sones per Bark
SEGMENT = 30  # frames of 12.8 ms in a segment of ESTOI: 384 ms


@functools.cache
@torch.inference_mode(False)  # a cached inference tensor could not be used in training
def bark_bands(sr: int, n_fft: int) -> tuple[Tensor, float, Tensor, Tensor]:
    """Matrix (bins, bands) that sums power, width of a band in Bark, hearing threshold of each, which bands set the
    level.
    """
    hertz = torch.arange(n_fft // 2 + 1) * sr / n_fft
    bark = 26.81 * hertz / (1960 + hertz) - 0.53  # Traunmueller 1990
    low, high = 0.2, float(bark[-1])
    edges = torch.linspace(low, high, BARK_BANDS + 1)
    width = (high - low) / BARK_BANDS
    # the power of a bin is spread evenly up to halfway to its neighbours, so that narrow low bands share bins
    left, right = (bark + torch.cat([bark[:1], bark[:-1]])) / 2, (bark + torch.cat([bark[1:], bark[-1:]])) / 2
    shared = (torch.minimum(right[:, None], edges[1:]) - torch.maximum(left[:, None], edges[:-1])).clamp_min(0)
    matrix = shared / (right - left).clamp_min(1e-6)[:, None]
    centre = (edges[1:] + edges[:-1]) / 2 + 0.53
    kilohertz = 1.96 * centre / (26.81 - centre)
    # dB, Terhardt 1979
    threshold = 3.64 * kilohertz**-0.8 - 6.5 * (-0.6 * (kilohertz - 3.3).square()).exp() + 1e-3 * kilohertz**4
    return matrix, width, 10 ** (threshold.clamp(max=77) / 10), (kilohertz > 0.3) & (kilohertz < 3.4)


def bark_power(wav: Tensor, sr: int) -> Tensor:
    """wav (B, 1, N) -> power in Bark bands (B, T, 49), every clip scaled to the same speech power."""
    n_fft = 512 * sr // 16_000
    frames = F.pad(wav[:, 0], (n_fft // 2, n_fft // 2)).unfold(-1, n_fft, n_fft // 2)
    spectrum = torch.fft.rfft(frames * hann(n_fft, n_fft, wav.dtype, wav.device))
    matrix, _, _, speech = bark_bands(sr, n_fft)
    bands = (spectrum.real.square() + spectrum.imag.square()) @ matrix.to(wav.device)
    return bands * (SPEECH_POWER / (bands[..., speech.to(wav.device)].sum(-1).mean(-1) + 1e-9))[:, None, None]


def loudness(bands: Tensor, threshold: Tensor) -> Tensor:
    """Sones per Bark (Zwicker & Feldtkeller 1967): zero below the threshold of hearing."""
    ratio = 0.5 + 0.5 * bands / threshold
    return LOUDNESS_SCALE * (threshold / 0.5) ** LOUDNESS_EXPONENT * (ratio**LOUDNESS_EXPONENT - 1).clamp_min(0)


def pool_over_time(x: Tensor) -> Tensor:
    """(B, T) -> (B,): L6 norm within 0.32 s, where the loudest frames count most, then L2 norm over all of these."""
    x = F.pad(x, (0, max(0, 20 - x.shape[1]))).unfold(1, 20, 10)  # (B, windows, 20)
    short = (x.clamp_min(1e-4) ** 6).mean(-1) ** (1 / 6)
    return (short.square().mean(-1) + 1e-8).sqrt()


def disturbance(wav: Tensor, clean: Tensor, sr: int) -> Tensor:
    """How far PESQ falls below its maximum of 4.5 for each item (B,), before it is mapped to opinions."""
    _, width, threshold, _ = bark_bands(sr, 512 * sr // 16_000)
    threshold = threshold.to(wav.device)
    degraded, reference = bark_power(wav, sr), bark_power(clean, sr)  # (B, T, 49)

    # a constant filter is forgiven: the reference gets the average spectrum of the degraded clip, where there is speech
    active = ((reference * (reference > 100 * threshold)).sum(-1, keepdim=True) > 1e7).to(reference.dtype)
    average = [(x * active).sum(1, keepdim=True) + 1e3 for x in (degraded, reference)]
    reference = reference * (average[0] / average[1]).clamp(0.01, 100)

    # so is a level that changes slowly: the degraded clip gets the level of the reference, smoothed over two frames
    audible = [(x * (x > threshold)).sum(-1) + 5e3 for x in (reference, degraded)]
    gain = (audible[0] / audible[1]).clamp(3e-4, 5)
    gain = 0.8 * gain + 0.2 * F.pad(gain[:, :-1], (1, 0), value=1.0)
    degraded = degraded * gain[..., None]

    loud, loud_reference = loudness(degraded, threshold), loudness(reference, threshold)
    difference = (loud - loud_reference).abs()
    difference = (difference - 0.25 * torch.minimum(loud, loud_reference)).clamp_min(0)  # small differences are masked
    asymmetry = ((degraded + 50) / (reference + 50)) ** 1.2  # added sound counts more than lost sound
    asymmetry = torch.where(asymmetry < 3, 0.0, asymmetry.clamp(max=12))

    difference, asymmetry = difference[..., 1:], asymmetry[..., 1:]
    total_width = width * (BARK_BANDS - 1)
    symmetric = ((difference * width).square().sum(-1) / total_width + 1e-8).sqrt() * total_width
    asymmetric = (difference * asymmetry * width).sum(-1)
    weight = ((audible[0] + 1e5) / 1e7).detach() ** 0.04  # quiet frames count slightly more
    symmetric, asymmetric = (pool_over_time((x / weight).clamp(max=45.0)) for x in (symmetric, asymmetric))
    return 0.1 * symmetric + 0.0309 * asymmetric


def opinion(disturbance: Tensor) -> Tensor:
    """Disturbance -> WB-PESQ, a mean opinion score (P.862.2)."""
    return 0.999 + 4 / (1 + torch.exp(-1.3669 * (4.5 - disturbance) + 3.8224))


@functools.cache
@torch.inference_mode(False)  # a cached inference tensor could not be used in training
def third_octaves(sr: int, n_fft: int) -> Tensor:
    """Matrix (bins, 15) that sums power in third octaves from 150 Hz on."""
    centre = 150 * 2 ** (torch.arange(15) / 3)
    hertz = torch.arange(n_fft // 2 + 1)[:, None] * sr / n_fft
    return ((hertz >= centre * 2 ** (-1 / 6)) & (hertz < centre * 2 ** (1 / 6))).float()


def estoi_distance(wav: Tensor, clean: Tensor, sr: int) -> Tensor:
    """One minus ESTOI for each item (B,). ESTOI drops quiet frames; here quiet segments of the clean clip do not
    count.
    """
    win, hop = round(0.0256 * sr), round(0.0128 * sr)
    n_fft = 1 << (win - 1).bit_length()
    missing = max(0, win + (SEGMENT - 1) * hop - wav.shape[-1])  # samples up to one whole segment
    segments = []
    for x in (wav, clean):
        frames = F.pad(x[:, 0], (0, missing)).unfold(-1, win, hop) * hann(win, win, x.dtype, x.device)
        spectrum = torch.fft.rfft(frames, n_fft)
        power = (spectrum.real.square() + spectrum.imag.square()) @ third_octaves(sr, n_fft).to(x.device)
        segments.append((power + 1e-8).sqrt().unfold(1, SEGMENT, SEGMENT // 6))  # (B, segments, 15, 30)
    power = segments[1].square().mean((2, 3))  # (B, segments)
    active = (power > 1e-3 * power.amax(1, keepdim=True)).float()
    for dim in (-1, -2):  # normalise first along time, then along frequency
        segments = [x - x.mean(dim, keepdim=True) for x in segments]
        segments = [x / (x.square().sum(dim, keepdim=True) + 1e-8).sqrt() for x in segments]
    correlation = (segments[0] * segments[1]).sum((2, 3)) / SEGMENT  # (B, segments)
    return 1 - (correlation * active).sum(1) / active.sum(1).clamp_min(1)
