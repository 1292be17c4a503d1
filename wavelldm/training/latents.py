"""Latents of noisy and clean speech, encoded once and kept on disk: training then costs what the U-Net costs.

A cache is a folder of two memory-mapped arrays (count, D, T) of 16-bit floats, pair by pair, and `facts.json`. It is
named after everything that decides its content, so another codec, recipe or list of files makes another cache.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..codec.model import Codec
from ..data.clips import Clips
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..errors import DataError
from ..paths import data_home
from ..progress import progress_bar

BATCH = 16


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
        cut = lambda array: torch.from_numpy(
            np.stack([array[r, :, s : s + frames] for r, s in zip(rows, starts)]).astype(np.float32)
        )
        return cut(self.noisy), cut(self.clean)


def fingerprint(codec: Codec, items: list, recipe: Degradation, *rest) -> str:
    """A name for what the cache holds: the codec's weights, the files, the recipe, lengths, seed."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().half().numpy().tobytes())
    files = [[str(i.path), str(i.noisy), i.split] for i in items]
    digest.update(json.dumps([files, asdict(recipe), rest]).encode())
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
    rirs: Tensor | None = None,
    cache=None,
    progress: bool = True,
) -> Latents:
    """Encode `count` pairs of `seconds` (or map the cache that holds them). What was begun and not ended is made anew."""
    device = next(codec.parameters()).device
    codec = codec.eval()
    items = speech.items + (noise.items if noise else [])
    name = fingerprint(codec, items, recipe, count, seconds, seed, valid)
    folder = Path(cache or data_home() / "cache" / "latents") / name
    frames, dim = codec.frames(round(seconds * codec.sr)), codec.config.latent_dim
    if not (folder / "facts.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        needed = 4 * count * dim * frames
        if needed > (free := shutil.disk_usage(folder).free):
            raise DataError(
                f"the latents need {needed / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} are free; make room or ask for fewer"
            )
        arrays = [
            np.lib.format.open_memmap(folder / f"{part}.npy", "w+", np.float16, (count, dim, frames))
            for part in ("noisy", "clean")
        ]
        if valid:
            source = valid_pairs(speech, noise, recipe, codec.sr, seconds, BATCH, count, seed, rirs)
        else:
            source = batches(speech, noise, recipe, codec.sr, seconds, BATCH, seed, rirs=rirs)
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
        facts = {"pairs": done, "seconds": seconds, "mean": mean.tolist(), "deviation": deviation.tolist()}
        part = folder / "facts.json.part"
        part.write_text(json.dumps(facts))
        part.replace(folder / "facts.json")  # last: a cache with it is whole
    facts = json.loads((folder / "facts.json").read_text())
    noisy, clean = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("noisy", "clean"))
    return Latents(noisy, clean, torch.tensor(facts["mean"]), torch.tensor(facts["deviation"]))
