"""Latents of noisy and clean speech, encoded once and kept on disk: training then costs what the U-Net costs.

A cache is a folder of two memory-mapped arrays (count, D, T) of 16-bit floats, pair by pair, and `facts.json`. Its name
is a hash of everything that decides its content, so another codec, recipe, room or file makes another cache.
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..codec.model import Codec
from ..config import to_dict
from ..data.clips import Clips
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..errors import DataError
from ..paths import data_home
from ..progress import progress_bar

BATCH = 16  # clips that are encoded at a time
VERSION = 2  # of how the latents are made and kept


@dataclass(frozen=True)
class Latents:
    """noisy, clean (count, D, T) of one split; mean and deviation (D,) of the clean ones."""

    noisy: np.ndarray
    clean: np.ndarray
    mean: Tensor
    deviation: Tensor

    def batch(self, step: int, size: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Crops noisy, clean (size, D, frames), from (seed, step) alone."""
        rng = np.random.default_rng([seed, step])
        rows = rng.integers(len(self.clean), size=size)
        starts = rng.integers(self.clean.shape[2] - frames + 1, size=size)
        noisy, clean = (
            np.stack([array[r, :, s : s + frames] for r, s in zip(rows, starts)]).astype(np.float32)
            for array in (self.noisy, self.clean)
        )
        return torch.from_numpy(noisy), torch.from_numpy(clean)


def fingerprint(
    codec: Codec, speech: Clips, noise: Clips | None, recipe: Degradation, rooms: Tensor | None, *settings
) -> str:
    """A name for what a cache holds, made of all that decides it: the codec, the sounds, the recipe, the rooms, the
    settings.

    The sounds count by what `Clips` calls them: the full paths, sizes and dates of the files, and the rate.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    if rooms is not None:
        digest.update(rooms.cpu().float().numpy().tobytes())
    sounds = [clips.path.name for clips in (speech, noise) if clips is not None]
    facts = [VERSION, BATCH, to_dict(codec.config), sounds, asdict(recipe), *settings]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:16]


@torch.no_grad()
def build(
    codec: Codec,
    speech: Clips,
    noise: Clips | None,
    recipe: Degradation,
    count: int,
    seconds: float = 4.0,
    seed: int = 0,
    valid: bool = False,
    rooms: Tensor | None = None,
    workers: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Latents:
    """Encode `count` pairs of `seconds`, or map the cache that holds them. A cache that was not finished is made anew.

    `workers`: processes that load the sound while it is encoded.
    """
    codec = codec.eval()
    name = fingerprint(codec, speech, noise, recipe, rooms, count, seconds, seed, valid)
    folder = Path(cache or data_home() / "cache" / "latents") / name
    if not (folder / "facts.json").exists():
        shape = count, codec.config.latent_dim, codec.frames(round(seconds * codec.sr))
        check_room(folder.parent, 4 * math.prod(shape))
        if valid:
            source = valid_pairs(speech, noise, recipe, codec.sr, seconds, BATCH, count, seed, rooms)
        else:
            source = batches(speech, noise, recipe, codec.sr, seconds, BATCH, seed, workers, rirs=rooms)
        part = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder.parent))
        try:
            encode(codec, source, part, shape, progress)
            if not (folder / "facts.json").exists():  # or another run was faster
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    facts = json.loads((folder / "facts.json").read_text())
    noisy, clean = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("noisy", "clean"))
    return Latents(noisy, clean, torch.tensor(facts["mean"]), torch.tensor(facts["deviation"]))


def check_room(folder: Path, needed: int) -> None:
    """Refuse to write more bytes to a folder than there is room for."""
    folder.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(folder).free):
        raise DataError(
            f"the latents need {needed / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} are free; make room, or ask for "
            "fewer hours"
        )


def encode(codec: Codec, source: Iterable, folder: Path, shape: tuple[int, int, int], progress: bool) -> None:
    """Write noisy.npy, clean.npy (count, D, T) and facts.json: what the codec makes of the pairs of `source`."""
    device, (count, dim, frames) = next(codec.parameters()).device, shape
    arrays = [np.lib.format.open_memmap(folder / f"{part}.npy", "w+", np.float16, shape) for part in ("noisy", "clean")]
    total, squares, done = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64), 0
    with progress_bar(show=progress, total=count, desc="latents", unit="pair") as bar:
        for pair in source:
            for array, wav in zip(arrays, pair):
                z = codec.encode(wav.to(device), codec.sr).cpu()[: count - done]  # (B, D, T)
                array[done : done + len(z)] = z.half().numpy()
            total += z.double().sum((0, 2))
            squares += z.double().square().sum((0, 2))
            done += len(z)
            bar.update(len(z))
            if done >= count:
                break
    for array in arrays:
        array.flush()
    mean = total / (done * frames)
    deviation = (squares / (done * frames) - mean**2).clamp_min(1e-8).sqrt()
    facts = {"pairs": done, "mean": mean.tolist(), "deviation": deviation.tolist()}
    (folder / "facts.json").write_text(json.dumps(facts))
