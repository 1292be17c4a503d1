"""Clipped peaks put back: of all sounds whose samples lie at or beyond the ceilings where they were cut, and are the
known ones elsewhere, one with few strong frequencies at a time.

Nothing here is trained. Each round shrinks the weak bins of the spectrum, and then puts the known samples back
(consistent iterative shrinkage: Siedenburg, Kowalski & Dörfler, "Audio declipping with social sparsity", 2014, with
the threshold falling from round to round). Only frames that hold a clipped sample are computed, as no other has a say.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import AudioError
from .blocks import Windows
from .gaps import hann

HOP, OVERLAP = 0.02, 4  # seconds, and frames over each sample: a frame is as long as both together
ROUNDS = 60
THRESHOLD = (0.05, 1.5e-5)  # in a frame's strongest band, first and last: 1 is a sine as high as the ceiling
WIDTH, TILT = 1_000.0, 0.7  # thresholds rise where powers, averaged over so many Hz, fall, with this exponent
RANGE = 1e-5  # least such power that counts, of the frame's strongest band
STEP, MOMENTUM = 1.3, 0.8  # of each round, and how much of the last way is gone on
TINY = 1e-9  # least ceiling
PIECE, MARGIN = 8.0, 0.5  # seconds that are worked on at once, and that they see beyond their ends


class Declipper:
    """Blocks (C, any) that were clipped at the ceilings low (C,) and high (C,) -> the same with their peaks, later.

    Samples between the ceilings stay as they are, to the bit; others only move outwards, so peaks may pass 1. A ceiling
    may be infinite. Channels do not know of each other. What comes out does not depend on the size of the blocks.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, sr: int):
        low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        if low.ndim != 1 or low.shape != high.shape or not (low < high).all():
            raise AudioError("each channel has two ceilings, the low one below the high one: two arrays (channels,)")
        self.low, self.high, self.sr = low, high, sr
        self.hop = fast(max(1, round(HOP * sr)))
        self.windows = Windows(self.hop, round(MARGIN * sr / self.hop), round(PIECE * sr / self.hop))

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""
        return self.windows.ready(counts)

    def push(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """The next block -> what is certain by now, or with `last` all that is left."""
        if len(block) != len(self.low):
            raise AudioError(f"the sound has {len(block)} channels and there are ceilings for {len(self.low)}")
        parts = [block[:, :0]]
        for window, before, count in self.windows.push(block) + (self.windows.finish() if last else []):
            whole = _shrunk(window, self.low, self.high, self.sr, self.hop)
            parts.append(whole[:, before * self.hop : (before + count) * self.hop])
        return np.concatenate(parts, axis=1)


def fast(size: int) -> int:
    """The next size with no factor above 5, for which a transform is fast."""
    rest = size
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return size if rest == 1 else fast(size + 1)


def declip(wav: np.ndarray, low: np.ndarray, high: np.ndarray, sr: int) -> np.ndarray:
    """wav (C, N), clipped at the ceilings low (C,) and high (C,) of its channels -> (C, N) with its peaks."""
    return Declipper(low, high, sr).push(wav, last=True)


def _shrunk(wav: np.ndarray, low: np.ndarray, high: np.ndarray, sr: int, hop: int) -> np.ndarray:
    """wav (C, N), declipped at once. Sound is kept in slabs of one hop, of which OVERLAP in a row make a frame; only
    the slabs of frames that hold a clipped sample are kept."""
    above, below = wav >= high[:, None], wav <= low[:, None]  # (C, N)
    if not (above | below).any():
        return wav
    channels, n = wav.shape
    n_fft, side = OVERLAP * hop, (OVERLAP - 1) * hop
    count = -(-n // hop) + 2 * (OVERLAP - 1)

    def slabs(x: np.ndarray) -> np.ndarray:  # (C, N) -> (C * count, hop)
        return np.pad(x, ((0, 0), (side, count * hop - n - side))).reshape(channels * count, hop)

    touched = slabs(above | below).any(1).reshape(channels, count)
    channel, first = sliding_window_view(touched, OVERLAP, 1).any(2).nonzero()  # of every frame (T,)
    place = (channel * count + first)[:, None] + np.arange(OVERLAP)  # (T, OVERLAP)
    kept = np.zeros(channels * count, bool)
    kept[place.ravel()] = True
    place = (kept.cumsum() - 1)[place]  # among the kept slabs

    known, above, below = (slabs(x)[kept] for x in (wav, above, below))  # (K, hop)
    owner = np.repeat(np.arange(channels), count)[kept]
    least = np.where(above, high[owner, None], np.where(below, -np.float32(np.inf), known))
    most = np.where(below, low[owner, None], np.where(above, np.float32(np.inf), known))

    window = hann(n_fft)
    back = window / np.tile(np.square(window).reshape(OVERLAP, hop).sum(0), OVERLAP)
    ends = (np.where(np.isinf(end), 0, np.abs(end)) for end in (low, high))
    ceiling = np.maximum(*ends).clip(TINY).astype(np.float32)
    whole = ceiling[channel, None] * np.float32(n_fft / 4)  # (T, 1): the magnitude of a sine as high as the ceiling
    unit = np.square(whole * _thresholds(known[place].reshape(len(place), -1) * window / whole, sr))  # (T, bins)

    last = here = known
    for i in range(ROUNDS):
        threshold = THRESHOLD[0] * (THRESHOLD[1] / THRESHOLD[0]) ** (i / (ROUNDS - 1))
        spec = np.fft.rfft(here[place].reshape(len(place), -1) * window)  # (T, bins)
        power = np.square(spec.real) + np.square(spec.imag)
        spec *= power / (power + np.float32(threshold**2) * unit)
        frames = (np.fft.irfft(spec, n_fft) * back).astype(np.float32).reshape(-1, OVERLAP, hop)
        now = np.zeros_like(known)
        for k in range(OVERLAP):  # no slab is the k-th of two frames
            now[place[:, k]] += frames[:, k]
        now = np.clip(here + np.float32(STEP) * (now - here), least, most)
        here = np.clip(now + np.float32(MOMENTUM) * (now - last), least, most)
        last = now

    out = slabs(wav)
    out[kept] = last
    return out.reshape(channels, -1)[:, side : side + n]


def _thresholds(frames: np.ndarray, sr: int) -> np.ndarray:
    """Windowed frames (T, n_fft) as they were clipped -> how their thresholds differ over frequency (T, bins): they are
    1 in the strongest band, and high where a frame has little, since most of that is what the clipping made."""
    power = np.square(np.abs(np.fft.rfft(frames))).astype(np.float64)
    half, bins = max(1, round(WIDTH * frames.shape[1] / sr / 2)), power.shape[1]
    sums = np.pad(power.cumsum(1), ((0, 0), (1, 0)))
    low, high = np.arange(bins) - half, np.arange(bins) + half + 1
    low, high = low.clip(0), high.clip(max=bins)
    smooth = (sums[:, high] - sums[:, low]) / (high - low)
    strongest = smooth.max(1, keepdims=True).clip(TINY**2)
    return ((smooth.clip(0) / strongest + RANGE) ** (-TILT / 2)).astype(np.float32)
