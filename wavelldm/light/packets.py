"""Codes in packets, for talking: each packet can be decoded alone, and the decoder goes on where one is lost.

A packet is bytes, all numbers little-endian:

    2    the first two bytes of the identity of the oldest weights with these codes: those of other codecs are refused
    1    codebooks K
    4    number of its first frame
    n    `pack` of K codes, once for each of its frames

A frame of `voice16k-live` is 16 ms long, and its four codes take 7 bytes. A file of packets (.wlp) is the magic "wlp"
and a zero, then each packet after its length in two bytes. It can be read while it is being written.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import BinaryIO, Protocol

import numpy as np

from ..errors import WavelldmError
from .resample import Resampler

MAGIC, HEAD, LENGTH = b"wlp\0", struct.Struct("<2sBI"), struct.Struct("<H")
WRAP = 1 << 32  # frames are counted up to here, which takes two years
FADE = 6, 12  # lost frames in a row after which the sound begins to fade, and after which it is gone
MOST = 9  # frames that a packet repeats at most
FAR = 500  # frames: what is further from its place than this (8 s) comes from a sender that started anew


class Encoder(Protocol):
    """Sound that comes in blocks to codes, a row of K for each frame."""

    def push(self, wav: np.ndarray) -> list[list[int]]:
        """wav (n,) of any length -> the frames that it completes."""

    def finish(self) -> list[list[int]]: ...


class Decoder(Protocol):
    """Codes to sound, frame by frame."""

    def take(self, row: list[int] | None) -> np.ndarray:
        """The codes of the next frame, None where they are lost -> wav (n,)."""

    def finish(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Coder:
    """A codec that streams, as packets need it."""

    name: str
    sr: int
    hop: int  # samples of a frame
    latency: int  # samples that its sound is late
    codebooks: int
    entries: int  # of a codebook
    tag: bytes  # two that say which codes these are
    encoder: Callable[[], Encoder]  # begins a new stream
    decoder: Callable[[], Decoder]


def pack(numbers: list, base: int) -> bytes:
    """Whole numbers below `base` -> bytes, as the digits of one large number: log2(base) bits each, rounded up."""
    state = 0
    for number in reversed(numbers):
        state = state * base + number
    return state.to_bytes(packed_size(len(numbers), base), "little")


def unpack(data: bytes, count: int, base: int) -> list:
    """The inverse of `pack`. Raises ValueError if the bytes hold anything else."""
    state, numbers = int.from_bytes(data, "little"), []
    for _ in range(count):
        state, number = divmod(state, base)
        numbers.append(number)
    if state or len(data) != packed_size(count, base):
        raise ValueError("bits are left over")
    return numbers


def packed_size(count: int, base: int) -> int:
    return ((base**count - 1).bit_length() + 7) // 8  # bytes


class Sender:
    """Sound in blocks of any length -> packets, one for each frame. `repeat`: each packet holds so many of the frames
    before it once more, so that a gap that short is closed if there is time to wait for the next packet."""

    def __init__(self, coder: Coder, codebooks: int | None = None, repeat: int = 0):
        most = coder.codebooks
        if not 1 <= (codebooks or most) <= most:
            raise WavelldmError(f"this codec has 1 to {most} codebooks, not {codebooks}; choose one of these numbers")
        if not 0 <= repeat <= MOST:
            raise WavelldmError(f"a packet repeats 0 to {MOST} frames, not {repeat}; choose one of these numbers")
        self.coder, self.encoder, self.codebooks, self.repeat = coder, coder.encoder(), codebooks or most, repeat
        self.number, self.before = 0, []

    def push(self, wav: np.ndarray) -> list[bytes]:
        """wav (n,) at the codec's rate -> the packets that it completes."""
        return self._packets(self.encoder.push(wav))

    def finish(self) -> list[bytes]:
        """The packets still to come, once, at the end."""
        return self._packets(self.encoder.finish())

    def _packets(self, rows: list[list[int]]) -> list[bytes]:
        packets = []
        for row in rows:
            held = [*self.before, pack(row[: self.codebooks], self.coder.entries)]
            first = (self.number + 1 - len(held)) % WRAP
            packets.append(HEAD.pack(self.coder.tag, self.codebooks, first) + b"".join(held))
            self.before, self.number = held[len(held) - self.repeat :], self.number + 1
        return packets


def packets_of(sender: Sender, blocks: Iterable[np.ndarray], sr: int) -> Iterator[bytes]:
    """wav blocks (C, any) at any rate, channels mixed -> packets, each as soon as its last sample is there."""
    resampler = Resampler(sr, sender.coder.sr)
    for block in blocks:
        yield from sender.push(resampler.push(block.mean(0, keepdims=True))[0])
    yield from sender.push(resampler.finish()[0])
    yield from sender.finish()


