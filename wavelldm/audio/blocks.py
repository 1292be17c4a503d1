"""Sound that arrives in blocks: another sample rate, overlapping windows, cross-fades.

The classes take blocks (..., n) of any size along their last axis and give out what is ready:

    stage.push(block)    what the block completes, often nothing
    stage.finish()       the rest, once, when no more blocks come
    stage.ready(counts)  how many samples are out, for each number of samples pushed (an array)

What comes out does not depend on how the sound was cut into blocks. Memory is constant. Read `Resampler` first, then
`Windows`, then `CrossFade`; after each stands the function that runs an iterable of blocks through it.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AudioError
from ..light import blocks as on_arrays
from ..light import resample
from ..light.blocks import Window

# --- another sample rate


class Resampler(resample.Resampler):
    """The same with tensors, on their device: blocks (channels, n) at `sr_in` -> blocks at `sr_out`."""

    def nothing(self) -> Tensor:
        return torch.zeros(self.channels, 0)

    def joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=1)

    def padded(self, x: Tensor, count: int) -> Tensor:
        return F.pad(x, (0, count))

    def products(self, x: Tensor, filters: np.ndarray) -> Tensor:
        return F.conv1d(x[:, None], torch.from_numpy(filters).to(x)[:, None], stride=self.down).transpose(1, 2)

    def weighed(self, starts: np.ndarray, rows: np.ndarray) -> Tensor:
        windows = self._held.unfold(-1, rows.shape[-1], 1)[:, torch.from_numpy(starts).to(self._held.device)]
        return (windows * torch.from_numpy(rows).to(self._held)).sum(-1)  # (channels, m)


def resample_blocks(blocks: Iterable[Tensor], sr_in: int, sr_out: int) -> Iterator[Tensor]:
    """wav blocks (C, any) -> the same at another rate, without seams, ceil(N * sr_out / sr_in) samples in all."""
    stage = None
    for block in blocks:
        stage = stage or Resampler(sr_in, sr_out, len(block))
        yield stage.push(block)
    if stage:
        yield stage.finish()


# --- overlapping windows


class Windows(on_arrays.Windows):
    """The same with tensors (..., any), on their device."""

    def joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=-1)


def windows(blocks: Iterable[Tensor], hop: int, margin: int, size: int = 512) -> Iterator[Window]:
    """The windows of an iterable of blocks (..., any), see `Windows`."""
    stage = Windows(hop, margin, size)
    for block in blocks:
        yield from stage.push(block)
    yield from stage.finish()


class CrossFade:
    """Blocks (..., any) through `process`, a function of windows of a fixed size that keeps their shape.

    Two neighbours share `overlap` samples or frames, at most half a window, where one fades out and the other in by a
    squared sine: both weights add up to one, so nothing is heard where windows meet. The last window is shorter, or
    filled up with zeros if `pad` is set.
    """

    def __init__(self, process: Callable[[Tensor], Tensor], size: int, overlap: int, pad: bool = False):
        if not 0 <= 2 * overlap <= size:
            raise AudioError(f"windows of {size} can share at most half of that, not {overlap}")
        self.process, self.size, self.overlap, self.pad = process, size, overlap, pad
        self._held = self._tail = None

    def push(self, block: Tensor) -> Tensor:
        """Block (..., n) -> (..., m): what no later window changes."""
        self._held = block if self._held is None else torch.cat([self._held, block], dim=-1)
        step, ready = self.size - self.overlap, []
        while self._held.shape[-1] > self.size:  # more follows, so this is not the last window
            out = self._faded_in(self._held[..., : self.size])
            ready.append(out[..., :step])
            self._tail = out[..., step:] * self._rise(out).flip(0)
            self._held = self._held[..., step:]
        return torch.cat(ready, dim=-1) if ready else block[..., :0]

    def ready(self, counts: np.ndarray) -> np.ndarray:
        step = self.size - self.overlap
        return (counts - 1 - self.overlap).clip(min=0) // step * step

    def finish(self) -> Tensor:
        if self._held is None or self._held.shape[-1] == 0:
            return torch.zeros(0) if self._held is None else self._held
        return self._faded_in(self._held)

    def _faded_in(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        out = self.process(F.pad(x, (0, self.size - n)) if self.pad else x)[..., :n]
        if self._tail is None:
            return out
        start = out[..., : self.overlap] * self._rise(out) + self._tail
        return torch.cat([start, out[..., self.overlap :]], dim=-1)

    def _rise(self, like: Tensor) -> Tensor:
        angle = torch.linspace(0, torch.pi / 2, self.overlap + 2, device=like.device, dtype=like.dtype)
        return angle[1:-1].sin().square()  # (overlap,)


def window_count(total: int, size: int, overlap: int) -> int:
    """How many windows `CrossFade` makes of `total` samples or frames."""
    return max(1, math.ceil((total - overlap) / (size - overlap)))


def cross_faded(
    blocks: Iterable[Tensor], process: Callable[[Tensor], Tensor], size: int, overlap: int, pad: bool = False
) -> Iterator[Tensor]:
    """An iterable of blocks (..., any) through `process`, window by window, see `CrossFade`."""
    stage = CrossFade(process, size, overlap, pad)
    for block in blocks:
        yield stage.push(block)
    yield stage.finish()


def take(blocks: Iterable[Tensor], n: int) -> Iterator[Tensor]:
    """The first n samples of wav blocks (C, any)."""
    for block in blocks:
        if n > 0:
            yield block[:, :n]
        n -= block.shape[1]
