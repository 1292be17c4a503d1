"""The level of speech without pauses (ITU-T P.56), as `audio/levels.py` measures it with tensors."""

import numpy as np

FRAME = 0.01  # seconds between values of the envelope
HANGOVER = 0.2  # seconds that still count as active after the envelope has fallen: gaps between words
MARGIN_DB = 15.9  # the activity threshold lies this far under the active level (ITU-T P.56, method B)
SILENCE_DB = -80.0  # an envelope under this is never active: rounding noise


def active_power(wav: np.ndarray, sr: int) -> float:
    """The mean square over the active samples of one channel (N,); 0 for silence."""
    size, held = max(1, round(FRAME * sr)), round(HANGOVER / FRAME)
    wav = np.asarray(wav, np.float32)
    whole = np.pad(np.abs(wav), (0, -len(wav) % size)).reshape(-1, size).mean(1)  # (T,)
    sums = np.cumsum(np.pad(whole.astype(np.float64), (1, 0)))
    first, last = (np.clip(np.arange(len(whole)) + by, 0, len(whole)) for by in (-2, 3))
    envelope = (sums[last] - sums[first]) / (last - first)  # smoothed over 50 ms
    padded = np.pad(envelope, (held, 0))
    reached = np.lib.stride_tricks.sliding_window_view(padded, held + 1).max(1)  # (T,), with hangover
    energy, floor = np.square(wav, dtype=np.float64).sum() / size, 10 ** (SILENCE_DB / 20)
    threshold = floor
    for _ in range(30):
        active = max(1, int((reached >= threshold).sum()))
        higher = max(floor, (energy / active) ** 0.5 * 10 ** (-MARGIN_DB / 20))
        if higher == threshold:
            break
        threshold = higher
    mask = np.repeat(reached >= threshold, size)[: len(wav)]
    return float(np.square(wav[mask], dtype=np.float64).sum() / max(1, mask.sum()))
