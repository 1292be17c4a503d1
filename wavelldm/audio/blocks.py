"""Sound in blocks: overlapping windows, cross-fades and resampling of streams."""

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from . import files
from .stft import stft

FRAME = 512  # samples over which the gain of the highest bins is measured


def in_windows(blocks, window: int, overlap: int, process):
    """wav blocks (C, any) -> rows (R, any), as many samples in all, the same for blocks of any size, in constant memory.

    `process` turns a window (C, window) into (R, window). Two neighbours share `overlap` samples, at most half a window, where one
    fades out and the other in by a squared sine: both weights add up to one, so nothing is heard where windows meet.
    """
    rise = torch.sin(torch.linspace(0, torch.pi / 2, overlap + 2)[1:-1]).square()  # (overlap,)
    hop, held, tail = window - overlap, None, None

    def faded(part: Tensor) -> Tensor:
        rows = process(F.pad(part, (0, window - part.shape[1])))
        if tail is not None:
            rows = torch.cat([rows[:, :overlap] * rise.to(rows) + tail, rows[:, overlap:]], dim=1)
        return rows

    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=1)
        while held.shape[1] > window:
            rows = faded(held[:, :window])
            yield rows[:, :hop]
            tail, held = rows[:, hop:] * rise.flip(0).to(rows), held[:, hop:]
    if held is not None and held.shape[1]:
        yield faded(held)[:, : held.shape[1]]


def top_gain(noisy: Tensor, cleaned: Tensor) -> Tensor:
    """(C, n) each -> (C, n): how far the highest quarter of the band was turned down, so that what lies above can follow."""
    before, after = (
        stft(x, FRAME, FRAME // 2, FRAME, "center")[..., -FRAME // 8 :, :].abs().square().sum(-2)
        for x in (noisy, cleaned)
    )
    gain = (after / before.clamp_min(1e-12)).sqrt().clamp(max=1)  # (C, T)
    return F.interpolate(gain[:, None], noisy.shape[1], mode="linear", align_corners=True)[:, 0]


def cleaning(clean, background: float = 0.0):
    """`clean`: (C, n) -> (C, n). What `windowed` takes: puts `background` of what was removed back, and adds the rows of `top_gain`."""

    def process(noisy: Tensor) -> Tensor:
        cleaned = clean(noisy)
        cleaned = cleaned + background * (noisy - cleaned)
        return torch.cat([cleaned, top_gain(noisy, cleaned)])  # (2 C, n)

    return process


def windows(blocks, unit: int, margin: int, size: int | None = None):
    """Join blocks (..., any) and cut them anew: yields (window, frames before the new ones, new frames).

    A frame is `unit` long; there are `size` new ones at a time (by default 512), and `margin` on either side except at the ends.
    """
    size = size or 512
    held, before = None, 0
    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=-1)
        while held.shape[-1] >= (before + size + margin) * unit:
            yield held[..., : (before + size + margin) * unit], before, size
            drop = max(0, before + size - margin)
            held, before = held[..., drop * unit :], before + size - drop
    frames = 0 if held is None else -(-held.shape[-1] // unit)
    while before < frames:
        count = min(size, frames - before)
        yield held, before, count
        before += count


def resample_blocks(blocks, sr_in: int, sr_out: int):
    """wav blocks (C, any) -> the same at another rate, without seams, ceil(N * sr_out / sr_in) samples in all."""
    stream, seen, made = None, 0, 0

    def resampled(block: Tensor, last: bool) -> Tensor:
        data = stream.resample_chunk(np.ascontiguousarray(block.T.numpy()), last=last)  # (n, C)
        return torch.from_numpy(np.ascontiguousarray(data.T))

    for block in blocks:
        if sr_in == sr_out:
            yield block
            continue
        stream = stream or soxr.ResampleStream(sr_in, sr_out, len(block), dtype="float32")
        seen += block.shape[1]
        out = resampled(block, False)
        made += out.shape[1]
        if out.shape[1]:
            yield out
    if seen:
        left = -(-seen * sr_out // sr_in) - made
        yield files.fit(resampled(block[:, :0], True), left)


def _take(blocks, n: int):
    """The first n samples of wav blocks (C, any)."""
    for block in blocks:
        if n > 0:
            yield block[:, :n]
        n -= block.shape[1]
