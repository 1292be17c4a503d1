"""Pitch on arrays: what `audio/pitch.py` and `heard_pitch` of `restore/latent.py` do with tensors, of one channel."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .gaps import HOP, SR, hann

LOW, HIGH, COUNT = 60.0, 500.0, 160  # lowest and highest candidate in Hz, and their number: 23 cents apart
JUMP = 16  # candidates that a path moves at most from one frame to the next (3.7 semitones)
UNVOICED = 0.5  # score of a frame without pitch
SWITCH = 0.25  # cost of a change between voiced and unvoiced
SMOOTH = 161  # samples at 16 kHz of the moving average that is subtracted: low rumble matches itself at every short lag
SLOW = 0.06  # penalty of the lowest candidate: a sound that repeats after one period also repeats after two


def scores(wav: np.ndarray) -> np.ndarray:
    """wav (N,) at 16 kHz -> (ceil(N / HOP), S), between -1 and 1: one minus YIN's normalised difference (de Cheveigne &
    Kawahara 2002, eq. 8)."""
    window = round(0.04 * SR)
    span = window + math.ceil(SR / LOW) + 2
    side = round(SMOOTH * SR / 32_000)
    whole = span + 2 * side
    left = side + (window + (span - window) // 2 - HOP) // 2
    wav = np.pad(wav, (left, whole - HOP - left + -len(wav) % HOP))
    smooth = hann(2 * side + 2)[1:].astype(np.float64)
    wav = (wav[side:-side] - np.convolve(wav, smooth / smooth.sum(), "valid")).astype(np.float32)
    frames = sliding_window_view(wav, span)[::HOP]  # (T, span)
    frames = frames - frames.mean(1, keepdims=True)
    n_fft, lags = 1 << (span + window - 1).bit_length(), span - window + 1
    product = np.fft.rfft(frames[:, :window], n_fft).conj() * np.fft.rfft(frames, n_fft)
    common = np.fft.irfft(product, n_fft)[:, :lags]  # (T, lags)
    energy = np.pad(np.square(frames).cumsum(1), ((0, 0), (1, 0)))
    later = (energy[:, window : window + lags] - energy[:, :lags]).clip(0)
    difference = (later[:, :1] + later - 2 * common).clip(0)
    mean = difference.cumsum(1) / np.arange(1, lags + 1)
    score = (1 - difference / (mean + 1e-5 * window)).clip(-1)
    score = np.where(later[:, :1] > 1e-6 * window, score, 0.0)  # silence has no pitch
    period = SR / (LOW * (HIGH / LOW) ** (np.arange(COUNT, dtype=np.float32) / np.float32(COUNT - 1)))
    lag = period.astype(int)
    share = period - lag
    return (score[:, lag] * (1 - share) + score[:, lag + 1] * share).astype(np.float32)


def track(score: np.ndarray) -> np.ndarray:
    """Scores (T, S) -> the best path (T,): the number of a candidate, or S where there is no pitch (Talkin 1995,
    section 3.3)."""
    s = score.shape[1]
    score = score - SLOW * np.linspace(1, 0, s, dtype=np.float32)
    cost = (2.4 * math.log2(HIGH / LOW) / (s - 1) * np.abs(np.arange(-JUMP, JUMP + 1))).astype(np.float32)
    voiced, unvoiced, back = score[0], UNVOICED, []  # the best path that ends in each state
    padded, places = np.full(s + 2 * JUMP, -np.inf, np.float32), np.arange(s)
    near = sliding_window_view(padded, 2 * JUMP + 1)
    for now in score[1:]:
        padded[JUMP:-JUMP] = voiced
        values = near - cost  # (S, jumps)
        jump = values.argmax(1)
        value = values[places, jump]
        best = voiced.max()
        begins, ends = unvoiced - SWITCH > value, best - SWITCH > unvoiced
        back.append((np.where(begins, s, jump - JUMP + places), int(voiced.argmax()) if ends else s))
        voiced = np.maximum(value, np.float32(unvoiced - SWITCH)) + now
        unvoiced = max(unvoiced, best - SWITCH) + UNVOICED
    path = [s if unvoiced > voiced.max() else int(voiced.argmax())]
    for origin, ended in reversed(back):
        path.append(ended if path[-1] == s else int(origin[path[-1]]))
    return np.array(path[::-1])


def heard(wav: np.ndarray) -> np.ndarray:
    """wav (N,) -> pitch (2, 1 + N // HOP): octaves above 60 Hz (-1: no voice), the best path, each at the top of a
    parabola through its neighbours; and how well the sound repeats."""
    count = 1 + len(wav) // HOP
    score = scores(np.pad(wav, (HOP // 2, HOP)))[:count]  # (T, S); frame t lies around sample t * HOP
    path = track(score)
    at, rows = path.clip(1, COUNT - 2), np.arange(count)
    a, b, c = (score[rows, at + k] for k in (-1, 0, 1))
    place = at + (0.5 * (a - c) / (a - 2 * b + c).clip(max=-1e-6)).clip(-0.5, 0.5)
    octaves = place * (math.log2(HIGH / LOW) / (COUNT - 1))
    return np.stack([np.where(path < COUNT, octaves, -1.0), score.max(1)]).astype(np.float32)
