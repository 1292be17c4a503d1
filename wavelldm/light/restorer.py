"""A recording with its damage: gaps are filled window by window, and peaks that an overload took are put back.

What is made of a stretch depends on where it lies in the recording, not on how the sound was cut into blocks. The
network is a graph that `export` writes; `restore/restorer.py` does the same with PyTorch, and in several steps.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import WavelldmError
from .bend import straighten
from .blocks import Windows
from .clip import Declipper
from .find import Damage, find
from .gaps import HOP, SR, assemble, brought_to_length, interpolate, known_share, magnitude, stft, straight
from .noise import frame_noise
from .pitch import heard
from .run import SHIPPED, run_by_onnx

FILLER = "restore16k-filler.onnx"
KINDS = ("gaps", "clip")  # of damage that is found and repaired
CHUNK, AROUND = 128, 96  # frames: gaps that begin in one chunk are filled together, with so many frames on either side
LONGEST = 1.0  # seconds of a gap that can be filled
BLOCK, MARGIN = 512, 224  # frames worked on at a time, and looked at on either side: a chunk and what lies around it
FULL_SCALE = 1 - 2.0**-15  # the highest sample that 16 bits hold
DEEP = -7.0  # dB of speech against noise: below, every network that draws invents speech
RMS = 0.05  # level at which everything is seen
UNIT = np.float32(np.sqrt(384.0) * RMS)  # magnitude of a bin of white noise at that level


@dataclass(frozen=True)
class Repair:
    """What is repaired, and how."""

    steps: int = 1  # 0 draws straight lines across gaps, 1 takes what the network expects
    seed: int = 0
    kinds: tuple[str, ...] = KINDS
    bold: bool = False  # ask the network even where noise is louder than speech by 7 dB

    def __post_init__(self):
        if self.steps not in (0, 1):
            raise WavelldmError(f"{self.steps} steps need PyTorch; leave --backend onnx out, or take 0 steps or 1")
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown:
            raise WavelldmError(f"there is no kind of damage called '{unknown[0]}'; choose of {', '.join(KINDS)}")


class Filler:
    """The graph that knows what belongs into a gap."""

    def __init__(self, path: str | Path):
        self.session = run_by_onnx(path)
        try:
            self.facts = json.loads(self.session.get_modelmeta().custom_metadata_map["wavelldm"])
        except (KeyError, ValueError):
            self.facts = {}
        if self.facts.get("form") != "filler":
            raise WavelldmError(f"{path} does not fill gaps; write such a graph: wavelldm export restore16k-filler")
        self.size = {put.name: put.shape[1] for put in self.session.get_inputs()}["noise"]

    def __call__(self, **inputs: np.ndarray) -> np.ndarray:
        """Arrays (C, T) or (T,) by name -> logarithms of magnitudes (T, 513)."""
        return self.session.run(None, {name: x[None].astype(np.float32) for name, x in inputs.items()})[0][0].T


@lru_cache(maxsize=1)
def shipped() -> Filler:
    return Filler(SHIPPED / FILLER)


def on_lines(pitch: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Pitch (2, T), the first row octaves (-1: no voice) -> (2, T): octaves on straight lines wherever none is known,
    and voicing."""
    octaves, known = pitch[0], share >= 0.85
    voiced = ((octaves >= 0) & known).astype(np.float32)
    line = interpolate(octaves[:, None], voiced, 0.5)[:, 0] if voiced.any() else np.ones_like(octaves)
    voicing = interpolate((octaves >= 0).astype(np.float32)[:, None], known.astype(np.float32), 0.5)[:, 0]
    return np.stack([line, voicing])


