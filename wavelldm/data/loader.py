"""Batches of (noisy, clean) crops for training, from a loader that can be resumed at any step.

`batches` decodes the files once (see `clips`) and draws crops from them without end. The batch of step k depends on
(seed, k) alone: not on the number of workers, nor on the step at which the run was started.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError
from .clips import Clips
from .corpora import Item
from .degrade import RING, SPEEDS, TILT, Degradation, degrade, vary


class Crops(Dataset):
    """crops[k]: clean (1, n) and noise (1, n); depends on (seed, k) alone. For a recorded pair, noise = noisy -
    clean. `varied`: share of the speech that is varied (`degrade.vary`).
    """

    def __init__(
        self,
        speech: Clips,
        noise: Clips | None,
        seconds: float,
        seed: int,
        in_order: bool = False,
        varied: float = 0.0,
    ):
        self.speech, self.noise, self.n, self.seed = speech, noise, round(seconds * speech.sr), seed
        self.varied = varied
        self.in_order = in_order  # crop k starts in file k instead of a random one; silent files are skipped

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, k])
        first = None
        if self.in_order:
            first = int(self.speech.audible[k % len(self.speech.audible)])
        if self.varied and rng.random() < self.varied:
            speech = self._varied(rng, first)
        else:
            speech = self.speech.crop(self.n, rng, first)  # (C, n)
        clean = speech[:1]
        if len(speech) == 2:
            return clean, speech[1:] - clean
        return clean, torch.zeros_like(clean) if self.noise is None else self.noise.crop(self.n, rng, loop=True)

    def _varied(self, rng: np.random.Generator, first: int | None) -> Tensor:
        """A crop (C, n) of a voice at another speed and through another microphone."""
        count = self.n + 2 * RING
        speed = np.exp(rng.uniform(*np.log(SPEEDS)))
        tilt = torch.from_numpy(rng.uniform(-TILT, TILT, 4).astype(np.float32))
        return vary(self.speech.crop(round(count * speed), rng, first), count, tilt)[:, RING:-RING]


class _Steps(Dataset):
    """steps[k]: the k-th batch of noisy, clean (B, 1, n), or the share (i, W) of it: items i, i + W, ..."""

    def __init__(
        self, crops: Crops, recipe: Degradation, batch: int, rirs: Tensor | None, share: tuple[int, int] = (0, 1)
    ):
        if batch % share[1]:
            raise DataError(f"a batch of {batch} cannot be read in {share[1]} equal shares; change its size")
        self.crops, self.recipe, self.batch, self.rirs, self.share = crops, recipe, batch, rirs, share

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        drawn = [self.crops[step * self.batch + b] for b in range(self.batch)[self.share[0] :: self.share[1]]]
        clean, noise = (torch.stack(part) for part in zip(*drawn, strict=True))  # (B, 1, n)
        seed = np.random.SeedSequence([self.crops.seed, step, 1]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        return degrade(clean, noise, self.recipe, self.crops.speech.sr, generator, self.rirs, self.share)


def _sources(
    speech: Clips | Sequence[Item], noise: Clips | Sequence[Item] | None, recipe: Degradation, sr: int
) -> tuple[Clips, Clips | None]:
    speech, noise = (x if x is None or isinstance(x, Clips) else Clips(x, sr) for x in (speech, noise))
    if any(clips is not None and clips.sr != sr for clips in (speech, noise)):
        raise DataError(f"the clips were decoded at another rate than {sr} Hz; make them at that rate")
    if recipe.noise > 0 and noise is None and speech.channels == 1:
        raise DataError("this recipe adds noise and there is none; give noise files, or a recipe with noise=0")
    return speech, noise


def batches(
    speech: Clips | Sequence[Item],
    noise: Clips | Sequence[Item] | None,
    recipe: Degradation,
    sr: int,
    seconds: float,
    batch: int,
    seed: int = 0,
    workers: int = 0,
    start: int = 0,
    rirs: Tensor | None = None,
    share: tuple[int, int] = (0, 1),
    varied: float = 0.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield training batches noisy, clean (B, 1, N) without end, from step `start` on.

    speech and noise are lists of items, or `Clips`. Recorded pairs need no noise: a recipe with snr=None keeps theirs.
    `rirs` (K, R) are measured room responses for the recipe's reverberation. Held-out items are refused.
    `share` (i, W): items i, i + W, ... of each batch alone are read, for one of W processes that train together.
    `varied`: share of the speech that is played at another speed and through another microphone.
    """
    speech, noise = _sources(speech, noise, recipe, sr)
    items = speech.items + (noise.items if noise else [])
    held = [item.path for item in items if item.split != "train"]
    if held:
        raise DataError(f"{held[0]} is held out and not for training ({len(held)} in all); read the 'train' split")
    steps = _Steps(Crops(speech, noise, seconds, seed, varied=varied), recipe, batch, rirs, share)
    own = torch.Generator().manual_seed(seed)  # else the loader would draw from the global generator
    yield from DataLoader(steps, batch_size=None, sampler=range(start, 1 << 60), num_workers=workers, generator=own)


def valid_pairs(
    speech: Clips | Sequence[Item],
    noise: Clips | Sequence[Item] | None,
    recipe: Degradation,
    sr: int,
    seconds: float,
    batch: int,
    count: int | None = None,
    seed: int = 0,
    rirs: Tensor | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Held-out crops, one per speech file or `count`, always the same -> batches noisy, clean (B, 1, N).

    Each crop is degraded on its own, so the pairs do not depend on the size of the batch. Training items are refused.
    """
    speech, noise = _sources(speech, noise, recipe, sr)
    leaked = next((item.path for item in speech.items if item.split == "train"), None)
    if leaked:
        raise DataError(f"{leaked} is for training; validate on another split, or set files aside with hold_out")
    single = _Steps(Crops(speech, noise, seconds, seed, in_order=True), recipe, 1, rirs)
    pairs = [single[k] for k in range(len(speech.audible) if count is None else count)]
    groups = [pairs[i : i + batch] for i in range(0, len(pairs), batch)]
    return [tuple(torch.cat(part) for part in zip(*group, strict=True)) for group in groups]
