"""Something like speech, for what listens to speech: a buzz through formants, in syllables with pauses."""

import math

import numpy as np
import torch
from scipy.signal import lfilter


def speechlike(seconds: float = 3.0, sr: int = 16_000, seed: int = 0) -> np.ndarray:
    """(N,) float64, peak 0.5."""
    rng = np.random.default_rng(seed)
    n = round(seconds * sr)
    t = np.arange(n) / sr
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * t + seed)
    buzz = (np.diff(np.floor(np.cumsum(pitch) / sr), prepend=0) > 0) + 0.02 * rng.standard_normal(n)
    out = np.zeros(n)
    size = sr // 5  # five syllables a second, every fourth a pause
    for i in range(0, n, size):
        if (i // size) % 4 == 3:
            continue
        x = buzz[i : i + size]
        for formant in rng.uniform([300, 900, 2200], [800, 2000, 3200]):
            radius = np.exp(-np.pi * 90 / sr)
            x = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * formant / sr), radius**2], x)
        out[i : i + len(x)] = x * np.hanning(len(x)) / np.abs(x).max()
    return 0.5 * out / np.abs(out).max() + 1e-4 * rng.standard_normal(n)


def noisy(clean: np.ndarray, snr: float, seed: int = 1) -> np.ndarray:
    """White noise added at exactly `snr` dB over the whole clip."""
    noise = np.random.default_rng(seed).standard_normal(len(clean))
    return clean + noise * np.sqrt((clean @ clean) / (noise @ noise) / 10 ** (snr / 10))


def voice(sr, seconds=1.0, seed=0):
    """A gliding harmonic tone with pauses and a little noise: (1, 1, N)."""
    t = torch.arange(int(sr * seconds), dtype=torch.float64) / sr
    phase = 2 * math.pi * (140 * t + 12 * torch.sin(3 * t))
    tone = sum(torch.sin(k * phase) / k for k in range(1, 25)) * (torch.sin(2 * math.pi * 2.5 * t) > -0.5)
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.1 * tone + 0.001 * noise).float()[None, None]
