"""What PESQ and ESTOI measure, in a form that gradients pass through: to train on, not to report.

`disturbance` follows ITU-T P.862.2 as arXiv 1809.05009 (PMSQE) made it differentiable: Bark bands, loudness, masked differences.
`unlike` is one minus ESTOI (Jensen & Taal 2016, eqs. 1-8) on third octaves. Bands are computed here, where the standards print tables.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.stft import hann

BARKS = 49
LEVEL = 10**9.5  # power of speech; with it `opinion` is right on average on noisy and cleaned mixtures
SLOPE, SCALE = 0.23, 0.187  # Zwicker's exponent, and sones per Bark
SEGMENT = 30  # frames of 12.8 ms: 384 ms


@functools.cache
@torch.inference_mode(False)  # what is kept must serve training, too
def bark_bands(sr: int, n_fft: int):
    """(bins, bands) that sum power, each band's width in Bark, its threshold of hearing and the bands that set the level."""
    hertz = torch.arange(n_fft // 2 + 1) * sr / n_fft
    bark = 26.81 * hertz / (1960 + hertz) - 0.53  # Traunmueller 1990
    low, high = 0.2, float(bark[-1])
    edges = torch.linspace(low, high, BARKS + 1)
    step = (high - low) / BARKS
    upper = torch.cat([bark[1:], bark[-1:]])
    # a bin's power lies evenly between its neighbours' middles, so that narrow bands below share bins
    left, right = (bark + torch.cat([bark[:1], bark[:-1]])) / 2, (bark + upper) / 2
    shared = (torch.minimum(right[:, None], edges[1:]) - torch.maximum(left[:, None], edges[:-1])).clamp_min(0)
    member = shared / (right - left).clamp_min(1e-6)[:, None]
    middle = (edges[1:] + edges[:-1]) / 2 + 0.53
    kilohertz = 1.96 * middle / (26.81 - middle)
    quiet = (
        3.64 * kilohertz**-0.8 - 6.5 * (-0.6 * (kilohertz - 3.3).square()).exp() + 1e-3 * kilohertz**4
    )  # Terhardt 1979, dB
    return member, step, 10 ** (quiet.clamp(max=77) / 10), (kilohertz > 0.3) & (kilohertz < 3.4)


def barks(wav: Tensor, sr: int) -> Tensor:
    """wav (B, 1, N) -> power in Bark bands (B, T, 49), all sounds equally loud."""
    n_fft = 512 * sr // 16_000
    frames = F.pad(wav[:, 0], (n_fft // 2, n_fft // 2)).unfold(-1, n_fft, n_fft // 2)
    spec = torch.fft.rfft(frames * hann(n_fft, n_fft, wav.dtype, wav.device))
    member, _, _, speech = (x.to(wav.device) if isinstance(x, Tensor) else x for x in bark_bands(sr, n_fft))
    bands = (spec.real.square() + spec.imag.square()) @ member
    return bands * (LEVEL / (bands[..., speech].sum(-1).mean(-1) + 1e-9))[:, None, None]


def loudness(bands: Tensor, quiet: Tensor) -> Tensor:
    """Sones per Bark (Zwicker & Feldtkeller 1967): nothing below the threshold of hearing."""
    return SCALE * (quiet / 0.5) ** SLOPE * ((0.5 + 0.5 * bands / quiet) ** SLOPE - 1).clamp_min(0)


def pooled(x: Tensor) -> Tensor:
    """(B, T) -> (B,): the loudest count most within 0.32 s (power 6), all alike over time (power 2)."""
    x = F.pad(x, (0, max(0, 20 - x.shape[1]))).unfold(1, 20, 10)  # (B, windows, 20)
    short = (x.clamp_min(1e-4) ** 6).mean(-1) ** (1 / 6)
    return (short.square().mean(-1) + 1e-8).sqrt()


def disturbance(wav: Tensor, clean: Tensor, sr: int) -> Tensor:
    """How far PESQ would fall below its 4.5, per item (B,), before it is mapped to opinions."""
    _, width, quiet, _ = bark_bands(sr, 512 * sr // 16_000)
    quiet = quiet.to(wav.device)
    ours, real = barks(wav, sr), barks(clean, sr)  # (B, T, 49)
    heard = ((real * (real > 100 * quiet)).sum(-1, keepdim=True) > 1e7).to(real.dtype)  # frames with speech
    tilt = ((ours * heard).sum(1, keepdim=True) + 1e3) / ((real * heard).sum(1, keepdim=True) + 1e3)
    real = real * tilt.clamp(0.01, 100)  # what a filter does is forgiven
    audible = [(x * (x > quiet)).sum(-1) + 5e3 for x in (real, ours)]
    gain = (audible[0] / audible[1]).clamp(3e-4, 5)
    gain = 0.8 * gain + 0.2 * F.pad(gain[:, :-1], (1, 0), value=1.0)
    ours = ours * gain[..., None]  # and so is a level that wanders
    ours_loud, real_loud = loudness(ours, quiet), loudness(real, quiet)
    apart = (ours_loud - real_loud).abs()
    apart = (apart - 0.25 * torch.minimum(ours_loud, real_loud)).clamp_min(0)  # a masked difference is not heard
    added = ((ours + 50) / (real + 50)) ** 1.2  # what was added hurts more than what was lost
    added = torch.where(added < 3, 0.0, added.clamp(max=12))
    whole = width * (BARKS - 1)
    apart, added = apart[..., 1:], added[..., 1:]
    symmetric = ((apart * width).square().sum(-1) / whole + 1e-8).sqrt() * whole
    asymmetric = (apart * added * width).sum(-1)
    weight = ((audible[0] + 1e5) / 1e7).detach() ** 0.04  # quiet frames count a little more
    parts = [pooled((x / weight).clamp(max=45.0)) for x in (symmetric, asymmetric)]
    return 0.1 * parts[0] + 0.0309 * parts[1]


def opinion(apart: Tensor) -> Tensor:
    """Disturbance -> WB-PESQ (P.862.2)."""
    return 0.999 + 4 / (1 + torch.exp(-1.3669 * (4.5 - apart) + 3.8224))


@functools.cache
@torch.inference_mode(False)  # what is kept must serve training, too
def third_octaves(sr: int, n_fft: int) -> Tensor:
    """(bins, 15): third octaves from 150 Hz on."""
    middle = 150 * 2 ** (torch.arange(15) / 3)
    hertz = torch.arange(n_fft // 2 + 1)[:, None] * sr / n_fft
    return ((hertz >= middle * 2 ** (-1 / 6)) & (hertz < middle * 2 ** (1 / 6))).float()


def estoi_distance(wav: Tensor, clean: Tensor, sr: int) -> Tensor:
    """One minus ESTOI per item (B,). Segments count by how loud the clean one is, where ESTOI leaves quiet frames out."""
    win, hop = round(0.0256 * sr), round(0.0128 * sr)
    n_fft = 1 << (win - 1).bit_length()
    short = max(0, win + (SEGMENT - 1) * hop - wav.shape[-1])  # of one segment
    bands = []
    for x in (wav, clean):
        spec = torch.fft.rfft(
            F.pad(x[:, 0], (0, short)).unfold(-1, win, hop) * hann(win, win, x.dtype, x.device), n_fft
        )
        power = (spec.real.square() + spec.imag.square()) @ third_octaves(sr, n_fft).to(x.device)
        bands.append((power + 1e-8).sqrt().unfold(1, SEGMENT, SEGMENT // 6))  # (B, segments, 15, 30)
    loud = bands[1].square().mean((2, 3))  # (B, segments)
    heard = (loud > 1e-3 * loud.amax(1, keepdim=True)).float()
    for dim in (-1, -2):  # first along time, then along frequency
        bands = [x - x.mean(dim, keepdim=True) for x in bands]
        bands = [x / (x.square().sum(dim, keepdim=True) + 1e-8).sqrt() for x in bands]
    alike = (bands[0] * bands[1]).sum((2, 3)) / SEGMENT  # (B, segments)
    return 1 - (alike * heard).sum(1) / heard.sum(1).clamp_min(1)
