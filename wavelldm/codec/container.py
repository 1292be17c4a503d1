"""The .wll file: codes (C, K, T) of C channels, K codebooks, T frames, in blocks that are checked one by one.

All numbers are little-endian. The header:

    4 bytes   magic "wll" and a zero
    1         version of the format, 1
    1 1 1     lengths of the two lists that follow the fixed part (name, levels); number of codebooks K
    8         identity of the weights (the first 8 bytes of a SHA-256, see `compress.identity`)
    4 4 4     sample rate of the codec, samples per frame, sample rate of the original
    2         channels C
    8 8       samples per channel of the original; bytes of the whole file
    n, 2 n    name of the codec's weights (UTF-8); levels of the quantiser
    4         CRC-32 of everything above

Then one block for every 512 frames (the last may be shorter):

    4 1       bytes of the body; how it is written
    ...       the body
    4         CRC-32 of the block's number (4 bytes) and everything above in the block

A body is the C channels, one after the other, each but the last preceded by its length (4 bytes). Written as 1,
`coded`, each channel is what `entropy.Counts` makes of its FSQ digits, with counts that go on from block to block.
Where that would be longer, as in white noise, the block is written as 0, `plain`: `packets.pack` of the codes frame
by frame, log2(entries) bits each; the counts then start anew.
"""

import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..audio.files import writing
from ..errors import WavelldmError
from ..light.packets import pack, unpack
from .fsq import code_to_digits, digits_to_code

MAGIC, VERSION = b"wll\0", 1
FIXED = struct.Struct("<4sBBBB8sIIIHQQ")  # the header's fixed part
BODY, CRC = struct.Struct("<IB"), struct.Struct("<I")
BLOCK_FRAMES = 512  # latent frames in a block
PLAIN, CODED = 0, 1  # how a block is written
INCREMENT = 2  # what one occurrence adds; every digit starts at 1 (the estimator of Krichevsky and Trofimov, 1981)
MAX_COUNT = 1 << 10  # a context's counts are halved when one passes this, so that they follow the recording


