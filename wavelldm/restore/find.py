"""What is damaged in a recording: stretches that were lost, a missing band, samples cut off at a ceiling.

`Finder` takes a recording in blocks of any size, in constant memory; `find` a whole one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import AudioError
from .bend import Curve

SHORTEST, LONGEST = 0.02, 0.6  # seconds of digital silence that count as lost; longer ones are pauses
DUST = 2.0**-14  # what is left after rounding to 16 bits
EDGE_DB = 25.0  # how far the spectrum falls at the edge of a missing band
BESIDE, LOUD_DB = 0.005, -25.0  # seconds beside a gap that must hold sound, no quieter than this against the whole


@dataclass(frozen=True)
class Damage:
    """Of one channel."""

    # samples, the first and one past the last; None: nobody has looked yet
    gaps: tuple[tuple[int, int], ...] | None = ()
    cutoff: float | None = None  # Hz above which a band is missing
    ceiling: tuple[float, float] | None = None  # the lowest and highest value, at which samples were cut off
    curve: Curve | None = None  # what bent the peaks, where an overload was soft


def find_gaps(wav: Tensor, sr: int) -> Tensor:
    """wav (C, N) -> (C, N), True in runs of digital silence of 20 to 600 ms that begin and end abruptly, amid sound."""
    silent, beside = wav.abs() <= DUST, round(BESIDE * sr)
    gaps, loud = torch.zeros_like(silent), 10 ** (LOUD_DB / 10) * wav.square().mean(1)
    for sound, row, out, least in zip(wav, silent, gaps, loud):
        edges = torch.diff(row.int(), prepend=row.new_zeros(1).int(), append=row.new_zeros(1).int())
        starts, ends = (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]
        for a, b in zip(starts.tolist(), ends.tolist()):
            if a < beside or b + beside > len(row) or not SHORTEST * sr <= b - a <= LONGEST * sr:
                continue
            if min(sound[a - beside : a].square().mean(), sound[b : b + beside].square().mean()) > least:
                out[a:b] = True
    return gaps


def find_cutoff(power: Tensor, sr: int) -> float | None:
    """Mean power per bin (bins,), 0 to sr / 2 -> the frequency above which a whole band is missing, or None."""
    level = 10 * (power + 1e-12).log10()
    hz = torch.linspace(0, sr / 2, len(level), device=power.device)
    best = None
    for edge in range(1_500, 7_100, 100):
        below = level[(hz > edge - 600) & (hz < edge - 100)]
        above = level[(hz > edge + 150) & (hz < 0.98 * min(8_000, sr / 2))]
        if len(above) and below.mean() - above.max() > EDGE_DB and below.mean() > level.max() - 60:
            best = float(edge)  # the highest such edge
    return best


def find(wav: Tensor, sr: int) -> tuple[Damage, ...]:
    """wav (C, N) -> the damage of each channel."""
    found = []
    for row in find_gaps(wav, sr):
        edges = torch.diff(row.int(), prepend=row.new_zeros(1).int(), append=row.new_zeros(1).int())
        pairs = zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist())
        found.append(Damage(tuple(pairs)))
    return tuple(found)


class Finder:
    """`find` for a recording that comes in blocks."""

    def __init__(self, sr: int):
        self.sr, self.blocks = sr, []

    def push(self, block: Tensor) -> None:
        self.blocks.append(block)

    def finish(self) -> tuple[Damage, ...]:
        return find(torch.cat(self.blocks, 1), self.sr)


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
