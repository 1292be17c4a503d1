"""Constant delay between two clips: find it by cross-correlation, to a fraction of a sample, and remove it."""

import numpy as np
from scipy.optimize import minimize_scalar

from .signals import MetricError, Signal, as_pair


def align(clean: Signal, enhanced: Signal, max_delay: int, subsample: bool = False) -> float:
    """The delay of `enhanced` in samples, in -max_delay..max_delay, where the cross-correlation is highest.

    With `subsample`, the maximum of the band-limited correlation between samples, from its Fourier series.
    """
    s, y = as_pair(clean, enhanced)
    if not y.any():
        raise MetricError("the enhanced clip is silent, its delay cannot be found")
    max_delay = min(max_delay, len(s) - 1)
    n = 1 << (len(s) + max_delay - 1).bit_length()  # no wrap-around within the range
    cross = np.fft.rfft(y, n) * np.conj(np.fft.rfft(s, n))
    product = np.fft.irfft(cross, n)
    delays = np.arange(-max_delay, max_delay + 1)
    best = int(delays[product[delays].argmax()])
    if not subsample or max_delay == 0:
        return float(best)
    angle = 2j * np.pi * np.arange(len(cross)) / n
    low, high = max(best - 1, -max_delay), min(best + 1, max_delay)
    found = minimize_scalar(lambda d: -(cross * np.exp(angle * d)).real.sum(), bounds=(low, high), method="bounded")
    return float(found.x)


def undelay(clean: Signal, enhanced: Signal, delay: float) -> tuple[np.ndarray, np.ndarray]:
    """Move `enhanced` earlier by `delay` samples (a fraction through the spectrum) and cut both to what they share."""
    s, y = as_pair(clean, enhanced)
    whole = round(delay)
    if abs(whole) >= len(s):
        raise MetricError(f"a delay of {delay:g} samples is longer than the clip of {len(s)}")
    if delay != whole:
        n = 1 << len(y).bit_length()
        turn = np.exp(2j * np.pi * np.arange(n // 2 + 1) / n * (delay - whole))
        y = np.fft.irfft(np.fft.rfft(y, n) * turn, n)[: len(y)]
    return s[max(0, -whole) : len(s) - max(0, whole)], y[max(0, whole) : len(y) + min(0, whole)]