class Receiver:
    """Packets in any order, some of them missing or twice -> sound, a frame at a time.

    `put` each packet when it arrives. `take` the next frame when it is time to play it: if it is not there by then it
    is lost, and the decoder goes on by itself. To wait for late packets, begin to take when `held` is as large as
    wanted."""

    def __init__(self, coder: Coder):
        self.coder, self.decoder = coder, coder.decoder()
        self.frames, self.next = {}, None  # codes by the numbers of their frames; the number of the next frame
        self.lost = self.late = self.gap = 0  # frames lost, packets that came too late, frames lost in a row by now

    @property
    def held(self) -> int:
        """Frames from the next one to the last one that is there."""
        return max(self.frames) - self.next + 1 if self.frames else 0

    def put(self, packet: bytes) -> None:
        number, rows = opened(packet, self.coder)
        if self.next is None:
            self.next = number
        number = self.next + (number - self.next + WRAP // 2) % WRAP - WRAP // 2  # counted on where the count wrapped
        if abs(number - self.next) > FAR + len(self.frames):
            self.frames, self.next = {}, number
        self.late += number + len(rows) <= self.next
        self.frames.update((number + i, row) for i, row in enumerate(rows) if number + i >= self.next)

    def take(self) -> np.ndarray:
        """The next frame's sound (n,): `hop` samples, fewer for the first one. Before any packet silence."""
        if self.next is None:
            return np.zeros(self.coder.hop, np.float32)
        row = self.frames.pop(self.next, None)
        self.next += 1
        self.gap = 0 if row else self.gap + 1
        self.lost += row is None
        wav = self.decoder.take(row)
        return wav * self._fade(len(wav))

    def finish(self) -> np.ndarray:
        """What the decoder still holds back (n,), once, at the end."""
        return self.decoder.finish()

    def _fade(self, n: int) -> np.ndarray | float:
        begin, end = FADE
        if self.gap <= begin:
            return 1.0
        before, now = (max(0.0, (end - gap) / (end - begin)) for gap in (self.gap - 1, self.gap))
        return np.linspace(before, now, n, dtype=np.float32)


def opened(packet: bytes, coder: Coder) -> tuple[int, list]:
    """A packet -> the number of its first frame, and of each of its frames the codes."""
    if len(packet) <= HEAD.size:
        raise WavelldmError(f"a packet of {len(packet)} bytes is none of this codec; was it cut short?")
    found, codebooks, number = HEAD.unpack_from(packet)
    if found != coder.tag:
        raise WavelldmError(f"the packet was made with other weights than {coder.name}'s; use the same on both sides")
    body, size = packet[HEAD.size :], packed_size(max(codebooks, 1), coder.entries)
    try:
        if not 1 <= codebooks <= coder.codebooks or len(body) % size:
            raise ValueError
        return number, [unpack(body[i : i + size], codebooks, coder.entries) for i in range(0, len(body), size)]
    except ValueError:
        raise WavelldmError("a packet is damaged; drop it, the decoder goes on without") from None


def write_packets(file: BinaryIO, packets: Iterable[bytes]) -> tuple[int, int]:
    """Each as it comes -> how many there were, and bytes of all."""
    count, size = 0, file.write(MAGIC)
    for packet in packets:
        size += file.write(LENGTH.pack(len(packet)) + packet)
        file.flush()
        count += 1
    return count, size


def read_packets(file: BinaryIO, name: str = "the input") -> Iterator[bytes]:
    """The packets of a .wlp file, or of a stream of one, as they come. One that is cut short at the end is left out."""
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise WavelldmError(f"{name} holds no packets; `wavelldm compress --live` makes them")
    while len(head := file.read(LENGTH.size)) == LENGTH.size:
        packet = file.read(LENGTH.unpack(head)[0])
        if len(packet) == LENGTH.unpack(head)[0]:
            yield packet


def decoded(receiver: Receiver, packets: Iterable[bytes]) -> Iterator[np.ndarray]:
    """The packets of a whole recording, of which some may be missing -> blocks of sound (1, n) as they come, together
    as long as all frames up to the last one that is there."""
    receiver.next = 0
    for packet in packets:
        receiver.put(packet)
        while receiver.held:
            yield receiver.take()[None]
    yield receiver.finish()[None]


def with_gaps(packets: Iterable[bytes], share: float, seed: int = 0) -> Iterator[bytes]:
    """The packets that arrive when this share of them is lost, in gaps of two in the mean (Gilbert, 1960)."""
    if not 0 <= share < 1:
        raise WavelldmError(f"a share of lost packets lies between 0 and 1, not {share}")
    random = Random(seed)
    lost = random.random() < share
    for packet in packets:
        if not lost:
            yield packet
        lost = random.random() < (0.5 if lost else 0.5 * share / (1 - share))
