"""Another sample rate for sound that arrives in blocks. What comes out does not depend on how it was cut."""

import functools
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import AudioError
from .files import check_rate

ZEROS = 64  # zero crossings of the sinc on either side: at 16 kHz the filter looks 4 ms ahead
KAISER = 7.857  # shape of its window: what would alias is 80 dB down (Kaiser 1974; Oppenheim & Schafer, eq. 7.75)
CUTOFF = 0.9608  # of the lower Nyquist frequency: half a transition below it, so that nothing aliases
MOST_WEIGHTS = 1 << 20  # that a filter with all its phases may have; where it would have more, interpolate
MOST_PHASES = 512  # that are kept then; interpolating between them adds an error of -105 dB
PIECE = 1 << 22  # products at once where phases are interpolated


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

    def push(self, block: np.ndarray) -> np.ndarray:
        """Block (channels, n) -> (channels, m), the samples that it completes."""
        if block.ndim != 2 or len(block) != self.channels:
            raise AudioError(f"this resampler takes blocks ({self.channels} channels, n), not {tuple(block.shape)}")
        self.seen += block.shape[1]
        if not self.lookahead:
            return block
        if self._held is None:
            self._held = self.padded(block[:, :0], self.lookahead - 1)
        self._held = self.joined([self._held, block])
        return self._until(max(0, -((self.lookahead - self.seen) * self.up // self.down)))

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return -((self.lookahead - counts) * self.up // self.down).clip(max=0)

    def finish(self) -> np.ndarray:
        """The last samples, as if zeros followed."""
        if self._held is None:
            return self.nothing()
        self._held = self.padded(self._held, self.lookahead)
        return self._until(-(-self.seen * self.up // self.down))

    def _until(self, end: int) -> np.ndarray:
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

    def _periods(self, filters: np.ndarray, start: int, end: int) -> np.ndarray:
        """Whole periods, `down` samples that give `up`, by one product; cut to what was asked for."""
        first = start // self.up  # the period in which `start` lies, and in which the held input begins
        count = -(-end // self.up) - first
        size = filters.shape[-1] + (count - 1) * self.down  # incomplete samples at the end see zeros and are cut away
        x = self.padded(self._held, max(0, size - self._held.shape[1]))[:, :size]
        y = self.products(x, filters)  # (channels, count, up)
        return y.reshape(len(y), -1)[:, start - first * self.up : end - first * self.up]

    def _interpolated(self, filters: np.ndarray, start: int, end: int) -> np.ndarray:
        """Sample by sample, each with the filter between the two kept phases that are nearest to its own."""
        out = []
        for first in range(start, end, size := max(1, PIECE // filters.shape[-1])):
            number = np.arange(first, min(first + size, end)) * self.down
            place = number % self.up / self.up * (len(filters) - 1)
            low = place.astype(int)
            part = (place - low).astype(np.float32)[:, None]
            rows = (1 - part) * filters[low] + part * filters[low + 1]  # (m, taps)
            out.append(self.weighed(number // self.up - self.lookahead + 1 - self._first, rows))
        return self.joined(out)

    # what depends on the kind of array

    def nothing(self) -> np.ndarray:
        return np.zeros((self.channels, 0), np.float32)

    def joined(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts, axis=1)

    def padded(self, x: np.ndarray, count: int) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, count)))

    def products(self, x: np.ndarray, filters: np.ndarray) -> np.ndarray:
        """All filters (up, taps) at every `down`-th sample of x (channels, n) -> (channels, count, up)."""
        return sliding_window_view(x, filters.shape[-1], axis=1)[:, :: self.down] @ filters.T

    def weighed(self, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Rows of weights (m, taps) on the held input from `starts` (m,) on -> (channels, m)."""
        return np.einsum("cmt,mt->cm", sliding_window_view(self._held, rows.shape[-1], axis=1)[:, starts], rows)


@functools.lru_cache(maxsize=16)
def phases(up: int, down: int) -> tuple[np.ndarray, bool]:
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
    return filters, exact
