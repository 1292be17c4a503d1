"""What is damaged in a recording: stretches that were lost, a missing band, peaks that were cut off or bent.

`Finder` takes a recording in blocks of any size, in constant memory; `find` a whole one; `read_gaps` takes the word of
somebody who knows. All of it is plain statistics. A repair that nobody needs is worse than one that is missing, so what
is doubtful stays unfound, and people can name gaps by hand.

**Gaps** are falls to next to nothing, steep on both sides, see `holes`. Found are digital silence, held values, and
both with short fades, in pauses too; of faint noise only what is amid loud speech. Not found are gaps longer than
0.6 s, comfort noise like that of the recording, and concealment that goes on until the sound is back. Of concealment
that falls silent, the silence is found.

**A missing band** shows as an edge in the spectrum. For each narrow band the level counts that one frame in twenty
passes; within 200 Hz it falls by no more than some 20 dB in speech, noise and rooms, and by 30 to 60 where a band is
missing. Frames that hold a gap do not count: its edges spread over all bands. Not found are slow filters, bands that
hold noise that came later, and edges that drown in the steps of a very quiet recording.

**A ceiling** shows as a heap of samples at one value, with few just below. Not found is clipping after which the sound
was filtered or coded. Soft overload, which makes no heap, is found by its likelihood, see `bend`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import AudioError
from .bend import Curve, Loudest
from .blocks import Windows
from .files import check_rate
from .holes import CLASSES, EMPTY, Holes, level_below, level_class

WINDOW, MARGIN = 8_000, 700  # milliseconds looked at together, and on either side of them

# bands
LOWEST, HIGHEST, TOP = 1_500.0, 7_200.0, 7_900.0  # Hz: of a cutoff, and up to where all above it is missing
WIDTH, FRAME = 62.5, 0.032  # Hz of a narrow band and seconds of a frame, or the nearest that the rate allows
BELOW, NEXT, ABOVE = 500.0, 62.5, 190.0  # Hz: what an edge falls from, without what is next to it, and where it ends
EDGES = ((5_500.0, 26.0), (math.inf, 30.0))  # up to so many Hz it falls by so many dB; steep natural ends lie high
SLOPE, NEARLY = 1_500.0, 0.75  # Hz that an edge may take, and the share of its height up to which it has not begun
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

    def push(self, block: np.ndarray) -> None:
        """The next samples (C, any), floats."""
        if block.ndim != 2 or (self._channels and len(block) != len(self._channels)):
            raise AudioError(f"a finder takes blocks (channels, n), always of as many channels, not {(*block.shape,)}")
        if not self._channels:
            self._channels = [_Channel(self.sr, self._hop) for _ in block]
        self._look(self._windows.push(np.asarray(block, np.float32)))

    def finish(self) -> tuple[Damage, ...]:
        """What is damaged in each channel, once no more blocks come."""
        self._look(self._windows.finish())
        return tuple(channel.damage() for channel in self._channels)

    def _look(self, windows: list) -> None:
        for sound, before, count in windows:
            for row, channel in zip(sound, self._channels):
                channel.look(row, before, count, self._first)
            self._first += count


def find(wav: np.ndarray, sr: int) -> tuple[Damage, ...]:
    """wav (C, N) -> what is damaged in each channel."""
    finder = Finder(sr)
    finder.push(wav)
    return finder.finish()


class _Channel:
    """What was seen of one channel."""

    def __init__(self, sr: int, hop: int):
        self.holes, self.spectrum, self.hop = Holes(sr, hop), _Spectrum(sr, hop), hop
        self.values, self.loudest = _Values(), Loudest(sr)

    def look(self, sound: np.ndarray, before: int, count: int, first: int) -> None:
        """sound (n,), of which `count` milliseconds after `before` ones are new; these begin at `first` of the
        recording."""
        outside = self.holes.look(sound, before, count, first)
        start, end = before * self.hop, (before + count) * self.hop
        self.spectrum.look(sound[start:], min(end, len(sound)) - start, outside[before:])
        self.values.look(sound[start:end])
        self.loudest.push(sound[start:end])

    def damage(self) -> Damage:
        ceiling = self.values.ceiling()
        curve = self.loudest.curve() if ceiling is None else None
        return Damage(self.holes.gaps(), self.spectrum.cutoff(), ceiling, curve)


# --- bands


class _Spectrum:
    """How loud each narrow band was how often."""

    def __init__(self, sr: int, hop: int):
        self.hop, self.size = hop, 2 ** round(math.log2(FRAME * sr))
        self.window = np.hanning(self.size).astype(np.float32)
        bins = max(1, round(WIDTH * self.size / sr))  # of a narrow band
        self.width = bins * sr / self.size
        bands = int(min(TOP, 0.985 * sr / 2) / self.width)
        self.starts, self.end = bins * np.arange(bands), bins * bands
        self.scale = 8 / self.size**2
        self.counts = np.zeros((bands, CLASSES), np.int64)

    def look(self, sound: np.ndarray, count: int, outside: np.ndarray) -> None:
        """sound (n,): frames that begin in its first `count` samples, and none of whose milliseconds lie in a hole,
        for its edges would spread over all bands. outside (K,): True where there is none."""
        if len(sound) < self.size:
            return
        starts = np.arange(0, min(count, len(sound) - self.size + 1), self.size // 2)
        inside = np.concatenate([[0], np.cumsum(~outside)])
        first, last = (np.minimum(x // self.hop, len(outside)) for x in (starts, starts + self.size + self.hop))
        whole = inside[last] == inside[first]
        frames = np.lib.stride_tricks.sliding_window_view(sound, self.size)[starts[whole]]
        power = np.abs(np.fft.rfft(frames * self.window)[:, : self.end]) ** 2 * self.scale  # (T, bins)
        where = level_class(np.add.reduceat(power, self.starts, axis=1) + EMPTY)  # (T, bands)
        where += CLASSES * np.arange(len(self.counts))
        self.counts += np.bincount(where.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def cutoff(self) -> float | None:
        if not self.counts.any():
            return None
        level = np.array([level_below(row, OFTEN) for row in self.counts])
        below, near, above, slope = (max(1, round(x / self.width)) for x in (BELOW, NEXT, ABOVE, SLOPE))
        first = max(below, round(LOWEST / self.width))
        drops = {i: self._plateau(level, i) - level[i + above :].max() for i in range(first, len(level) - above - 2)}
        enough = {i: x for i, x in drops.items() if x > next(least for hz, least in EDGES if i * self.width < hz)}
        if not enough:
            return None
        edge = max(enough, key=lambda i: enough[i])
        rest = level[edge + above :].max()
        for i in range(edge + near, max(below, edge - slope), -1):
            if level[i - 1] > rest + NEARLY * (self._plateau(level, i) - rest):
                edge = i
                break
        cutoff = edge * self.width
        return cutoff if LOWEST <= cutoff <= HIGHEST else None

    def _plateau(self, level: np.ndarray, i: int) -> float:
        """What lies below an edge at band i, in dB."""
        return float(level[i - round(BELOW / self.width) : i - round(NEXT / self.width)].mean())


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


def entries(channel: int, damage: Damage, sr: int) -> list[dict]:
    """The damage of one channel as rows of a table."""
    rows: list[dict] = []
    if damage.curve is not None:
        rows.append({"channel": channel, "kind": "overload", "ceiling": round(damage.curve.ceiling, 4)})
    if damage.ceiling is not None:
        low, high = (round(x, 4) if abs(x) < 100 else None for x in damage.ceiling)
        rows.append({"channel": channel, "kind": "clip", "low": low, "high": high})
    for a, b in damage.gaps:
        rows.append({"channel": channel, "kind": "gap", "start": round(a / sr, 3), "end": round(b / sr, 3)})
    return rows


def sentence(entry: dict) -> str:
    """What was found and done, in a line."""
    if entry["kind"] == "overload":
        return f"soft overload below {entry['ceiling']:.3f}, its curve undone"
    if entry["kind"] == "clip":
        ends = " and ".join(f"{entry[end]:.3f}" for end in ("low", "high") if entry[end] is not None)
        return f"samples cut off at {ends}, their peaks put back"
    return f"gap of {1000 * (entry['end'] - entry['start']):.0f} ms at {entry['start']:.3f} s, filled"


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
