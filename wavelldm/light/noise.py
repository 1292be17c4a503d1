"""Noise for latents that is the same on all devices and however a recording is cut."""

import numpy as np

FRAMES = 16  # that are drawn at once


def frame_noise(seed: int, first: int, count: int, dim: int, item: int = 0, draw: int = 0) -> np.ndarray:
    """Standard normal noise (count, dim) that depends on seed, item, frame and number of the draw alone, from a counter
    (Philox: Salmon et al. 2011)."""
    rows = [np.empty((0, dim), np.float32)]
    for chunk in range(first // FRAMES, -(-(first + count) // FRAMES)):
        numbers = np.random.Philox(key=seed % 2**64, counter=(0, chunk, item, draw))  # the lowest word counts inside
        rows.append(np.random.Generator(numbers).standard_normal((FRAMES, dim), dtype=np.float32))
    return np.concatenate(rows)[first % FRAMES :][:count]