def fill(wav: np.ndarray, gaps: np.ndarray, filler: Filler | None = None, seed: int = 0, first: int = 0) -> np.ndarray:
    """wav (N,) at 16 kHz, gaps (N,) -> wav (N,) with its gaps filled: with what the network expects, or without one
    with straight lines. `first`: number of its first frame in the recording."""
    wav = np.where(gaps, np.float32(0), wav)
    if filler is None:
        return assemble(wav, gaps, straight(wav, gaps))
    mean = np.square(wav).sum() / max(1, (~gaps).sum())
    gain = np.float32(RMS / np.sqrt(max(mean, 1e-10)))
    loud, share = wav * gain, known_share(gaps)
    size = filler(
        seen=brought_to_length(magnitude(stft(loud)) / UNIT, share).T,
        lines=straight(loud, gaps).T / UNIT,
        share=share,
        pitch=on_lines(heard(loud), share),
        noise=frame_noise(seed, first, len(share), filler.size).T,
    )
    return assemble(wav, gaps, np.exp(size) * UNIT / gain)


def wanted(damages: Sequence[Damage], kinds: Sequence[str]) -> tuple[Damage, ...]:
    """The same, without the kinds of damage that are not to be repaired."""
    if "gaps" not in kinds:
        damages = [replace(damage, gaps=()) for damage in damages]
    if "clip" not in kinds:
        damages = [replace(damage, ceiling=None, curve=None) for damage in damages]
    return tuple(damages)


def inside(gaps: Sequence[tuple[int, int]], first: int, count: int) -> np.ndarray:
    """Gaps as samples of a recording -> True where they lie in its `count` samples from `first` on (count,)."""
    mask = np.zeros(count, bool)
    for a, b in gaps:
        mask[max(0, a - first) : max(0, b - first)] = True
    return mask


def check_lengths(damages: Sequence[Damage], sr: int) -> None:
    """Refuse gaps that are longer than anything can be filled in sensibly."""
    for damage in damages:
        for a, b in damage.gaps or ():
            if b - a > LONGEST * sr:
                raise WavelldmError(
                    f"the gap from {a / sr:.2f} to {b / sr:.2f} s is longer than the {LONGEST:g} s that can be filled; "
                    "name a shorter one, or leave it"
                )


