"""A recording with its damage: gaps are filled window by window, and peaks that an overload took are put back.

What is made of a stretch depends on where it lies in the recording, not on how the sound was cut into blocks.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .. import weights
from ..audio.blocks import Windows
from ..diffusion.samplers import FrameNoise
from ..errors import WavelldmError
from .bend import straighten
from .clip import Declipper
from .filler import Filler, fill
from .find import Damage, find
from .gaps import HOP, SR
from .latent import SpeechLatent

KINDS = ("gaps", "clip")  # of damage that is found and repaired
CHUNK, AROUND = 128, 96  # frames: gaps that begin in one chunk are filled together, with so many frames on either side
LONGEST = 1.0  # seconds of a gap that can be filled
BLOCK, MARGIN = 512, 224  # frames worked on at a time, and looked at on either side: a chunk and what lies around it
FULL_SCALE = 1 - 2.0**-15  # the highest sample that 16 bits hold
DEEP = -7.0  # dB of speech against noise: below, every network that draws invents speech


@lru_cache(maxsize=2)
def networks(device: torch.device) -> tuple[SpeechLatent, Filler]:
    """The latent and the filler that ship."""
    filler = weights.load("restore16k-filler", Filler, device)
    return weights.load(weights.needed("restore16k-filler", "latent"), SpeechLatent, device), filler


def wanted(damages: Sequence[Damage], kinds: Sequence[str]) -> tuple[Damage, ...]:
    """The same, without the kinds of damage that are not to be repaired."""
    if "gaps" not in kinds:
        damages = [replace(damage, gaps=()) for damage in damages]
    if "clip" not in kinds:
        damages = [replace(damage, ceiling=None, curve=None) for damage in damages]
    return tuple(damages)


def as_mask(gaps: Sequence[tuple[int, int]], first: int, count: int) -> Tensor:
    """Gaps as samples of a recording -> True where they lie in its `count` samples from `first` on (count,)."""
    mask = torch.zeros(count, dtype=torch.bool)
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
    expects there, more for a draw. Where noise is louder than speech by 7 dB, nothing is drawn unless `bold`.
    """

    def __init__(
        self,
        damages: Sequence[Damage],
        steps: int = 1,
        seed: int = 0,
        bold: bool = False,
        device: torch.device | str = "cpu",
        networks: Callable[[torch.device], tuple[SpeechLatent, Filler]] = networks,
    ):
        check_lengths(damages, SR)
        self.damages, self.steps, self.seed, self.bold = damages, steps, seed, bold
        self.device, self.networks = torch.device(device), networks
        self.windows = Windows(HOP, MARGIN, BLOCK)
        self.done = 0  # frames

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""
        return self.windows.ready(counts)

    def push(self, tracks: Tensor, last: bool = False) -> Tensor:
        """The next block -> what is repaired by now, or with `last` all that is left."""
        windows = self.windows.push(tracks) + (self.windows.finish() if last else [])
        return torch.cat([tracks[..., :0], *(self._repaired(*window) for window in windows)], dim=-1)

    @torch.no_grad()
    def _repaired(self, window: Tensor, before: int, count: int) -> Tensor:
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
        return torch.stack([torch.stack(rows), above, noisy])[..., before * HOP : (before + count) * HOP]

    def _filled(
        self, row: Tensor, dirty: Tensor, gaps: Sequence[tuple[int, int]], first: int, before: int, count: int
    ) -> Tensor:
        """One channel (n,) of a window that begins at frame `first`, with those gaps filled that reach into its new
        frames."""
        mask = as_mask(gaps, first * HOP, len(row)).to(row.device)
        if not mask.any():
            return row
        known, out = torch.where(mask, 0.0, row), row.clone()
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
            filled = self._fill(known[crop], dirty[crop], mask[crop], first + left)
            for a, b in mine:
                a = max(a, 0)
                out[a:b] = filled[a - left * HOP : b - left * HOP]
        return out

    def _fill(self, wav: Tensor, dirty: Tensor, mask: Tensor, frame: int) -> Tensor:
        steps = self.steps
        if not self.bold and speech_over_noise(wav[~mask], dirty[~mask]) < DEEP:
            steps = 0
        latent, filler = self.networks(self.device) if steps else (None, None)
        noise = FrameNoise(self.seed, frame, shared=True)
        return fill(latent, filler, wav[None], mask[None], steps, noise=noise)[0]


class Peaks:
    """Blocks (C, any) at a recording's own rate, with the peaks that an overload took: curves are undone at once, what
    was cut off comes later."""

    def __init__(self, damages: Sequence[Damage], sr: int):
        self.curves = [damage.curve for damage in damages]
        ends = [damage.ceiling or (-torch.inf, torch.inf) for damage in damages]
        low, high = torch.tensor(ends, dtype=torch.float32).T
        self.declipper = Declipper(low, high, sr) if any(damage.ceiling for damage in damages) else None

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""
        return counts if self.declipper is None else self.declipper.ready(counts)

    def push(self, block: Tensor, last: bool = False) -> Tensor:
        """The next block -> what is repaired by now, or with `last` all that is left."""
        block = straighten(block, self.curves)
        return block if self.declipper is None else self.declipper.push(block, last)


def headroom(blocks: Iterable[Tensor], damages: Sequence[Damage], sr: int) -> float:
    """wav blocks (C, any) -> by how much the sound has to be turned down so that its peaks, put back, stay below full
    scale: 1 or less."""
    peaks, most, empty = Peaks(damages, sr), 0.0, None
    for block in blocks:
        empty = block[:, :0]
        most = max(most, _highest(peaks.push(block)))
    if empty is not None:
        most = max(most, _highest(peaks.push(empty, last=True)))
    return min(1.0, FULL_SCALE / most) if most > 0 else 1.0


def _highest(wav: Tensor) -> float:
    return float(wav.abs().max()) if wav.numel() else 0.0


def speech_over_noise(cleaned: Tensor, noisy: Tensor) -> float:
    """dB of what a denoiser kept over what it took away, both (n,)."""
    kept, taken = cleaned.square().sum(), (noisy - cleaned).square().sum()
    return float(10 * ((kept + 1e-12) / (taken + 1e-12)).log10())


def moved(damage: Damage, samples: int) -> Damage:
    """The same, in a recording that begins so many samples earlier."""
    return replace(damage, gaps=tuple((a + samples, b + samples) for a, b in damage.gaps))


def at_rate(damage: Damage, sr: int, other: int) -> Damage:
    """The same with gaps in samples at another rate: the smallest stretches that cover them."""
    if damage.gaps is None:
        return damage
    return replace(damage, gaps=tuple((a * other // sr, -(-b * other // sr)) for a, b in damage.gaps))
