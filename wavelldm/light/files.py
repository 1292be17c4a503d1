"""Sound files in and out: every format that libsndfile reads, any rate, any number of channels; written whole or not
at all.

A file is an array (C, N), float32 in [-1, 1]. `audio/files.py` is the same with tensors.
A file that is cut short is read as far as it goes, and one warning (logger "wavelldm", so standard error) says so.
"""

import errno
import functools
import logging
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from ..errors import AudioError, DataError

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".au")
MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz; a header that says anything else is damaged
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
WAV_FAMILY = ("WAV", "WAVEX", "RF64")  # three headers that a .wav file may have
WAV_LIMIT = 2**32 - 2**20  # bytes; a WAV header counts in 32 bits, longer files need RF64 (EBU Tech 3306)
UNKNOWN_LENGTH = 2**62  # libsndfile's frame count is above this if the header does not say (FLAC from a pipe)
FLOATS = ("FLOAT", "DOUBLE")  # sample formats that go beyond full scale
SLACK = 0.05  # seconds that a file may be shorter than its header says before that is worth a warning
MOST = 1 << 22  # samples of all channels in a block of more than a second: 10 s of 8 channels at 48 kHz
PIECE = 1 << 16  # frames read or written at once; libsndfile's Vorbis encoder fails on very long writes

logger = logging.getLogger("wavelldm")


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


def check_rate(sr: float, what: str = "this recording") -> int:
    """A sample rate as a whole number, or an error if no recording has such a rate."""
    if int(sr) != sr or not MIN_RATE <= sr <= MAX_RATE:
        raise AudioError(f"{what} has a sample rate of {sr:g} Hz; rates from {MIN_RATE} to {MAX_RATE} Hz can be used")
    return int(sr)


# --- reading


class _SoundFile(sf.SoundFile):
    """Read straight on: soundfile seeks after every block, which a FLAC file that is cut short does not survive."""

    def seekable(self) -> bool:
        return False


@contextmanager
def _reading(path: str | Path) -> Iterator[sf.SoundFile]:
    """Open a sound file; whatever goes wrong becomes one sentence."""
    path = Path(path)
    if path.is_dir():
        raise AudioError(f"{path} is a folder; name a sound file")
    if not path.exists():
        raise AudioError(f"{path} does not exist; check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes); copy or record it again")
    try:
        with _SoundFile(path) as file:
            check_rate(file.samplerate, str(path))
            yield file
    except sf.LibsndfileError as error:
        raise AudioError(
            f"{path} cannot be read as sound ({error.error_string.strip().rstrip('.')}); "
            "it may be cut short, damaged or not audio: convert it to wav or flac"
        ) from None
    except PermissionError:
        raise AudioError(f"{path} cannot be opened; check its permissions") from None


def info(path: str | Path) -> AudioInfo:
    """Rate, channels, length and format of a sound file. If the header does not tell the length, it is counted."""
    with _reading(path) as file:
        frames = file.frames
        if frames >= UNKNOWN_LENGTH:
            frames = sum(len(block) for block in _pieces(file, PIECE))
        return AudioInfo(file.samplerate, file.channels, frames, file.format, file.subtype)


