"""Loudness as a listener hears it (ITU-R BS.1770-4): K-weighted power over gated blocks, in LUFS."""

import math

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from .files import as_float

BLOCK, STEP = 0.4, 0.1  # seconds
ABSOLUTE, RELATIVE = -70.0, -10.0  # LUFS, LU: blocks that are quieter do not count
OFFSET = -0.691  # dB, so that a full-scale sine of 997 Hz has -3.01 LUFS
SHELF = (1681.974450955533, 3.999843853973347, 0.7071752369554196)  # Hz, dB, Q: the head
HIGHPASS = (38.13547087602444, 0.5003270373238773)  # Hz, Q


def weighting(sr: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of the two filters of the K-weighting, of tables 1 and 2 of the standard at 48 kHz; at
    other rates by the bilinear transform of the same analogue filters."""
    f, gain, q = SHELF
    k, high = math.tan(math.pi * f / sr), 10 ** (gain / 20)
    band, a0 = high**0.4996667741545416, 1 + k / q + k * k
    b = np.array([high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k]) / a0
    shelf = b, np.array([1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0])
    f, q = HIGHPASS
    k = math.tan(math.pi * f / sr)
    a0 = 1 + k / q + k * k
    return [shelf, (np.array([1.0, -2.0, 1.0]), np.array([1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]))]


def loudness(wav: Tensor, sr: int) -> float:
    """Integrated loudness of wav (N,) or (C, N) of up to two channels, in LUFS; -inf for silence. A clip that is
    shorter than a block of 0.4 s is one block."""
    x = np.atleast_2d(as_float(wav).detach().cpu().double().numpy())  # (C, N)
    for b, a in weighting(sr):
        x = lfilter(b, a, x)
    size = min(round(BLOCK * sr), x.shape[1])
    if size == 0:
        return -math.inf
    power = np.concatenate([[0.0], np.cumsum((x**2).sum(0))])  # (N + 1,)
    starts = np.arange(0, x.shape[1] - size + 1, round(STEP * sr))
    blocks = np.maximum((power[starts + size] - power[starts]) / size, 0.0)  # (J,)
    heard = blocks[blocks > 10 ** ((ABSOLUTE - OFFSET) / 10)]
    if not len(heard):
        return -math.inf
    kept = heard[heard > heard.mean() * 10 ** (RELATIVE / 10)]
    return OFFSET + 10 * math.log10(kept.mean())


def at_loudness(wav: Tensor, sr: int, target: float) -> Tensor:
    """The same sound at `target` LUFS; peaks may pass full scale. Silence stays silence."""
    now = loudness(wav, sr)
    return wav if now == -math.inf else torch.as_tensor(wav) * 10 ** ((target - now) / 20)
