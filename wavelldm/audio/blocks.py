"""Sound that arrives in blocks: another sample rate, overlapping windows, cross-fades.

The classes take blocks (..., n) of any size along their last axis and give out what is ready:

    stage.push(block)    what the block completes, often nothing
    stage.finish()       the rest, once, when no more blocks come
    stage.ready(counts)  how many samples are out, for each number of samples pushed (an array)

What comes out does not depend on how the sound was cut into blocks. Memory is constant. Read `Resampler` first, then
`Windows`, then `CrossFade`; after each stands the function that runs an iterable of blocks through it.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AudioError
from .files import check_rate

ZEROS = 64  # zero crossings of the sinc on either side: at 16 kHz the filter looks 4 ms ahead
KAISER = 7.857  # shape of its window: what would alias is 80 dB down (Kaiser 1974; Oppenheim & Schafer, eq. 7.75)
CUTOFF = 0.9608  # of the lower Nyquist frequency: half a transition below it, so that nothing aliases
MOST_WEIGHTS = 1 << 20  # that a filter with all its phases may have; where it would have more, interpolate
MOST_PHASES = 512  # that are kept then; interpolating between them adds an error of -105 dB
PIECE = 1 << 22  # products at once where phases are interpolated


# --- another sample rate


class Resampler:
    """Blocks (channels, n) at `sr_in` -> blocks at `sr_out`, in all `ceil(N * sr_out / sr_in)` samples.

    A sinc cut off by a Kaiser window, symmetric, so no frequency is moved in time: sample j belongs to the moment
    j / sr_out of the input. It comes out as soon as `lookahead` input samples behind that moment are there: 4 ms for
    16 kHz and any higher rate.
    """

    def __init__(self, sr_in: int, sr_out: int, channels: int = 1):
        sr_in, sr_out = check_rate(sr_in, "the input"), check_rate(sr_out, "the output")
        divisor = math.gcd(sr_in, sr_out)
        self.up, self.down = sr_out // divisor, sr_in // divisor  # output j lies at input j * down / up
        self.channels, self.seen, self.made = channels, 0, 0
        self.lookahead = 0 if sr_in == sr_out else math.ceil(ZEROS * max(1.0, sr_in / sr_out))
        self._held = None  # (channels, n): input from sample `_first` on, with zeros before sample 0
        self._first = 1 - self.lookahead

    def push(self, block: Tensor) -> Tensor:
        """Block (channels, n) -> (channels, m), the samples that it completes."""
        if block.ndim != 2 or len(block) != self.channels:
            raise AudioError(f"this resampler takes blocks ({self.channels} channels, n), not {tuple(block.shape)}")
        self.seen += block.shape[1]
        if not self.lookahead:
            return block
        if self._held is None:
            self._held = block.new_zeros(self.channels, self.lookahead - 1)
        self._held = torch.cat([self._held, block], dim=1)
        return self._until(max(0, -((self.lookahead - self.seen) * self.up // self.down)))

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return -((self.lookahead - counts) * self.up // self.down).clip(max=0)

    def finish(self) -> Tensor:
        """The last samples, as if zeros followed."""
        if self._held is None:
            return torch.zeros(self.channels, 0)
        self._held = F.pad(self._held, (0, self.lookahead))
        return self._until(-(-self.seen * self.up // self.down))

    def _until(self, end: int) -> Tensor:
        """The samples up to number `end`, for which all of the input is there; drop the input that is used up."""
        filters, exact = phases(self.up, self.down)
        start = self.made
        if end <= start:
            return self._held[:, :0]
        out = self._periods(filters, start, end) if exact else self._interpolated(filters, start, end)
        self.made = end
        next_input = end * self.down // self.up
        if exact:  # back to the start of its period
            next_input = end // self.up * self.down
        drop = next_input - self.lookahead + 1 - self._first
        self._held, self._first = self._held[:, drop:], self._first + drop
        return out

    def _periods(self, filters: Tensor, start: int, end: int) -> Tensor:
        """Whole periods, `down` samples that give `up`, by one convolution; cut to what was asked for."""
        first = start // self.up  # the period in which `start` lies, and in which the held input begins
        count = -(-end // self.up) - first
        size = filters.shape[-1] + (count - 1) * self.down  # incomplete samples at the end see zeros and are cut away
        x = F.pad(self._held, (0, max(0, size - self._held.shape[1])))[:, None, :size]
        y = F.conv1d(x, filters.to(x)[:, None], stride=self.down)  # (channels, up, count)
        return y.transpose(1, 2).flatten(1)[:, start - first * self.up : end - first * self.up]

    def _interpolated(self, filters: Tensor, start: int, end: int) -> Tensor:
        """Sample by sample, each with the filter between the two kept phases that are nearest to its own."""
        filters, out = filters.to(self._held), []
        windows = self._held.unfold(-1, filters.shape[-1], 1)  # (channels, n, taps)
        for first in range(start, end, size := max(1, PIECE // filters.shape[-1])):
            number = torch.arange(first, min(first + size, end), device=self._held.device) * self.down
            place = (number % self.up).to(torch.float64) / self.up * (len(filters) - 1)
            low = place.long()
            part = (place - low).to(filters)[:, None]
            rows = (1 - part) * filters[low] + part * filters[low + 1]  # (m, taps)
            out.append((windows[:, number // self.up - self.lookahead + 1 - self._first] * rows).sum(-1))
        return torch.cat(out, dim=1)


@functools.lru_cache(maxsize=16)
def phases(up: int, down: int) -> tuple[Tensor, bool]:
    """The low-pass filter of `Resampler`, and whether it holds each phase that occurs.

    If so, row p (up, taps + shift) makes the p-th sample of a period and stands where that sample's input begins. Else
    there are MOST_PHASES + 1 rows (phases, taps) at equal distances from 0 to 1 input sample.
    """
    half = math.ceil(ZEROS * max(1.0, down / up))
    band = CUTOFF * min(1.0, up / down)
    exact = up * (2 * half + down) <= MOST_WEIGHTS
    count = up if exact else max(16, math.ceil(MOST_PHASES * min(1.0, up / down)))
    shift = [p * down // up if exact else 0 for p in range(count + (not exact))]
    filters = np.zeros((len(shift), 2 * half + max(shift)), np.float32)
    for p, left in enumerate(shift):
        t = np.arange(1 - half, half + 1) - (p * down % up / up if exact else p / count)  # input samples
        row = np.sinc(band * t) * np.i0(KAISER * np.sqrt(np.clip(1 - (t / half) ** 2, 0, None)))
        filters[p, left : left + 2 * half] = row / row.sum()
    return torch.from_numpy(filters), exact


def resample_blocks(blocks: Iterable[Tensor], sr_in: int, sr_out: int) -> Iterator[Tensor]:
    """wav blocks (C, any) -> the same at another rate, without seams, ceil(N * sr_out / sr_in) samples in all."""
    stage = None
    for block in blocks:
        stage = stage or Resampler(sr_in, sr_out, len(block))
        yield stage.push(block)
    if stage:
        yield stage.finish()


# --- overlapping windows


class Window(NamedTuple):
    """A piece of a recording: `count` new frames, and the frames on both sides that they depend on."""

    frames: Tensor  # (..., (before + count + behind) * hop)
    before: int  # frames that lie before the new ones
    count: int  # new frames


class Windows:
    """Blocks (..., any) -> windows with `size` new frames, and `margin` on either side except at the ends.

    A frame is `hop` samples long; the last one of all may be shorter. For networks without a state: a frame's output is
    right if the network sees no further than `margin`.
    """

    def __init__(self, hop: int, margin: int, size: int = 512):
        self.hop, self.margin, self.size = hop, margin, size
        self._held, self._before = None, 0

    def push(self, block: Tensor) -> list[Window]:
        self._held = block if self._held is None else torch.cat([self._held, block], dim=-1)
        ready = []
        while self._held.shape[-1] >= (self._before + self.size + self.margin) * self.hop:
            whole = self._held[..., : (self._before + self.size + self.margin) * self.hop]
            ready.append(Window(whole, self._before, self.size))
            drop = max(0, self._before + self.size - self.margin)
            self._held, self._before = self._held[..., drop * self.hop :], self._before + self.size - drop
        return ready

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return (counts // self.hop - self.margin).clip(min=0) // self.size * self.size * self.hop

    def finish(self) -> list[Window]:
        """The windows at the end, where nothing follows the new frames or less than `margin`."""
        frames = 0 if self._held is None else -(-self._held.shape[-1] // self.hop)
        starts = range(self._before, frames, self.size)
        return [Window(self._held, start, min(self.size, frames - start)) for start in starts]


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