def load(path: str | Path, start: float = 0.0, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Read a sound file -> (C, N) float32 and its rate."""
    with _reading(path) as file:
        rate = file.samplerate
        first = min(max(0, round(start * rate)), file.frames)
        if first:
            file.seek(first)
        count = None if seconds is None else max(0, round(seconds * rate))
        pieces, have = [], 0
        for piece in _pieces(file, PIECE, count):
            _check_finite(piece, path, first + have, rate)
            pieces.append(piece.T)
            have += len(piece)
        if have == 0:
            where = f" from {start:g} s on" if first else ""
            raise AudioError(f"{path} holds no samples{where}; there is nothing to hear in it")
        if count is None or have < count:
            _warn_if_cut_short(path, file, first + have)
    return np.concatenate(pieces, axis=1), rate


def read_blocks(path: str | Path, seconds: float = 30.0) -> Iterator[np.ndarray]:
    """Yield blocks (C, n) of a file of any length, in constant memory.

    They are `seconds` long. Of a file with very many channels they are shorter, but not shorter than a second.
    """
    with _reading(path) as file:
        have, rate = 0, file.samplerate
        size = max(1, int(seconds * rate))
        if size * file.channels > MOST and seconds > 1:
            size = rate * max(1, MOST // (file.channels * rate))
        for piece in _pieces(file, size):
            _check_finite(piece, path, have, file.samplerate)
            have += len(piece)
            yield np.ascontiguousarray(piece.T)  # (C, n)
        if have == 0:
            raise AudioError(f"{path} holds no samples; there is nothing to hear in it")
        _warn_if_cut_short(path, file, have)


def _pieces(file: sf.SoundFile, size: int, count: int | None = None) -> Iterator[np.ndarray]:
    """Float32 (n, C) up to the end of the file, or `count` frames; where the data are damaged the file ends."""
    have, ended = 0, False
    while not ended and (count is None or have < count):
        wanted = size if count is None else min(size, count - have)
        data = np.full((wanted, file.channels), np.nan, np.float32)
        try:
            n = len(file.read(out=data))
        except sf.LibsndfileError:
            n = int(np.isnan(data).all(axis=1).argmax())  # what is still NaN was not decoded any more
            if have + n == 0:
                raise
        ended = n < wanted
        have += n
        if n:
            yield data[:n]


def _check_finite(data: np.ndarray, path: str | Path, start: int, sr: int) -> None:
    bad = ~np.isfinite(data).all(axis=1)
    if bad.any():
        at = (start + int(bad.argmax())) / sr
        raise AudioError(
            f"{path} holds {int(bad.sum())} NaN or infinite samples, the first at {at:.3f} s; repair it first"
        )


def sound_files(folder: str | Path) -> dict[str, Path]:
    """Sound files of a folder, at any depth, by their path in it without suffix. A file counts as a folder of one."""
    folder = Path(folder)
    if folder.is_file():
        return {folder.stem: folder}
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; name a folder of sound files")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise DataError(f"{found[name]} and {path} have the same name; keep one of them")
            found[name] = path
    if not found:
        raise DataError(f"{folder} holds no sound files ({', '.join(SUFFIXES)}); check the path")
    return found


# --- files that are cut short


@functools.lru_cache(maxsize=256)
def _warn_once(text: str) -> None:
    """A recording may be read several times (its level first, then its samples): one warning is enough."""
    logger.warning(text)


def _warn_if_cut_short(path: str | Path, file: sf.SoundFile, have: int) -> None:
    """Compare the `have` frames that were read with what the file promises."""
    path, sr = Path(path), file.samplerate
    if file.format == "OGG":  # the length stands nowhere, but the last page carries an end mark
        if not _ogg_has_end(path):
            _warn_once(
                f"{path} is cut short: its end mark is missing and it holds {have / sr:.2f} s; going on with these"
            )
        return
    if file.format == "MP3":
        promised = file.frames if _mp3_has_length(path) else have  # else libsndfile guesses it from the bit rate
    else:
        promised, there = _data_bytes(path) or (0, 0)
        promised = have * promised / there if there else file.frames
    if SLACK < (promised - have) / sr and promised < UNKNOWN_LENGTH:
        seconds = f"its header promises {promised / sr:.2f} s and it holds {have / sr:.2f} s"
        _warn_once(f"{path} is cut short: {seconds}; going on with what is there")


def _data_bytes(path: Path) -> tuple[int, int] | None:
    """Bytes of samples that the header of a WAV, RF64, AIFF, Wave64 or AU file promises, and those that are there.

    libsndfile corrects the length of such a file by its size and says nothing.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(16)
        if head[:4] == b".snd":  # Sun AU
            start, promised = struct.unpack(">II", head[4:12])
            return _known(promised, size - start)
        wave64 = head[:4] == b"riff"
        if not wave64 and head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
            return None
        order = ">" if head[:4] in (b"RIFX", b"FORM") else "<"
        file.seek(40 if wave64 else 12)
        long_size = None  # RF64 keeps the true size in a chunk of its own
        while True:
            header = file.read(24 if wave64 else 8)
            if len(header) < (24 if wave64 else 8):
                return None
            name = header[:4]
            length = struct.unpack("<Q", header[16:])[0] - 24 if wave64 else struct.unpack(f"{order}I", header[4:])[0]
            if name == b"ds64":
                long_size = struct.unpack("<Q", file.read(16)[8:].ljust(8, b"\0"))[0]
                file.seek(length - 16, os.SEEK_CUR)
            elif name in (b"data", b"SSND"):
                return _known(long_size or length, size - file.tell())
            else:
                align = 8 if wave64 else 2
                file.seek(-(-length // align) * align, os.SEEK_CUR)


def _known(promised: int, there: int) -> tuple[int, int] | None:
    """Programs that write to a pipe put the largest number they know into the header: that promises nothing."""
    placeholder = abs(promised - 2**31) <= 4096 or 2**32 - 4096 <= promised <= 2**32 or promised == 0
    return None if placeholder or there <= 0 else (promised, there)


def _ogg_has_end(path: Path) -> bool:
    """Whether the last Ogg page is whole and has the end-of-stream flag (RFC 3533, section 6)."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))  # a page is shorter than that
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _mp3_has_length(path: Path) -> bool:
    """Whether the first frame of an MP3 file is one that tells the number of frames."""
    with open(path, "rb") as file:
        head = file.read(10)
        tag = 0
        if head[:3] == b"ID3" and len(head) == 10:
            tag = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0)))
        file.seek(tag)
        first = file.read(4096)
    return any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))


# --- writing


def _format(path: Path, sr: int, like: AudioInfo | None) -> tuple[str, str]:
    """The libsndfile format and subtype for a path: those of `like` where the suffix allows it."""
    suffix = path.suffix.lower()
    special = {".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS"), ".aif": ("AIFF", "PCM_16")}
    fmt, subtype = special.get(suffix, (suffix[1:].upper(), None))
    if suffix not in SUFFIXES or fmt not in sf.available_formats():
        raise AudioError(f"cannot write '{suffix or path.name}' files; use one of {', '.join(SUFFIXES)}")
    if like is not None and fmt == "WAV" and like.format in WAV_FAMILY:
        fmt = like.format
    if like is not None and suffix != ".opus" and sf.check_format(fmt, like.subtype):
        if fmt == like.format or like.subtype.startswith(("PCM_", "FLOAT", "DOUBLE")):  # a WAV file could hold MP3
            subtype = like.subtype
    subtype = subtype or sf.default_subtype(fmt)
    if subtype == "OPUS" and sr not in OPUS_RATES:
        raise AudioError(
            f"Opus knows the rates {', '.join(map(str, OPUS_RATES))} Hz, not {sr}; write wav or flac instead"
        )
    return fmt, subtype


def keeps_peaks(path: str | Path, sr: int, like: AudioInfo | None = None) -> bool:
    """Whether samples beyond full scale stay as they are in the file that `save` would write."""
    return _format(Path(path), sr, like)[1] in FLOATS


@contextmanager
def writing(path: str | Path, force: bool = False) -> Iterator[Path]:
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
        reason = "the disk is full" if full else error.strerror
        raise AudioError(f"{path} could not be written ({reason}); nothing was changed") from None
    finally:
        if part is not None:
            with suppress(FileNotFoundError):
                os.unlink(part)


def save_blocks(
    path: str | Path, blocks: Iterable[np.ndarray], sr: int, like: AudioInfo | None = None, force: bool = False
) -> int:
    """Write blocks (C, n) as one file, whole or not at all; returns the samples per channel written."""
    path, sr = Path(path), check_rate(sr, "what is to be written")
    fmt, subtype = _format(path, sr, like)
    with writing(path, force) as part:
        try:
            frames = _write(part, blocks, sr, fmt, subtype, path)
        except sf.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".")
            raise AudioError(f"{path} could not be written ({reason}); nothing was changed") from None
        if frames == 0:
            raise AudioError(f"there are no samples to write to {path}")
        with _reading(part) as written:  # a full disk is not always reported by the writer
            if written.frames < frames:
                raise AudioError(f"{path} could not be written whole (is the disk full?); nothing was changed")
    return frames


def _write(part: Path, blocks: Iterable[np.ndarray], sr: int, fmt: str, subtype: str, path: Path) -> int:
    frames, file = 0, None
    try:
        for block in blocks:
            if block.ndim > 2:
                raise AudioError(f"a file takes wav (samples,) or (channels, samples), not {tuple(block.shape)}")
            data = np.atleast_2d(block).T  # (n, C)
            _check_finite(data, path, frames, sr)
            if subtype not in FLOATS:
                data = np.clip(data, -1.0, 1.0)
            if file is None:
                file = sf.SoundFile(part, "w", sr, data.shape[1], subtype, format=fmt)
            for i in range(0, len(data), PIECE):
                piece = data[i : i + PIECE]
                if fmt in ("WAV", "WAVEX", "AIFF") and part.stat().st_size + 8 * piece.size > WAV_LIMIT:
                    if fmt == "AIFF":
                        raise AudioError(
                            f"{path} would pass 4 GB, the limit of AIFF; write .wav, .w64 or .flac instead"
                        )
                    file.close()
                    file, fmt = _go_on_as_rf64(part, subtype), "RF64"
                file.write(piece)
            frames += len(data)
    finally:
        if file is not None:
            file.close()
    return frames


def _go_on_as_rf64(part: Path, subtype: str) -> sf.SoundFile:
    """Copy a WAV file that has reached its limit into an RF64 file, without a change to its samples -> open at its
    end.
    """
    start = part.with_name(f"{part.name}.start")
    os.replace(part, start)
    kind = "float64" if subtype in ("FLOAT", "DOUBLE") else "int32"
    try:
        with sf.SoundFile(start) as short:
            file = sf.SoundFile(part, "w", short.samplerate, short.channels, subtype, format="RF64")
            for piece in short.blocks(PIECE, dtype=kind):
                file.write(piece)
    finally:
        os.unlink(start)
    return file
