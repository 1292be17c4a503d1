"""Sound in and out: any format libsndfile reads, any rate, any channels; written whole or not at all.

Shapes: a file is `wav (C, N)`, float32 in [-1, 1]; `wav[:, None]` is the `(B, 1, N)` the networks take.
"""

import errno
import math
import os
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch
from torch import Tensor

from ..errors import AudioError

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".au")


@dataclass(frozen=True)
class AudioInfo:
    """What the file says of itself; `save(..., like=info)` writes the same kind of file again."""

    sr: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sr


@contextmanager
def _reading(path):
    """Open a sound file; whatever goes wrong becomes one sentence."""
    path = Path(path)
    if path.is_dir():
        raise AudioError(f"{path} is a folder; name a sound file")
    if not path.exists():
        raise AudioError(f"{path} does not exist; check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes); copy or record it again")
    try:
        with sf.SoundFile(path) as file:
            yield file
    except sf.LibsndfileError as error:
        raise AudioError(
            f"{path} cannot be read as sound ({error.error_string.strip().rstrip('.')}); "
            "it may be cut short, damaged or not audio: convert it to wav or flac"
        ) from None
    except PermissionError:
        raise AudioError(f"{path} cannot be opened; check its permissions") from None


def info(path) -> AudioInfo:
    with _reading(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.format, file.subtype)


def _check(block: np.ndarray, path, start: int, sr: int) -> np.ndarray:
    bad = ~np.isfinite(block).all(axis=1)
    if bad.any():
        at = (start + int(bad.argmax())) / sr
        raise AudioError(
            f"{path} holds {int(bad.sum())} NaN or infinite samples, the first at {at:.3f} s; repair it first"
        )
    return block


def load(path, sr: int | None = None, mono: bool = False, start: float = 0.0, seconds: float | None = None):
    """Read a sound file -> wav (C, N) float32 and its rate, resampled to `sr` if that is given."""
    with _reading(path) as file:
        rate, declared = file.samplerate, file.frames
        first = int(round(start * rate))
        if first:
            file.seek(min(first, declared))
        count = -1 if seconds is None else max(0, int(round(seconds * rate)))
        data = file.read(count, dtype="float32", always_2d=True)  # (N, C)
    if len(data) == 0:
        raise AudioError(
            f"{path} holds no samples{f' from {start:g} s on' if first else ''}; there is nothing to hear in it"
        )
    if seconds is None and len(data) < declared - first:
        raise AudioError(
            f"{path} is cut short: it promises {declared / rate:.2f} s and holds {(first + len(data)) / rate:.2f} s; copy it again"
        )
    _check(data, path, first, rate)
    if mono:
        data = data.mean(axis=1, keepdims=True)
    wav = torch.from_numpy(np.ascontiguousarray(data.T))  # (C, N)
    return (wav, rate) if sr is None else (resample(wav, rate, sr), sr)


def resample(wav: Tensor, sr_in: int, sr_out: int) -> Tensor:
    """(..., N) -> (..., ceil(N * sr_out / sr_in)), band-limited (soxr, high quality); a number of samples one can rely on."""
    if sr_in <= 0 or sr_out <= 0:
        raise AudioError(f"sample rates are positive numbers, not {sr_in} and {sr_out}")
    if sr_in == sr_out:
        return wav
    n = math.ceil(wav.shape[-1] * sr_out / sr_in)
    flat = wav.reshape(-1, wav.shape[-1]).cpu().numpy()  # (rows, N)
    rows = [soxr.resample(row, sr_in, sr_out) for row in flat]
    out = fit(torch.from_numpy(np.stack(rows)), n)
    return out.reshape(*wav.shape[:-1], n).to(wav.device, wav.dtype)


def fit(wav: Tensor, n: int) -> Tensor:
    """Crop or zero-pad the end, so that exactly n samples remain: (..., N) -> (..., n)."""
    have = wav.shape[-1]
    return wav[..., :n] if have >= n else torch.nn.functional.pad(wav, (0, n - have))


