"""Soft overload undone: the curve that bent a recording's peaks is found by its likelihood, and inverted.

A stage that is driven too far bends every sample by one and the same curve, y = c f(x / c) with a ceiling c. Nothing is
lost by that, as long as the curve is known. It is found blindly: sound is predictable from its own past, and what a
curve does to it is not, so of all curves the right one leaves the most predictable sound. With x = c g(y / c), g the
inverse, the mean logarithmic likelihood of a stationary Gaussian frame is, after Whittle, "The analysis of multiple
stationary time series" (1953), and with the slope of the curve as in Taleb & Jutten, "Source separation in
post-nonlinear mixtures" (1999),

    L = mean log g'(y / c) - mean over frequencies of log |X|    (nats per sample)
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ..errors import AudioError
from .gaps import hann

FRAME = 0.064  # seconds, about: a power of two samples
FRAMES = 300  # the loudest, that are looked at: at most
LOUD = 0.1  # of the energy of the loudest frame, at least: quieter ones are hardly bent
FLOOR = 1e-4  # of the peak: what is quieter than that in a bin may be rounding to 16 bits
HARD = 12  # the sharpest knee: where it is the likeliest, peaks were cut off, and no curve brings them back
GAIN = 0.03  # nats per sample from which on a curve is believed
COARSE, FINE = 12, 8  # how often likelihood is asked for, on a grid and around its best place
NEAREST = (0.1, 9.0)  # -log of 1 - peak / ceiling, from hardly bent to flat


class Curve(NamedTuple):
    """What bent a channel: a shape, and the ceiling that it does not pass."""

    shape: str
    ceiling: float
    gain: float  # nats per sample that the sound is more likely without it


def _tanh(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arctanh(u), -np.log1p(-np.square(u))


def _arctan(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = (math.pi / 2) * u
    return np.tan(angle) * (2 / math.pi), -2 * np.log(np.cos(angle))


def _knee(n: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """y = x / (1 + |x|^n)^(1/n): the larger n, the harder the knee."""

    def inverse(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        room = 1 - np.abs(u) ** n
        return u * room ** (-1 / n), -(1 + 1 / n) * np.log(room)

    return inverse


SHAPES = {  # name -> u = y / c to x / c, and the logarithm of the slope of that
    "tanh": _tanh,
    "arctan": _arctan,
    **{f"knee {n}": _knee(n) for n in (2, 3, 4, 6, HARD)},
}


class Loudest:
    """The loudest frames of one channel that comes in blocks: all that is needed to find its curve."""

    def __init__(self, sr: int):
        self.size = 2 ** round(math.log2(FRAME * sr))
        self.waiting, self.frames = np.zeros(0, np.float32), np.zeros((0, self.size), np.float32)

    def push(self, wav: np.ndarray) -> None:
        """The next samples (n,)."""
        wav = np.concatenate([self.waiting, wav])
        whole = len(wav) // self.size * self.size
        self.waiting = wav[whole:]
        frames = np.concatenate([self.frames, wav[:whole].reshape(-1, self.size)])
        if len(frames) > FRAMES:
            loudest = np.argsort(-np.square(frames).sum(1), kind="stable")[:FRAMES]
            frames = frames[np.sort(loudest)]
        self.frames = frames

    def curve(self) -> Curve | None:
        """The curve that bent the channel, or None where nothing is more likely."""
        return _find(self.frames) if len(self.frames) else None


def find_curves(wav: np.ndarray, sr: int) -> list[Curve | None]:
    """The curve that bent each channel of wav (C, N), or None where nothing is more likely."""
    if wav.ndim != 2:
        raise AudioError(f"a sound is (channels, samples), not {tuple(wav.shape)}")
    loudest = [Loudest(sr) for _ in wav]
    for channel, row in zip(loudest, wav):
        channel.push(row)
    return [channel.curve() for channel in loudest]


def straighten(wav: np.ndarray, curves: list[Curve | None]) -> np.ndarray:
    """wav (C, N) with each channel's curve undone. Its loudest samples become louder, and may pass 1."""
    rows = []
    for channel, curve in zip(wav, curves, strict=True):
        if curve is not None:
            most = (1 - math.exp(-NEAREST[1])) * curve.ceiling
            channel = SHAPES[curve.shape](channel.clip(-most, most) / curve.ceiling)[0] * np.float32(curve.ceiling)
        rows.append(channel)
    return np.stack(rows)


def _find(frames: np.ndarray) -> Curve | None:
    """frames (T, size)."""
    size = frames.shape[1]
    energy = np.square(frames).sum(1)
    frames = frames[energy > LOUD * energy.max()]
    peak = float(np.abs(frames).max()) if len(frames) else 0.0
    if peak == 0:
        return None
    window = hann(size)
    floor = (FLOOR * peak * size / 4) ** 2
    weight = np.square(window) / np.square(window).mean()

    def spread(x: np.ndarray) -> float:
        spec = np.fft.rfft(x * window)
        return float(0.5 * np.log(np.square(spec.real) + np.square(spec.imag) + floor).mean())

    plain = spread(frames)

    def gain(shape: str, near: float) -> float:
        ceiling = peak / (1 - math.exp(-near))
        x, slope = SHAPES[shape](frames / ceiling)
        return plain - spread(x * ceiling) + float((slope * weight).mean())

    best = max(_highest(partial(gain, shape), *NEAREST) + (shape,) for shape in SHAPES)
    if best[0] < GAIN or best[2] == f"knee {HARD}":
        return None
    return Curve(best[2], peak / (1 - math.exp(-best[1])), best[0])


def _highest(of: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """The highest value of a function and where it lies: on a grid, then between the neighbours of its best place, by
    golden section."""
    grid = [low + (high - low) * i / (COARSE - 1) for i in range(COARSE)]
    seen = {x: of(x) for x in grid}
    k = max(range(COARSE), key=lambda i: seen[grid[i]])
    a, b = grid[max(0, k - 1)], grid[min(COARSE - 1, k + 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(FINE):
        c, d = b - golden * (b - a), a + golden * (b - a)
        for x in (c, d):
            if x not in seen:
                seen[x] = of(x)
        a, b = (a, d) if seen[c] > seen[d] else (c, b)
    return max((value, x) for x, value in seen.items())
