"""Lost stretches of sound on arrays: what `restore/gaps.py` does with tensors, one channel at a time.

Shapes: wav (N,), gaps (N,) True where samples are lost, spectra and magnitudes (T, bins), shares (T,).
"""

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SR, N_FFT, HOP, BINS = 16_000, 1024, 256, 513
FULL = 0.97  # share of its window's energy from which on a frame counts as known
HALF = 0.6  # and from which on its magnitudes, brought to full length, are better ends of a line than those beyond it
FREE = 0.7  # below it a frame takes the wanted magnitudes; above, its own are nearer the truth
ROUNDS, MOMENTUM = 16, 0.5  # of Griffin-Lim
LEAST = 1e-5  # smallest magnitude that a line begins or ends at
ORDER, HEARD, RINGS = 400, 1_600, 1_280  # of linear prediction; samples it learns from, and for which it rings on
BREATH = 1e-3  # of the sound's level
TRUST, NEAR = 0.6, 400.0  # its share in a frame's magnitudes beside what is known, and samples over which that falls
TINY_POWER, TINY_ENVELOPE = 1e-20, 1e-4  # below them a bin is silent, and windows do not reach


@functools.lru_cache(maxsize=8)
def hann(size: int) -> np.ndarray:
    """The periodic Hann window (size,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def stft(wav: np.ndarray) -> np.ndarray:
    """wav (N,) -> complex (1 + N // HOP, 513), frame t in the middle of sample t * HOP."""
    n, half = len(wav), N_FFT // 2
    right = n // HOP * HOP + half - n
    padded = np.pad(wav, (half, right), mode="reflect" if max(half, right) < n else "constant")
    return np.fft.rfft(sliding_window_view(padded, N_FFT)[::HOP] * hann(N_FFT)).astype(np.complex64)


def istft(spec: np.ndarray, n: int) -> np.ndarray:
    """complex (T, 513) -> wav (n,): the least-squares inverse (Griffin & Lim 1984, eq. 6)."""
    slabs, count = N_FFT // HOP, len(spec)
    frames = (np.fft.irfft(spec, N_FFT) * hann(N_FFT)).astype(np.float32).reshape(count, slabs, HOP)
    out, envelope = np.zeros((2, count + slabs - 1, HOP), np.float32)
    square = np.square(hann(N_FFT)).reshape(slabs, HOP)
    for k in range(slabs):
        out[k : k + count] += frames[:, k]
        envelope[k : k + count] += square[k]
    wav = (out / envelope.clip(TINY_ENVELOPE)).ravel()[N_FFT // 2 :][:n]
    return np.pad(wav, (0, n - len(wav)))


def magnitude(spec: np.ndarray) -> np.ndarray:
    return np.sqrt((np.square(spec.real) + np.square(spec.imag)).clip(TINY_POWER))


def known_share(gaps: np.ndarray) -> np.ndarray:
    """How much of each frame's window, in energy, is known (1 + N // HOP,)."""
    square = np.square(hann(N_FFT))
    known = np.pad((~gaps).astype(np.float32), (N_FFT // 2, N_FFT // 2), constant_values=1.0)
    return (sliding_window_view(known, N_FFT)[::HOP] @ (square / square.sum())).clip(0, 1)


def interpolate(x: np.ndarray, share: np.ndarray, least: float = HALF) -> np.ndarray:
    """x (T, C), on straight lines across the frames of which less than `least` is known; before the first known frame,
    and after the last, it is held."""
    known = share >= least
    at = np.flatnonzero(known)
    if not len(at):
        return x
    t = np.arange(len(x))
    right = np.searchsorted(at, t).clip(max=len(at) - 1)
    left = (right - 1).clip(0)
    a, b = at[left], at[right]
    a, b = np.where(b <= t, b, a), np.where(a >= t, a, b)
    mix = ((t - a) / (b - a).clip(1)).clip(0, 1).astype(np.float32)[:, None]
    return np.where(known[:, None], x, x[a] * (1 - mix) + x[b] * mix)


def brought_to_length(size: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Magnitudes of frames that are known in part, as large as if they were known whole: the window's energy that is
    missing counts as lost at random."""
    return size / np.sqrt(share.clip(0.1))[:, None]


def straight(wav: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """The magnitudes of a damaged sound with those of lost frames on straight lines, in logarithms (T, 513)."""
    share = known_share(gaps)
    size = brought_to_length(magnitude(stft(wav)), share)
    return np.exp(interpolate(np.log(size.clip(LEAST)), share))


def predictor(lags: np.ndarray) -> np.ndarray:
    """Autocorrelation (order + 1,) -> the filter (order + 1,) that leaves the least of such a sound (Levinson 1947,
    Durbin 1960)."""
    filter, left = np.zeros(len(lags)), lags[0]
    filter[0] = 1
    for k in range(1, len(lags)):
        turn = -(filter[:k] @ lags[k:0:-1]) / left
        filter[1 : k + 1] += turn * filter[k - 1 :: -1] if k > 1 else turn
        left *= 1 - turn * turn
    return filter


def ringing(known: np.ndarray, count: int) -> np.ndarray:
    """known (n,) -> how it would go on for `count` samples: linear prediction (autocorrelation method), long enough to
    hold a period of the voice."""
    if len(known) < 64 or not known.any():
        return np.zeros(count)
    order = min(ORDER, len(known) // 3)
    shown = known * np.sin(np.pi * (np.arange(len(known)) + 0.5) / len(known))
    lags = np.fft.irfft(np.abs(np.fft.rfft(shown, 2 * len(known))) ** 2)[: order + 1]
    lags[0] *= 1 + 1e-5
    weights = -predictor(lags)[:0:-1]  # of the last samples, oldest first
    out = np.concatenate([known[-order:], np.zeros(count)])
    for i in range(count):
        out[order + i] = weights @ out[i : order + i]
    most = 2 * np.abs(known).max()
    return out[order:].clip(-most, most)


def rung_on(wav: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """wav (N,) with its gaps filled from both sides by what rings on, which fade into each other (Kauppinen and Roth
    2002), and by a breath of noise, so that phases are random where neither reaches."""
    row = np.where(gaps, 0.0, wav).astype(np.float64)
    breath = BREATH * np.random.default_rng(0).standard_normal(len(row))
    edges = np.flatnonzero(np.diff(gaps.astype(np.int8), prepend=0, append=0))
    level = np.sqrt(np.square(row).sum() / max(1, (~gaps).sum()))
    starts, ends = edges[::2], edges[1::2]
    before = np.concatenate([[0], ends[:-1]])  # where the known stretch before each gap begins
    after = np.concatenate([starts[1:], [len(row)]])
    for a, b, first, last in zip(starts, ends, before, after):
        count = min(b - a, RINGS)
        forth = np.pad(ringing(row[max(first, a - HEARD) : a], count), (0, b - a - count))
        back = np.pad(ringing(row[b : min(last, b + HEARD)][::-1], count), (0, b - a - count))[::-1]
        fall = np.cos(np.pi / 2 * (np.arange(b - a) + 0.5) / (b - a)) ** 2
        row[a:b] = forth * fall + back * (1 - fall) + breath[a:b] * level
    return row.astype(np.float32)


def nearest_known(gaps: np.ndarray) -> np.ndarray:
    """How many samples lie between the middle of each frame and the nearest known sample (1 + N // HOP,)."""
    n = len(gaps)
    middle, place = (np.arange(1 + n // HOP) * HOP).clip(max=n - 1), np.arange(n)
    last = np.maximum.accumulate(np.where(gaps, -n, place))
    following = np.minimum.accumulate(np.where(gaps, 2 * n, place)[::-1])[::-1]
    return np.minimum(place - last, following - place)[middle].astype(np.float32)


def assemble(wav: np.ndarray, gaps: np.ndarray, size: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """wav (N,) and magnitudes (T, 513) for its frames -> wav (N,), changed in the gaps alone.

    Near what is known, what rings on has a share in the magnitudes; it gives the first phases everywhere. Then come
    Griffin and Lim's rounds (1984) with momentum (Perraudin et al. 2013, eq. 4), and with two kinds of knowledge:
    frames that see a gap take the wanted magnitudes, and after each round the known samples are put back.
    """
    free, n = (known_share(gaps) < FREE)[:, None], len(wav)
    now = stft(rung_on(wav, gaps))
    trust = (TRUST * np.exp(-np.square(nearest_known(gaps) / NEAR))).astype(np.float32)[:, None]
    rings = magnitude(now)
    wanted = size.clip(LEAST) ** (1 - trust) * rings.clip(LEAST) ** trust
    spec = previous = np.where(free, wanted * now / rings, now)
    for _ in range(rounds):
        out = np.where(gaps, istft(spec, n), wav)
        now = stft(out)
        ahead = now + np.float32(MOMENTUM) * (now - previous)
        spec = np.where(free, wanted * ahead / magnitude(ahead), now)
        previous = now
    return np.where(gaps, istft(spec, n), wav)