class Counts:
    """The adaptive model of one channel: `sizes` are the levels of its digits, one for each place in a frame."""

    def __init__(self, sizes: Iterable[int]):
        self.sizes = list(sizes)
        self.tables = {}  # (place, digit before, digit beside) -> counts
        self.before = self.alone = [0] * len(self.sizes)

    def _row(self, beside: list) -> list:
        """The counts for every place of the next frame."""
        keys = zip(range(len(self.sizes)), self.before, beside)
        return [self.tables.get(k) or self.tables.setdefault(k, [1] * self.sizes[k[0]]) for k in keys]

    def encode(self, rows: list, beside: list | None = None) -> bytes:
        """Frames of digits -> bytes. `beside`: the frames of the channel before, if there is one."""
        steps = []
        for row, other in zip(rows, beside or [self.alone] * len(rows)):
            for counts, digit in zip(self._row(other), row):
                steps.append((sum(counts[:digit]), counts[digit], sum(counts)))
                learn(counts, digit)
            self.before = row
        state = 0
        for start, count, total in reversed(steps):  # last in, first out
            whole, rest = divmod(state, count)
            state = whole * total + start + rest
        return state.to_bytes((state.bit_length() + 7) // 8, "little")

    def decode(self, data: bytes, frames: int, beside: list | None = None) -> list:
        """The inverse: `frames` rows of digits. Raises ValueError if the bytes cannot be what `encode` made."""
        state, rows = int.from_bytes(data, "little"), []
        for other in beside or [self.alone] * frames:
            row = []
            for counts in self._row(other):
                state, rest = divmod(state, sum(counts))
                digit = 0
                while rest >= counts[digit]:
                    rest -= counts[digit]
                    digit += 1
                state = state * counts[digit] + rest
                learn(counts, digit)
                row.append(digit)
            self.before = row
            rows.append(row)
        if state:
            raise ValueError("bits are left over")
        return rows


def learn(counts: list, digit: int) -> None:
    counts[digit] += INCREMENT
    if counts[digit] > MAX_COUNT:
        counts[:] = [(c + 1) // 2 for c in counts]


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first code."""

    model: str
    weights: str  # 16 hexadecimal digits
    sr: int  # of the codec
    hop: int
    original_sr: int
    channels: int
    samples: int  # per channel, at the original rate
    codebooks: int
    levels: tuple
    size: int = 0  # bytes of the whole file

    @property
    def length(self) -> int:
        return -(-self.samples * self.sr // self.original_sr)  # samples at the codec's rate

    @property
    def frames(self) -> int:
        return -(-self.length // self.hop)

    @property
    def seconds(self) -> float:
        return self.samples / self.original_sr

    @property
    def bits_per_second(self) -> float:
        return 8 * self.size / self.seconds  # header, checksums and all

    @property
    def plain_bits_per_second(self) -> float:
        return self.channels * self.codebooks * math.log2(math.prod(self.levels)) * self.sr / self.hop  # of bare codes


def header_bytes(h: Header) -> bytes:
    name = h.model.encode()
    counts = len(name), len(h.levels), h.codebooks
    rates = h.sr, h.hop, h.original_sr, h.channels, h.samples, h.size
    data = FIXED.pack(MAGIC, VERSION, *counts, bytes.fromhex(h.weights), *rates)
    data += name + struct.pack(f"<{len(h.levels)}H", *h.levels)
    return data + CRC.pack(zlib.crc32(data))


def read_header(file: BinaryIO, path: str | Path) -> Header:
    """From an open file, which is left where the blocks begin."""
    data = file.read(FIXED.size)
    if data[:4] != MAGIC[: len(data)] or not data:
        raise WavelldmError(f"{path} is not a .wll file; `wavelldm compress` makes them")
    if len(data) > 4 and data[4] != VERSION:
        raise WavelldmError(f"{path} has version {data[4]}, this program reads {VERSION}; update wavelldm")
    if len(data) == FIXED.size:
        _, _, name, levels, codebooks, weights, sr, hop, original_sr, channels, samples, size = FIXED.unpack(data)
        data += file.read(name + 2 * levels + CRC.size)
        if len(data) == FIXED.size + name + 2 * levels + CRC.size:
            if zlib.crc32(data[: -CRC.size]) != CRC.unpack(data[-CRC.size :])[0]:
                raise WavelldmError(f"the header of {path} is damaged; copy the file again")
            model = data[FIXED.size : FIXED.size + name].decode()
            levels = struct.unpack_from(f"<{levels}H", data, FIXED.size + name)
            return Header(model, weights.hex(), sr, hop, original_sr, channels, samples, codebooks, levels, size)
    raise WavelldmError(f"{path} is cut short within its header, so nothing can be decoded; copy it again")


def _models(h: Header) -> list:
    return [Counts(h.levels * h.codebooks) for _ in range(h.channels)]


def _encode(codes: Tensor, h: Header, models: list) -> list:
    """codes (C, K, T) -> bytes for every channel."""
    digits = code_to_digits(codes.transpose(1, 2), h.levels).flatten(2).tolist()  # (C, T, K * d)
    return [m.encode(rows, beside) for m, rows, beside in zip(models, digits, [None, *digits])]


def _decode(parts: list, frames: int, h: Header, models: list) -> Tensor:
    digits = [None]
    for model, part in zip(models, parts):
        digits.append(model.decode(part, frames, digits[-1]))
    digits = torch.tensor(digits[1:]).unflatten(-1, (h.codebooks, -1))  # (C, T, K, d)
    return digits_to_code(digits, h.levels).transpose(1, 2)


def _join(parts: list) -> bytes:
    return b"".join(CRC.pack(len(part)) + part for part in parts[:-1]) + parts[-1]


def _split(body: bytes, channels: int) -> list:
    parts = []
    for _ in range(channels - 1):
        size = CRC.unpack_from(body)[0]
        parts.append(body[CRC.size : CRC.size + size])
        body = body[CRC.size + size :]
    return [*parts, body]


def write(
    path: str | Path, header: Header, blocks: Iterable[Tensor], samples: Callable[[], int], force: bool = False
) -> Header:
    """Write blocks of codes (C, K, 512), the last with 1 to 512 frames; returns the header that the file now has.

    `samples()` is asked once the blocks are through how many samples per channel the original had.
    """
    with writing(path, force) as part, open(part, "wb") as file:
        file.write(header_bytes(header))
        entries, models, frames = math.prod(header.levels), _models(header), 0
        for number, codes in enumerate(blocks):
            _check(codes, header, entries)
            how, body = CODED, _join(_encode(codes, header, models))
            plain = _join([pack(rows, entries) for rows in codes.transpose(1, 2).flatten(1).tolist()])
            if len(plain) < len(body):
                how, body, models = PLAIN, plain, _models(header)
            data = BODY.pack(len(body), how) + body
            file.write(data + CRC.pack(zlib.crc32(CRC.pack(number) + data)))
            frames += codes.shape[2]
        header = replace(header, samples=samples(), size=file.tell())
        if header.frames != frames:
            raise WavelldmError(f"{header.samples} samples take {header.frames} frames, but codes came for {frames}")
        file.seek(0)
        file.write(header_bytes(header))
    return header


def _check(codes: Tensor, h: Header, entries: int):
    if codes.shape[:2] != (h.channels, h.codebooks) or not 1 <= codes.shape[2] <= BLOCK_FRAMES:
        raise WavelldmError(
            f"a block holds codes ({h.channels} channels, {h.codebooks} codebooks, 1 to {BLOCK_FRAMES} frames), "
            f"not {tuple(codes.shape)}"
        )
    if not 0 <= int(codes.min()) <= int(codes.max()) < entries:
        raise WavelldmError(f"a code lies outside 0 to {entries - 1}; give those of the codebooks that are kept")


def read(path: str | Path) -> tuple[Header, Iterator[Tensor]]:
    """-> Header, and an iterator over blocks of codes (C, K, up to 512).

    Of a file that is cut short, the iterator gives the whole blocks and ends early: the frames are then fewer than
    `header.frames`. A damaged block raises an error that names it.
    """
    path = Path(path)
    if not path.is_file():
        raise WavelldmError(f"{path} does not exist or is no file; check the path")
    with open(path, "rb") as file:
        header = read_header(file, path)
        return header, _blocks(path, header, file.tell())


def _blocks(path: Path, h: Header, start: int):
    entries, models = math.prod(h.levels), _models(h)
    whole = path.stat().st_size >= h.size
    total = -(-h.frames // BLOCK_FRAMES)
    with open(path, "rb") as file:
        file.seek(start)
        for number in range(total):
            frames = min(BLOCK_FRAMES, h.frames - number * BLOCK_FRAMES)
            start = number * BLOCK_FRAMES * h.hop / h.sr  # seconds
            damaged = WavelldmError(
                f"block {number + 1} of {total} in {path} is damaged (from {start:.1f} s on); copy the file again"
            )
            head = file.read(BODY.size)
            size, how = BODY.unpack(head) if len(head) == BODY.size else (0, 0)
            rest = file.read(size + CRC.size) if size <= h.size else b""
            if len(rest) < size + CRC.size:
                if whole:
                    raise damaged
                return
            data, check = head + rest[:size], CRC.unpack(rest[size:])[0]
            if zlib.crc32(CRC.pack(number) + data) != check or how not in (PLAIN, CODED):
                raise damaged
            try:
                parts = _split(rest[:size], h.channels)
                if how == CODED:
                    yield _decode(parts, frames, h, models)
                else:
                    models = _models(h)
                    numbers = [unpack(part, frames * h.codebooks, entries) for part in parts]
                    yield torch.tensor(numbers).unflatten(1, (frames, h.codebooks)).transpose(1, 2)
            except (ValueError, struct.error):
                raise damaged from None