def read_blocks(path, seconds: float = 30.0, sr: int | None = None):
    """Yield wav blocks (C, n) of a file of any length, resampled without seams, in constant memory."""
    with _reading(path) as file:
        rate = file.samplerate
        stream = None if sr in (None, rate) else soxr.ResampleStream(rate, sr, file.channels, dtype="float32")
        size, start = max(1, int(seconds * rate)), 0
        while True:
            data = file.read(size, dtype="float32", always_2d=True)  # (n, C)
            last = len(data) < size
            _check(data, path, start, rate)
            start += len(data)
            if stream is not None:
                data = stream.resample_chunk(data, last=last)
            if len(data):
                yield torch.from_numpy(np.ascontiguousarray(data.T))  # (C, n)
            if last:
                break
        if start == 0:
            raise AudioError(f"{path} holds no samples; there is nothing to hear in it")


def _kind(path: Path, sr: int, like: AudioInfo | None) -> tuple[str, str]:
    """The libsndfile format and subtype for a path: that of `like` where the suffix allows it."""
    suffix = path.suffix.lower()
    fmt, subtype = {".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS"), ".aif": ("AIFF", "PCM_16")}.get(
        suffix, (suffix[1:].upper(), None)
    )
    if suffix not in SUFFIXES or fmt not in sf.available_formats():
        raise AudioError(f"cannot write '{suffix or path.name}' files; use one of {', '.join(SUFFIXES)}")
    if like is not None and suffix != ".opus" and sf.check_format(fmt, like.subtype):
        subtype = like.subtype
    subtype = subtype or sf.default_subtype(fmt)
    if subtype == "OPUS" and sr not in OPUS_RATES:
        raise AudioError(
            f"Opus knows the rates {', '.join(map(str, OPUS_RATES))} Hz, not {sr}; write wav or flac instead"
        )
    return fmt, subtype


@contextmanager
def writing(path, force: bool = False):
    """A temporary path beside `path` that takes its place at the end, whole; on any error nothing changes."""
    path = Path(path)
    if path.exists() and not force:
        raise AudioError(f"{path} exists; choose another name or pass --force to overwrite it")
    if path.is_dir():
        raise AudioError(f"{path} is a folder; name a file to write")
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=path.suffix)
        os.close(handle)
        yield Path(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)  # mkstemp makes it private
        if force:
            os.replace(part, path)
        else:
            try:
                os.link(part, path)  # unlike replace, refuses if somebody wrote it meanwhile
            except FileExistsError:
                raise AudioError(f"{path} appeared while it was being made; pass --force to overwrite it") from None
            except OSError:  # a file system without links
                os.replace(part, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        raise AudioError(
            f"{path} could not be written ({'the disk is full' if full else error.strerror}); nothing was changed"
        ) from None
    finally:
        if part is not None:
            with suppress(FileNotFoundError):
                os.unlink(part)


def save(path, wav: Tensor, sr: int, like: AudioInfo | None = None, force: bool = False) -> Path:
    """Write wav (N,) or (C, N). Samples beyond full scale are clamped in integer and lossy formats, kept in float ones."""
    save_blocks(path, [wav], sr, like, force)
    return Path(path)


def save_blocks(path, blocks, sr: int, like: AudioInfo | None = None, force: bool = False) -> int:
    """Write an iterable of wav blocks (C, n) as one file, atomically; returns the samples per channel written."""
    path = Path(path)
    fmt, subtype = _kind(path, sr, like)
    with writing(path, force) as part:
        frames, file = 0, None
        try:
            for block in blocks:
                data = np.atleast_2d(block.detach().cpu().float().numpy()).T  # (n, C)
                _check(data, path, frames, sr)
                if subtype not in ("FLOAT", "DOUBLE"):
                    data = np.clip(data, -1.0, 1.0)
                if file is None:
                    file = sf.SoundFile(part, "w", sr, data.shape[1], subtype, format=fmt)
                for i in range(0, len(data), 1 << 16):  # libsndfile's Vorbis encoder fails on very long writes
                    file.write(data[i : i + (1 << 16)])
                frames += len(data)
        except sf.LibsndfileError as error:
            raise AudioError(
                f"{path} could not be written ({error.error_string.strip().rstrip('.')}); nothing was changed"
            ) from None
        finally:
            if file is not None:
                file.close()
        if frames == 0:
            raise AudioError(f"there are no samples to write to {path}")
        with _reading(part) as written:  # a full disk is not always reported by the writer
            if written.frames < frames:
                raise AudioError(f"{path} could not be written whole (is the disk full?); nothing was changed")
    return frames
