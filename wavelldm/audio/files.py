"""Recordings as tensors: sound files in and out, sample formats, rates. `light/files.py` does the reading and writing.

Shapes: a file is `wav (C, N)`, float32 in [-1, 1]; `wav[:, None]` is the `(B, 1, N)` that the networks take.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from ..errors import AudioError
from ..light import files
from ..light.files import SUFFIXES, AudioInfo, check_rate, info, keeps_peaks, sound_files, writing

__all__ = ["SUFFIXES", "AudioInfo", "as_float", "check_rate", "fit", "info", "keeps_peaks", "load", "read_blocks"]
__all__ += ["resample", "save", "save_blocks", "sound_files", "writing"]


def as_float(wav: Tensor | np.ndarray) -> Tensor:
    """Samples as floating point: int16, int32 and uint8 are divided by their full scale, floats stay as they are."""
    wav = torch.as_tensor(wav)
    if wav.is_floating_point():
        return wav
    if wav.dtype == torch.uint8:
        return (wav.float() - 128) / 128
    if wav.dtype in (torch.int16, torch.int32):
        return (wav.double() / -torch.iinfo(wav.dtype).min).float()
    raise AudioError(
        f"samples are floats between -1 and 1, or int16, int32 or uint8, not {str(wav.dtype).removeprefix('torch.')}"
    )


def resample(wav: Tensor, sr_in: int, sr_out: int) -> Tensor:
    """(..., N) -> (..., ceil(N * sr_out / sr_in)), band-limited (soxr, high quality)."""
    if sr_in <= 0 or sr_out <= 0 or int(sr_in) != sr_in or int(sr_out) != sr_out:
        raise AudioError(f"sample rates are whole numbers above 0, not {sr_in} and {sr_out}")
    wav, sr_in, sr_out = as_float(wav), int(sr_in), int(sr_out)
    if sr_in == sr_out:
        return wav
    n = math.ceil(wav.shape[-1] * sr_out / sr_in)
    wide = wav.dtype if wav.dtype == torch.float64 else torch.float32
    flat = wav.detach().reshape(-1, wav.shape[-1]).cpu().to(wide).numpy()  # (rows, N)
    rows = [soxr.resample(row, sr_in, sr_out) for row in flat]
    out = fit(torch.from_numpy(np.stack(rows)), n)
    return out.reshape(*wav.shape[:-1], n).to(wav.device, wav.dtype)


def fit(wav: Tensor, n: int) -> Tensor:
    """Crop or zero-pad the end, so that exactly n samples remain: (..., N) -> (..., n)."""
    have = wav.shape[-1]
    return wav[..., :n] if have >= n else torch.nn.functional.pad(wav, (0, n - have))


def load(
    path: str | Path, sr: int | None = None, mono: bool = False, start: float = 0.0, seconds: float | None = None
) -> tuple[Tensor, int]:
    """Read a sound file -> wav (C, N) float32 and its rate, resampled to `sr` if that is given."""
    data, rate = files.load(path, start, seconds)
    wav = torch.from_numpy(data.mean(axis=0, keepdims=True) if mono else data)
    return (wav, rate) if sr is None else (resample(wav, rate, sr), int(sr))


def read_blocks(path: str | Path, seconds: float = 30.0) -> Iterator[Tensor]:
    """Yield wav blocks (C, n) of a file of any length, in constant memory, see light/files.py."""
    return map(torch.from_numpy, files.read_blocks(path, seconds))


def save(path: str | Path, wav: Tensor, sr: int, like: AudioInfo | None = None, force: bool = False) -> Path:
    """Write wav (N,) or (C, N). Samples beyond full scale are clamped in integer and lossy formats, kept in float
    ones.
    """
    save_blocks(path, [wav], sr, like, force)
    return Path(path)


def save_blocks(
    path: str | Path, blocks: Iterable[Tensor], sr: int, like: AudioInfo | None = None, force: bool = False
) -> int:
    """Write wav blocks (C, n) as one file, whole or not at all; returns the samples per channel written."""
    arrays = (as_float(block.detach().cpu()).float().numpy() for block in blocks)
    return files.save_blocks(path, arrays, sr, like, force)
