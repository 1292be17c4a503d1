"""Stretches of a recording that were lost, found in what is left: short falls to next to nothing, steep on both sides.

Speech does not fall like that: it takes 10 ms and more to die away before a plosive, a pause or a gate, and what
remains is the floor of the recording. So the level of every millisecond is compared with that of the five before and
the eight after.

Two kinds are looked for. Silence, or one value that is held, is found in the differences between samples 1/16,000 s
apart, for there any value is silent. Faint noise is found in the samples themselves, for there speech stands further
above it. Noise must be steeper, and lie amid louder sound: closures of plosives in gated recordings look much alike.

A gate cuts pauses out as steeply, and leaves silence, too. But it closes where the sound is quiet already, so hardly
anything quieter is left in the recording. Gaps begin anywhere. So several silences that nearly all begin in the
quietest sound there is are taken for those of a gate.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

LOWEST_DB, CLASSES = -160.0, 200  # classes of 1 dB in which levels are counted
EMPTY = 1e-14  # power of nothing

SHORTEST, LONGEST = 8, 600  # milliseconds of a fall; longer ones are pauses
BEFORE, AFTER = 5, 8  # milliseconds beside an edge: what the sound was, and for how long it must have been gone
SLOPES = 6  # milliseconds that an edge may take
FALL_DB = 25.0, 20.0  # how far the level falls at least, to silence and to noise
FAINT, WHOLE = 0.12, 0.8  # peaks of a quarter of a millisecond beside a gap against what lies beyond: faded, not faded
LOUD, FLOOR = 0.95, 0.1  # shares of the milliseconds that are no louder than the loudest of a recording, and its floor
DEEP_DB = -15.0  # how far below the floor of a recording only a gap falls
EXACT = 0.7  # share of a gap that has one and the same value

# silence, in dB: what is beside it against the loudest, or against the floor, and against one step of the samples
AMID_DB, PAUSE_DB, COARSE_DB = -30.0, -8.0, 13.0
# a gate: so many silences at least; share of them, and of the recording that is no louder than before so many of them
SEVERAL, MOST, ALIKE_DB, GATED = 2, 0.9, 2.0, 0.3
# noise: milliseconds within which it falls, and those on either side that are alike, up to so many dB
STEEP, FAR, EVEN_DB = 2, 20, 8.0
RAW_DB = 25.0  # how far it is below all of these
# what is beside it against the loudest, how far it falls, and how far it is above the floor; one line is enough
NOISES = ((-10.0, 25.0, 15.0), (-25.0, 22.0, DEEP_DB))


@dataclass(frozen=True)
class Hole:
    """A stretch of a recording that may be a gap, in samples; powers in dB."""

    start: int
    end: int
    silent: bool  # one and the same value
    beside: float  # of the quieter side
    before: float  # of the side where it begins
    core: float  # of the loudest millisecond inside
    steep: float = 0.0  # by how much it falls within STEEP milliseconds, on the less steep side
    raw: float = 0.0  # by how much it is below what is beside it
    even: float = 0.0  # by how much what is nearest beside it differs from what is further away, at most


class Holes:
    """Collects them window by window. Which of them are gaps is decided when the whole recording is known."""

    def __init__(self, sr: int, hop: int):
        self.hop, self.step = hop, max(1, round(sr / 16_000))
        self.levels = np.zeros((2, CLASSES), np.int64)  # milliseconds of each level: of differences, of samples
        self.grain = math.inf  # the least difference between two samples
        self.found: list[Hole] = []

    def look(self, sound: np.ndarray, before: int, count: int, first: int) -> np.ndarray:
        """sound (n,), of which `count` milliseconds after `before` ones are new; these begin at `first` of the
        recording -> True for each millisecond (K,) outside silent holes."""
        change = np.zeros_like(sound)
        change[self.step :] = sound[self.step :] - sound[: -self.step]
        powers = self._power(change), self._power(sound)
        changes = np.flatnonzero(sound[1:] != sound[:-1]) + 1
        if len(changes):
            self.grain = min(self.grain, float(np.abs(sound[changes] - sound[changes - 1]).min()))
        outside = np.ones(len(powers[0]), bool)
        moved = (first - before) * self.hop
        new = slice(before, before + count)
        for silent, power in zip((True, False), powers):
            for hole in self._falls(sound, power, changes, outside.copy(), silent):
                if silent:
                    outside[hole.start // self.hop : -(-hole.end // self.hop)] = False
                if before * self.hop <= hole.start < (before + count) * self.hop:
                    self.found.append(replace(hole, start=hole.start + moved, end=hole.end + moved))
        for power, levels in zip(powers, self.levels):
            levels += np.bincount(level_class(power[new][outside[new]]), minlength=CLASSES)
        return outside

    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Those holes that are gaps, each the first sample and one past the last."""
        if not self.levels.any():
            return ()
        found = [hole for hole in self.found if self._is_gap(hole)]
        if self._gated([hole.before for hole in found if hole.silent]):
            found = [hole for hole in found if not hole.silent]
        return tuple(sorted((hole.start, hole.end) for hole in found))

    def _gated(self, before: list[float]) -> bool:
        """Whether silences with these levels before them come from a gate: hardly anything else is as quiet."""
        if len(before) < SEVERAL:
            return False
        level = float(np.quantile(before, MOST)) + ALIKE_DB
        quiet = self.levels[0][: level_class(10 ** (level / 10)) + 1]
        return bool(quiet.sum() < GATED * self.levels[0].sum())

    def _is_gap(self, hole: Hole) -> bool:
        levels = self.levels[0 if hole.silent else 1]
        amid, above = hole.beside - level_below(levels, LOUD), hole.core - level_below(levels, FLOOR)
        if hole.silent:
            pause = above < DEEP_DB and hole.beside > level_below(levels, FLOOR) + PAUSE_DB
            return (amid > AMID_DB or pause) and hole.beside > _db(self.grain**2) + COARSE_DB
        falls = any(amid > a and hole.steep > b and above < c for a, b, c in NOISES)
        return falls and hole.raw > RAW_DB and hole.even < EVEN_DB

    def _power(self, sound: np.ndarray) -> np.ndarray:
        """sound (n,) -> mean square of each whole millisecond (K,)."""
        count = len(sound) // self.hop
        parts = sound[: count * self.hop].reshape(count, self.hop)
        return np.einsum("kn,kn->k", parts, parts).astype(np.float64) / self.hop + EMPTY

    def _falls(
        self, sound: np.ndarray, power: np.ndarray, changes: np.ndarray, free: np.ndarray, silent: bool
    ) -> list[Hole]:
        """The falls in sound (n,) with power (K,), to silence or to noise, where it is free (K,); changes: samples that
        differ from the one before."""
        least = FALL_DB[0 if silent else 1]
        fall, was = _depths(power)
        rise, will = (x[:, ::-1] for x in _depths(power[::-1]))
        rises, holes = np.flatnonzero((rise > least).any(0)), []
        for a, b in _runs((fall > least).any(0)):
            ends = ((k, _end(power, k, was[:, k].max(), rises, will, least)) for k in range(a, b) if free[k])
            k, q = next((pair for pair in ends if pair[1] is not None), (0, None))
            if q is None:
                continue
            start, end, exact = self._edges(sound, changes, k, q)
            if exact != silent:
                continue
            free[k : q + 1] = False
            beside = [sound[max(0, start - FAR * self.hop) : start][::-1], sound[end : end + FAR * self.hop]]
            sides = was[:, k].max(), will[:, q].max()
            hole = Hole(0, 0, silent, _db(min(sides)), _db(sides[0]), _db(power[k + 1 : q].max()))
            if not silent:
                inside = sound[start + self.hop : end - self.hop]
                raw = min(_db(float(x.var())) for x in beside) - _db(float(inside.var()))
                even = max(_uneven(x) for x in (power[: k - 1][::-1], power[q + 2 :]))
                steep = min(fall[:STEEP, k : k + 2].max(), rise[:STEEP, q - 1 : q + 1].max())
                hole = replace(hole, raw=raw, even=even, steep=float(steep))
            middle = float(np.median(sound[start:end]))
            start, end = start - self._faded(beside[0] - middle), end + self._faded(beside[1] - middle)
            holes.append(replace(hole, start=start, end=end))
        return holes

    def _edges(self, sound: np.ndarray, changes: np.ndarray, k: int, q: int) -> tuple[int, int, bool]:
        """The first sample of a hole from millisecond k to q, one past the last, and whether it has only one value."""
        a, b = k * self.hop, (q + 1) * self.hop
        at = np.searchsorted(changes, (a + b) // 2, side="right")
        low = int(changes[at - 1]) if at else 0
        high = int(changes[at]) if at < len(changes) else len(sound)
        near = SLOPES * self.hop
        if high - low > EXACT * (b - a) and low < a + near and high > b - near:
            return low, high, True
        first = max(0, a - 2 * self.hop - 1)
        change = np.abs(np.diff(sound[first : b + 2 * self.hop]))
        first += 1
        inside = change[a + self.hop - first : b - self.hop - first]
        large = np.flatnonzero(change > 2 * inside.max(initial=0.0)) + first
        starts, ends = large[large < a + self.hop], large[large >= b - self.hop]
        return int(starts[-1]) if len(starts) else a, int(ends[0]) if len(ends) else b, False

    def _faded(self, beside: np.ndarray) -> int:
        """How many samples beside a hole, nearest first, are faded: first faint, then ever louder."""
        part = max(1, self.hop // 4)
        far = beside[SLOPES * self.hop : (SLOPES + BEFORE) * self.hop]
        near = beside[: SLOPES * self.hop // part * part]
        if not far.any():
            return 0
        peaks = np.abs(near).reshape(-1, part).max(1)
        return part * int(np.argmax(peaks > WHOLE * far.std())) if peaks[0] < FAINT * far.std() else 0


def _depths(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _end(power: np.ndarray, k: int, was: float, rises: np.ndarray, will: np.ndarray, least: float) -> int | None:
    """The last quiet millisecond of a hole whose first is k, or None if it has no end or is too short or long."""
    share, last, previous = 10 ** (-least / 10), None, None
    for q in rises[np.searchsorted(rises, k + SHORTEST - 1) : np.searchsorted(rises, k + LONGEST)].tolist():
        if previous is not None and q > previous + 1:  # the first rise is over
            break
        previous = q
        if power[k : q + 1].max() < share * min(was, will[:, q].max()):
            last = q
    return last


def _uneven(power: np.ndarray) -> float:
    """power (K,) beside a hole, nearest first -> by how many dB what is nearest differs from what is beyond."""
    if len(power) <= BEFORE:
        return 0.0
    return abs(_db(float(power[:BEFORE].mean())) - _db(float(power[BEFORE : BEFORE + FAR].mean())))


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Where flags are True: the first of each run, and one past its last."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _db(power: float) -> float:
    return 10 * math.log10(power + EMPTY)


def level_class(power: np.ndarray | float) -> np.ndarray:
    """The number of the class of 1 dB in which a power lies."""
    return (10 * np.log10(power) - LOWEST_DB).astype(np.int64).clip(0, CLASSES - 1)


def level_below(counts: np.ndarray, share: float) -> float:
    """The level in dB that a share does not pass, from the counts of its classes."""
    total = counts.cumsum()
    return LOWEST_DB + float(np.searchsorted(total, share * total[-1])) + 0.5
