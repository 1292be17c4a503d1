"""What is damaged in a recording: stretches that were lost, a missing band, samples cut off at a ceiling.

`Finder` takes a recording in blocks of any size, in constant memory; `find` a whole one; `read_gaps` takes the word of
somebody who knows. All of it is plain statistics. A repair that nobody needs is worse than one that is missing, so what
is doubtful stays unfound, and people can name gaps by hand.

**Gaps** are short falls to next to nothing, steep on both sides. Speech does not do that: it takes 10 ms and more to
die away before a plosive, a pause or a gate, and what remains is the floor of the recording. So the level of every
millisecond is compared with that of the five before and the eight after. Found are digital silence, held values, short
fades, faint noise, and concealment that repeats the last period before it falls silent. Not found are gaps whose two
sides lie in a pause, those after which the sound grows slowly, and comfort noise that is faded in and out.

**A missing band** shows as an edge in the spectrum of the loudest frames of each band: there, speech falls by no more
than some 25 dB within 300 Hz. Not found are slow filters, and bands that hold noise that came later.

**A ceiling** shows as a heap of samples at one value, with few just below. Not found is clipping after
which the sound was filtered or coded. Soft overload, which makes no heap, is found by its likelihood, see `bend`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio.blocks import Windows
from ..audio.files import as_float, check_rate
from ..errors import AudioError
from .bend import Curve, Loudest

LOWEST_DB, LEVELS = -160.0, 200  # classes of 1 dB

# gaps; levels are those of differences between samples 1/16,000 s apart, so that a held value is silent too
SHORTEST, LONGEST = 8, 600  # milliseconds; longer ones are pauses
WINDOW, MARGIN = 8_000, 700  # milliseconds looked at together, and on either side of them
BEFORE, AFTER = 5, 8  # milliseconds beside an edge: what the sound was, and for how long it must have been gone
SLOPES = 6  # milliseconds that an edge may take
FALL_DB = 25.0  # how far the level falls
FAINT, WHOLE = (
    0.12,
    0.8,
)  # peaks of a quarter of a millisecond beside a gap against what lies beyond: faded, and not faded
STEEP, STEEP_DB = 2, 22.0  # milliseconds within which it falls so far, where something is left in the gap
LOUD_DB = -30.0  # how loud the sound beside a gap is at least, against the loudest of the recording
EXACT = 0.7  # share of a gap that has one and the same value
SELDOM = 0.1  # share of the milliseconds outside all gaps that are no louder than the floor of a recording
DEEP_DB = -15.0  # how far below the floor of a recording only a gap falls
EMPTY = 1e-14  # power of nothing

# bands
LOWEST, HIGHEST, TOP = 1_500.0, 7_200.0, 7_750.0  # Hz: where an edge is looked for, and up to where all is missing
BAND, FRAME = 50.0, 0.032  # Hz and seconds
EDGE_DB = 30.0
OFTEN = 0.95  # share of the frames that are no louder in a band

# ceilings
SMALLEST, LARGEST, RATIO = 1e-5, 16.0, 1e-3  # values that are counted, and how far apart their classes are
HEAP = 3e-3  # how wide a heap is, of its value
LEAST, SHARE, TIMES = 10, 2e-4, 6.0  # samples in a heap, of all, and how often it holds what lies beside it
NARROW, NEAR, WIDE = 0.98, 0.9, 0.5  # from which share of its value on its surroundings are looked at
STEPS = 3  # values that these hold at least
TONE = 1.5  # how much denser values lie near a heap than further down, at most: those of a tone do
FEW, ALIKE = 4, 0.01  # samples at the same ceiling on the other side, and how near it is


@dataclass(frozen=True)
class Damage:
    """Of one channel."""

    # samples, the first and one past the last; None: nobody has looked yet
    gaps: tuple[tuple[int, int], ...] | None = ()
    cutoff: float | None = None  # Hz above which a band is missing
    # samples at or beyond the lowest and highest value were cut off; a side that was not is infinite
    ceiling: tuple[float, float] | None = None
    curve: Curve | None = None  # what bent the peaks, where an overload was soft


class Finder:
    """Looks at a recording block by block: `push(block)`, and `finish()` says what was found in each channel."""

    def __init__(self, sr: int):
        self.sr = check_rate(sr)
        self._hop = max(1, round(sr / 1000))  # samples of a millisecond
        self._windows = Windows(self._hop, MARGIN, WINDOW)
        self._first = 0  # milliseconds before the next window's new ones
        self._channels: list[_Channel] = []

    def push(self, block: Tensor) -> None:
        """The next samples (C, any)."""
        if block.ndim != 2 or (self._channels and len(block) != len(self._channels)):
            raise AudioError(f"a finder takes blocks (channels, n), always of as many channels, not {(*block.shape,)}")
        if not self._channels:
            self._channels = [_Channel(self.sr, self._hop) for _ in block]
        self._look(self._windows.push(as_float(block).detach().cpu().float()))

    def finish(self) -> tuple[Damage, ...]:
        """What is damaged in each channel, once no more blocks come."""
        self._look(self._windows.finish())
        return tuple(channel.damage() for channel in self._channels)

    def _look(self, windows: list) -> None:
        for sound, before, count in windows:
            for row, channel in zip(sound.numpy(), self._channels):
                channel.look(row, before, count, self._first)
            self._first += count


def find(wav: Tensor, sr: int) -> tuple[Damage, ...]:
    """wav (C, N) -> what is damaged in each channel."""
    finder = Finder(sr)
    finder.push(wav)
    return finder.finish()


class _Channel:
    """What was seen of one channel."""

    def __init__(self, sr: int, hop: int):
        self.holes, self.spectrum, self.values, self.loudest = _Holes(sr, hop), _Spectrum(sr), _Values(), Loudest(sr)
        self.hop = hop

    def look(self, sound: np.ndarray, before: int, count: int, first: int) -> None:
        """sound (n,), of which `count` milliseconds after `before` ones are new; these begin at `first` of the
        recording."""
        self.holes.look(sound, before, count, first)
        start, end = before * self.hop, (before + count) * self.hop
        self.spectrum.look(sound[start:], min(end, len(sound)) - start)
        self.values.look(sound[start:end])
        self.loudest.push(torch.from_numpy(sound[start:end]))

    def damage(self) -> Damage:
        ceiling = self.values.ceiling()
        curve = self.loudest.curve() if ceiling is None else None
        return Damage(self.holes.gaps(), self.spectrum.cutoff(), ceiling, curve)


# --- gaps


@dataclass(frozen=True)
class _Hole:
    """A stretch of a recording that may be a gap, in samples, and levels in dB."""

    start: int
    end: int
    beside: float  # of the quieter side
    core: float  # of the loudest millisecond inside
    steep: bool
    exact: bool  # one and the same value


class _Holes:
    """Falls to next to nothing. Which of them are gaps is decided at the end, when the whole recording is known."""

    def __init__(self, sr: int, hop: int):
        self.hop, self.step = hop, max(1, round(sr / 16_000))
        self.levels = np.zeros(LEVELS, np.int64)  # milliseconds of each level, outside all holes
        self.found: list[_Hole] = []

    def look(self, sound: np.ndarray, before: int, count: int, first: int) -> None:
        power = self._powers(sound)
        outside = np.ones(len(power), bool)
        moved = (first - before) * self.hop
        for hole in self.found[-2:]:
            outside[max(0, (hole.start - moved) // self.hop) : max(0, (hole.end - moved) // self.hop)] = False
        fall, loud_before = _falls(power)
        rise, loud_after = (x[:, ::-1] for x in _falls(power[::-1]))
        rises = np.flatnonzero((rise > FALL_DB).any(0))
        changes = np.flatnonzero(sound[1:] != sound[:-1]) + 1
        falls = np.flatnonzero((fall > FALL_DB).any(0))
        for run in np.split(falls, np.flatnonzero(np.diff(falls) > 1) + 1):
            if not len(run) or not before <= run[0] < before + count:
                continue
            ends = ((k, _end(power, k, loud_before[:, k].max(), rise, rises, loud_after)) for k in run if outside[k])
            k, q = next((pair for pair in ends if pair[1] is not None), (0, None))
            if q is None:
                continue
            outside[k : q + 1] = False
            steep = min(fall[:STEEP, k : k + 2].max(), rise[:STEEP, q - 1 : q + 1].max()) > STEEP_DB
            start, end, exact = self._edges(sound, changes, k, q)
            middle = float(np.median(sound[start:end]))
            longer = (self._faded(x - middle) for x in (sound[:start][::-1], sound[end:]))
            start, end = start - next(longer), end + next(longer)
            beside = min(loud_before[:, k].max(), loud_after[:, q].max())
            self.found.append(
                _Hole(
                    start + moved,
                    end + moved,
                    _db(beside),
                    _db(power[k + 1 : q].max()),
                    bool(steep),
                    exact,
                )
            )
        new = slice(before, before + count)
        self.levels += np.bincount(_class(power[new][outside[new]]), minlength=LEVELS)

    def gaps(self) -> tuple[tuple[int, int], ...]:
        loud, floor = (_quantile(self.levels, share) for share in (OFTEN, SELDOM))
        found: list[tuple[int, int]] = []
        for hole in self.found:
            deep = hole.core < floor + DEEP_DB
            amid = hole.beside > loud + LOUD_DB or (deep and hole.beside > floor - 3)
            if amid and (deep or hole.exact or hole.steep):
                found.append((hole.start, hole.end))
        return tuple(found)

    def _powers(self, sound: np.ndarray) -> np.ndarray:
        """sound (n,) -> mean square of differences in each whole millisecond."""
        change = np.zeros_like(sound)
        change[self.step :] = sound[self.step :] - sound[: -self.step]
        count = len(sound) // self.hop
        parts = change[: count * self.hop].reshape(count, self.hop)
        return np.einsum("kn,kn->k", parts, parts).astype(np.float64) / self.hop + EMPTY

    def _edges(self, sound: np.ndarray, changes: np.ndarray, k: int, q: int) -> tuple[int, int, bool]:
        """The first sample of a hole, one past the last, and whether it has only one value."""
        a, b = k * self.hop, (q + 1) * self.hop
        at = np.searchsorted(changes, (a + b) // 2, side="right")
        low = int(changes[at - 1]) if at else 0
        high = int(changes[at]) if at < len(changes) else len(sound)
        if high - low > EXACT * (b - a):
            return low, high, True
        change = np.abs(np.diff(sound[max(0, a - 2 * self.hop - 1) : b + 2 * self.hop]))
        first = max(0, a - 2 * self.hop - 1) + 1
        inside = change[a + self.hop - first : b - self.hop - first]
        large = np.flatnonzero(change > 2 * inside.max(initial=0.0))
        large += first
        starts, ends = large[large < a + self.hop], large[large >= b - self.hop]
        return int(starts[-1]) if len(starts) else a, int(ends[0]) if len(ends) else b, False

    def _faded(self, beside: np.ndarray) -> int:
        """How many samples beside a hole, nearest first, are faded: first faint, then ever louder."""
        part = max(1, self.hop // 4)
        far = beside[SLOPES * self.hop : (SLOPES + BEFORE) * self.hop]
        near = beside[: SLOPES * self.hop // part * part]
        if not len(far):
            return 0
        peaks = np.abs(near).reshape(-1, part).max(1) / far.std()
        return part * int(np.argmax(peaks > WHOLE)) if peaks[0] < FAINT else 0


def _falls(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """power (K,) -> how far it falls at each millisecond if that is the first quiet one (SLOPES, K) in dB, and how
    large it was before (SLOPES, K), for edges that take 1 to SLOPES milliseconds."""
    count = len(power)
    total = np.concatenate([[0.0], np.cumsum(power)])
    after = np.full(count, np.inf)
    if count >= AFTER:
        after[: count - AFTER + 1] = np.lib.stride_tricks.sliding_window_view(power, AFTER).max(1)
    was = np.full((SLOPES, count), EMPTY)
    for i in range(SLOPES):
        skip = BEFORE + 1 + i
        if count > skip:
            was[i, skip:] = (total[BEFORE : BEFORE + count - skip] - total[: count - skip]) / BEFORE
    was = was.clip(EMPTY)
    return 10 * np.log10(np.maximum(was / after, EMPTY)), was


def _end(power: np.ndarray, k: int, was: float, rise: np.ndarray, rises: np.ndarray, will: np.ndarray) -> int | None:
    """The last quiet millisecond of a hole whose first is k, or None if it has no end or is too short or long."""
    least = 10 ** (-FALL_DB / 10)
    for q in rises[np.searchsorted(rises, k + SHORTEST - 1) : np.searchsorted(rises, k + LONGEST)].tolist():
        if q + 1 < rise.shape[1] and (rise[:, q + 1] > FALL_DB).any():
            continue  # it goes on
        return q if power[k : q + 1].max() < least * min(was, will[:, q].max()) else None
    return None


def _db(power: float) -> float:
    return 10 * math.log10(power)


def _class(power: np.ndarray) -> np.ndarray:
    """The number of the class of 1 dB in which a power lies."""
    return (10 * np.log10(power) - LOWEST_DB).astype(np.int64).clip(0, LEVELS - 1)


def _quantile(counts: np.ndarray, share: float) -> float:
    """The level in dB below which a share lies, from the counts of its classes."""
    total = counts.cumsum()
    return LOWEST_DB + float(np.searchsorted(total, share * total[-1])) + 0.5


# --- bands


class _Spectrum:
    """How loud each narrow band was how often."""

    def __init__(self, sr: int):
        self.size = 2 ** round(math.log2(FRAME * sr))
        self.window = np.hanning(self.size).astype(np.float32)
        hz = np.fft.rfftfreq(self.size, 1 / sr)
        self.bands = int(min(TOP, 0.97 * sr / 2) // BAND)
        self.starts = np.searchsorted(hz, BAND * np.arange(self.bands + 1))
        self.scale = 8 / self.size**2
        self.counts = np.zeros((self.bands, LEVELS), np.int64)

    def look(self, sound: np.ndarray, count: int) -> None:
        """sound (n,): frames that begin in its first `count` samples."""
        if len(sound) < self.size:
            return
        frames = np.lib.stride_tricks.sliding_window_view(sound, self.size)[: count : self.size // 2]
        power = np.abs(np.fft.rfft(frames * self.window)) ** 2 * self.scale  # (T, bins)
        total = np.add.reduceat(power, self.starts, axis=1)[:, :-1] + EMPTY  # (T, bands)
        where = _class(total) + LEVELS * np.arange(self.bands)
        self.counts += np.bincount(where.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def cutoff(self) -> float | None:
        if not self.counts.any():
            return None
        level = np.array([_quantile(row, OFTEN) for row in self.counts])
        hz = BAND * np.arange(self.bands)  # where each begins
        best, most = None, EDGE_DB
        for i in np.flatnonzero((hz >= LOWEST) & (hz <= HIGHEST)).tolist():
            below, above = level[i - 10 : i - 1], level[i + 3 :]
            if len(above) < 3:
                continue
            drop = below.mean() - above.max()
            if drop > most:
                best, most = float(hz[i]), drop
        return best


# --- ceilings


class _Values:
    """How often each value was there, in classes a thousandth apart."""

    def __init__(self):
        self.size = math.ceil(math.log(LARGEST / SMALLEST) / RATIO)
        self.counts = np.zeros((2, self.size), np.int64)  # below and above zero
        self.total = 0

    def look(self, sound: np.ndarray) -> None:
        self.total += len(sound)
        for side, row in zip((-sound, sound), self.counts):
            values = side[side > SMALLEST]
            where = (np.log(values / SMALLEST) / RATIO).astype(np.int64).clip(max=self.size - 1)
            row += np.bincount(where, minlength=self.size)

    def ceiling(self) -> tuple[float, float] | None:
        low, high = (_heap(row, self.total) for row in self.counts)
        low, high = low or _like(self.counts[0], high), high or _like(self.counts[1], low)
        return None if low is None and high is None else (-(low or math.inf), high or math.inf)


def _heap(counts: np.ndarray, total: int) -> float | None:
    """The value at which samples are heaped up at the upper end of their classes, or None."""
    at = np.flatnonzero(counts)
    if not len(at):
        return None
    top = int(at[-1])
    width = round(HEAP / RATIO)
    below = at[at < top - width]
    if not len(below):
        return None
    grain = max(HEAP, 1 - math.exp((int(below[-1]) - top) * RATIO))  # how far apart two values are, of their size
    heap = counts[max(0, top - width) : top + 1]

    def density(low: float) -> float:  # of the samples between a share of the top value and the heap
        first = max(0, top + round(math.log(low) / RATIO))
        return counts[first : top - width].sum() / (1 - low - grain / 2)

    if STEPS * grain > 1 - WIDE:
        return None
    narrow, near, wide = (density(min(x, 1 - STEPS * grain)) for x in (NARROW, NEAR, WIDE))
    expected = grain * max(narrow, near, wide / 3)
    if heap.sum() < max(LEAST, SHARE * total, TIMES * expected) or near > TONE * wide:
        return None
    return SMALLEST * math.exp((top - len(heap) + 1 + int(np.argmax(heap >= heap.sum() / 50))) * RATIO)


def _like(counts: np.ndarray, other: float | None) -> float | None:
    """The same ceiling on this side, too, if several samples lie at it and none beyond it."""
    at = np.flatnonzero(counts)
    if other is None or not len(at):
        return None
    classes = counts[max(0, int(at[-1]) - 1) :]
    value = SMALLEST * math.exp((int(at[-1]) - 1) * RATIO)
    return value if classes.sum() >= FEW and abs(value / other - 1) < ALIKE else None


# --- the word of somebody who knows


def read_gaps(text: str, sr: int, frames: int, channels: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """`1.20-1.45,3.0-3.2` in seconds, or the path of a JSON file -> the gaps of each channel, in samples.

    The JSON is a list of pairs [start, end], or an object with such a list as "gaps" (the same for all channels) or one
    list for each channel as "channels".
    """
    if text.lower().endswith(".json"):
        try:
            data = json.loads(Path(text).read_text())
        except OSError as error:
            raise AudioError(f"{text}: {error.strerror}; name a JSON file that exists") from None
        except ValueError as error:
            raise AudioError(f"{text} is not JSON ({error}); write pairs such as [[1.2, 1.45], [3.0, 3.2]]") from None
        each = data.get("channels") if isinstance(data, dict) and "channels" in data else None
        lists = each if each is not None else [data["gaps"] if isinstance(data, dict) and "gaps" in data else data]
    else:
        lists = [[part.split("-") for part in text.split(",") if part.strip()]]
    lists = lists * channels if len(lists) == 1 else lists
    if len(lists) != channels:
        raise AudioError(f"{text} names the gaps of {len(lists)} channels, and the recording has {channels}")
    return tuple(_checked(rows, text, sr, frames) for rows in lists)


def _checked(rows: Sequence, text: str, sr: int, frames: int) -> tuple[tuple[int, int], ...]:
    """Pairs of seconds as gaps in samples, in order, those that touch joined."""
    found: list[tuple[int, int]] = []
    try:
        pairs = sorted((float(a), float(b)) for a, b in rows)
    except (TypeError, ValueError):
        raise AudioError(f"'{text}' does not name gaps; write them in seconds, such as 1.20-1.45,3.0-3.2") from None
    for start, end in pairs:
        if not 0 <= start < end <= frames / sr + 1e-6:
            raise AudioError(
                f"there is no gap from {start:g} to {end:g} s in a recording of {frames / sr:.2f} s; it begins before "
                "it ends, and lies inside"
            )
        a, b = round(start * sr), min(frames, max(round(end * sr), round(start * sr) + 1))
        if found and a <= found[-1][1]:
            a, b = found[-1][0], max(b, found[-1][1])
            found.pop()
        found.append((a, b))
    return tuple(found)
