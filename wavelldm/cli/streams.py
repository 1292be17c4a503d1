"""WAV over standard input and output: sound is cleaned as it arrives, and written on at once."""

import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..errors import AudioError
from ..light import files
from ..light.denoiser import Cleaner, cleaned_blocks

if TYPE_CHECKING:
    from ..denoise import chain

HINT = "send WAV, for example: ffmpeg -i talk.mp3 -f wav - | wavelldm denoise - > clean.wav"
AT_MOST = 1 << 16  # bytes taken at a time; fewer if no more has arrived
ENDLESS = 0x7FFF0000  # bytes: programs that do not know the length yet write this or more
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # codings of a WAV file
KINDS = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}


@dataclass(frozen=True)
class Format:
    """What the beginning of a WAV stream says."""

    sr: int
    channels: int
    coding: int
    bits: int
    size: int | None = None  # bytes of samples; None: until the stream ends

    @property
    def width(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * self.bits // 8


def standard_input() -> BinaryIO:
    """Where the sound comes from; a person at a keyboard has none to give."""
    if sys.stdin is None or sys.stdin.isatty():
        raise AudioError(f"standard input is a terminal; {HINT}")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Where the sound goes; a terminal would show it as letters."""
    if sys.stdout is None or sys.stdout.isatty():
        raise AudioError("standard output is a terminal; send it to a file or a program, or add -o FILE")
    return sys.stdout.buffer


def _exactly(stream: BinaryIO, n: int) -> bytes:
    data = b""
    while len(data) < n and (more := stream.read(n - len(data))):
        data += more
    return data


def read_format(stream: BinaryIO) -> Format:
    """The beginning of a RIFF WAVE stream, up to its samples."""
    head = _exactly(stream, 12)
    if not head:
        raise AudioError(f"nothing arrived on standard input; {HINT}")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise AudioError(f"standard input is not a WAV stream; {HINT}")
    sr = channels = coding = bits = 0
    while True:
        name, size = struct.unpack("<4sI", _exactly(stream, 8).ljust(8, b"\0"))
        if name == b"data":
            break
        body = _exactly(stream, size + size % 2)
        if len(body) < size or not name.strip(b"\0"):
            raise AudioError("the WAV stream ends before its samples begin; send it whole")
        if name == b"fmt " and size >= 16:
            coding, channels, sr, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if coding == EXTENSIBLE and size >= 26:  # the coding is the beginning of a longer name
                coding = struct.unpack("<H", body[24:26])[0]
    if (coding, bits) not in KINDS or not channels:
        raise AudioError("the WAV stream is of a kind not known here; send PCM of 8 to 32 bits, or 32-bit float")
    files.check_rate(sr, "the WAV stream")
    return Format(sr, channels, coding, bits, size if 0 < size < ENDLESS else None)


def read_blocks(stream: BinaryIO, form: Format) -> Iterator[np.ndarray]:
    """The samples that follow, as blocks (C, n) as they come, of any length. What follows the samples is left alone."""
    left, rest = form.size, b""
    while data := stream.read1(AT_MOST if left is None else min(AT_MOST, left)):
        left = None if left is None else left - len(data)
        data = rest + data
        whole = len(data) // form.width * form.width
        data, rest = data[:whole], data[whole:]
        if not data:
            continue
        block = _values(data, form).reshape(-1, form.channels).T.copy()  # (C, n)
        if not np.isfinite(block).all():
            raise AudioError("the stream holds NaN or infinite samples; repair it first")
        yield block


def _values(data: bytes, form: Format) -> np.ndarray:
    """Samples as float32 between -1 and 1."""
    if form.bits == 24:  # three bytes, low ones first: put into the upper three of four
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values, scale = padded.view("<i4")[:, 0], 2.0**31
    else:
        values = np.frombuffer(data, KINDS[form.coding, form.bits])
        scale = 1.0 if form.coding == FLOAT else 2.0 ** (form.bits - 1)
    if form.bits == 8:  # the only kind without a sign
        values = values.astype(np.int16) - 128
    return (values / scale).astype(np.float32)


def header(sr: int, channels: int) -> bytes:
    """Of a 16-bit WAV stream whose length nobody knows yet."""
    endless = 0xFFFFFFFF
    form = struct.pack("<HHIIHH", PCM, channels, sr, 2 * channels * sr, 2 * channels, 16)
    riff = struct.pack("<4sI4s4sI", b"RIFF", endless, b"WAVE", b"fmt ", 16)
    return riff + form + struct.pack("<4sI", b"data", endless)


def to_bytes(block: np.ndarray) -> bytes:
    return (block.clip(-1, 1) * 32767).round().astype("<i2").T.tobytes()


class Arrays:
    """A session of tensors as one of arrays."""

    def __init__(self, session: "chain.Session"):
        self.session = session

    def push(self, block: np.ndarray) -> np.ndarray:
        import torch

        return self.session.push(torch.from_numpy(block)).cpu().numpy()

    def finish(self) -> np.ndarray:
        return self.session.finish().cpu().numpy()


Begin = Callable[[int, int], Cleaner]  # a session for a rate and a number of channels


def cleaned(begin: Begin, source: BinaryIO) -> tuple[int, int, Iterator[np.ndarray]]:
    """The WAV stream `source` -> its rate, its channels, the cleaned blocks (C, n) as they come."""
    form = read_format(source)
    session = begin(form.sr, form.channels)
    return form.sr, form.channels, cleaned_blocks(session, read_blocks(source, form))


def denoise(begin: Begin, source: BinaryIO, sink: BinaryIO) -> None:
    """Clean what comes from `source`, and write it to `sink` as 16-bit WAV."""
    sr, channels, blocks = cleaned(begin, source)
    write(sink, sr, blocks, channels)


def write(sink: BinaryIO, sr: int, blocks: Iterable[np.ndarray], channels: int = 1) -> None:
    """Blocks (C, n) as a 16-bit WAV stream, each as it comes."""
    sink.write(header(sr, channels))
    sink.flush()
    for block in blocks:
        sink.write(to_bytes(block))
        sink.flush()


def denoise_to_file(begin: Begin, source: BinaryIO, target: str | Path, force: bool = False) -> float:
    """Clean what comes from `source`, and write it to a file, whole or not at all. Returns its seconds."""
    sr, _, blocks = cleaned(begin, source)
    return files.save_blocks(target, blocks, sr, force=force) / sr