class Restorer:
    """Blocks of tracks (3, C, any) at 16 kHz: the cleaned sound, the gain of what lies above the band, and the sound as
    it came. Only the first changes. Each channel is repaired as if it were alone.

    `damages`: of each channel, in samples at 16 kHz. `steps`: 0 for straight lines across a gap, 1 for what the network
    expects there. Where noise is louder than speech by 7 dB, the network is not asked unless `bold`.
    """

    def __init__(self, damages: Sequence[Damage], steps: int = 1, seed: int = 0, bold: bool = False):
        check_lengths(damages, SR)
        self.damages, self.steps, self.seed, self.bold = damages, steps, seed, bold
        self.windows = Windows(HOP, MARGIN, BLOCK)
        self.done = 0  # frames

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""
        return self.windows.ready(counts)

    def push(self, tracks: np.ndarray, last: bool = False) -> np.ndarray:
        """The next block -> what is repaired by now, or with `last` all that is left."""
        windows = self.windows.push(tracks) + (self.windows.finish() if last else [])
        return np.concatenate([tracks[..., :0], *(self._repaired(*window) for window in windows)], axis=-1)

    def _repaired(self, window: np.ndarray, before: int, count: int) -> np.ndarray:
        """window (3, C, n) -> the samples of its `count` new frames."""
        cleaned, above, noisy = window
        first = self.done - before  # frame of the recording where the window begins
        rows = []
        for row, dirty, damage in zip(cleaned, noisy, self.damages):
            gaps = damage.gaps
            if gaps is None:
                gaps = moved(find(dirty[None], SR)[0], first * HOP).gaps
            rows.append(self._filled(row, dirty, gaps, first, before, count))
        self.done += count
        return np.stack([np.stack(rows), above, noisy])[..., before * HOP : (before + count) * HOP]

    def _filled(
        self,
        row: np.ndarray,
        dirty: np.ndarray,
        gaps: Sequence[tuple[int, int]],
        first: int,
        before: int,
        count: int,
    ) -> np.ndarray:
        """One channel (n,) of a window that begins at frame `first`, with those gaps filled that reach into its new
        frames."""
        mask = inside(gaps, first * HOP, len(row))
        if not mask.any():
            return row
        known, out = np.where(mask, np.float32(0), row), row.copy()
        start, end = first + before, first + before + count  # of the new frames
        for chunk in range(start // CHUNK - 1, -(-end // CHUNK)):
            mine = [
                (a - first * HOP, b - first * HOP) for a, b in gaps if chunk * CHUNK <= a // HOP < (chunk + 1) * CHUNK
            ]
            mine = [(a, b) for a, b in mine if a < len(row) and b > before * HOP]
            if not mine:
                continue
            left = max(0, chunk * CHUNK - AROUND - first)
            crop = slice(left * HOP, ((chunk + 1) * CHUNK + AROUND - first) * HOP)
            deep = not self.bold and speech_over_noise(known[crop][~mask[crop]], dirty[crop][~mask[crop]]) < DEEP
            filled = self.fill(known[crop], mask[crop], 0 if deep else self.steps, first + left)
            for a, b in mine:
                a = max(a, 0)
                out[a:b] = filled[a - left * HOP : b - left * HOP]
        return out

    def fill(self, wav: np.ndarray, mask: np.ndarray, steps: int, frame: int) -> np.ndarray:
        """wav (n,) from this frame of the recording on, with the gaps of the mask filled."""
        return fill(wav, mask, shipped() if steps else None, self.seed, frame)


class Peaks:
    """Blocks (C, any) at a recording's own rate, with the peaks that an overload took: curves are undone at once, what
    was cut off comes later."""

    def __init__(self, damages: Sequence[Damage], sr: int):
        self.curves = [damage.curve for damage in damages]
        low, high = np.array([damage.ceiling or (-np.inf, np.inf) for damage in damages], np.float32).T
        self.declipper = Declipper(low, high, sr) if any(damage.ceiling for damage in damages) else None

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""
        return counts if self.declipper is None else self.declipper.ready(counts)

    def push(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """The next block -> what is repaired by now, or with `last` all that is left."""
        block = straighten(block, self.curves) if any(self.curves) else block
        return block if self.declipper is None else self.declipper.push(block, last)


def headroom(blocks: Iterable[np.ndarray], damages: Sequence[Damage], sr: int) -> float:
    """wav blocks (C, any) -> by how much the sound has to be turned down so that its peaks, put back, stay below full
    scale: 1 or less."""
    peaks, most, empty = Peaks(damages, sr), 0.0, None
    for block in blocks:
        empty = block[:, :0]
        most = max(most, np.abs(peaks.push(block)).max(initial=0.0))
    if empty is not None:
        most = max(most, np.abs(peaks.push(empty, last=True)).max(initial=0.0))
    return float(min(1.0, FULL_SCALE / most)) if most > 0 else 1.0


def speech_over_noise(cleaned: np.ndarray, noisy: np.ndarray) -> float:
    """dB of what a denoiser kept over what it took away, both (n,)."""
    kept, taken = np.square(cleaned).sum(), np.square(noisy - cleaned).sum()
    return float(10 * np.log10((kept + 1e-12) / (taken + 1e-12)))


def moved(damage: Damage, samples: int) -> Damage:
    """The same, in a recording that begins so many samples earlier."""
    return replace(damage, gaps=tuple((a + samples, b + samples) for a, b in damage.gaps))


def at_rate(damage: Damage, sr: int, other: int) -> Damage:
    """The same with gaps in samples at another rate: the smallest stretches that cover them."""
    if damage.gaps is None:
        return damage
    return replace(damage, gaps=tuple((a * other // sr, -(-b * other // sr)) for a, b in damage.gaps))
