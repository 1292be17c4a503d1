"""Live: a WAV stream from a pipe, cleaned block by block as it arrives, and written to a pipe (or a file) as WAV."""

import struct

import numpy as np
import torch
from torch import Tensor

from ..audio import files
from ..denoise.chain import LIVE, Look, Settings
from ..denoise.denoiser import Denoiser
from ..errors import AudioError

SECONDS = 0.05  # read at a time
KINDS = {
    (1, 16): ("<i2", 2.0**15),
    (1, 24): (None, 2.0**23),
    (1, 32): ("<i4", 2.0**31),
    (3, 32): ("<f4", 1.0),
}  # (coding, bits)


def _exactly(stream, n: int) -> bytes:
    data = b""
    while len(data) < n and (more := stream.read(n - len(data))):
        data += more
    return data


def read_header(stream) -> tuple[int, int, tuple]:
    """The beginning of a RIFF WAVE stream, up to its samples -> rate, channels, (coding, bits)."""
    hint = "send WAV, for example: ffmpeg -i talk.mp3 -f wav - | wavelldm denoise - > clean.wav"
    head = _exactly(stream, 12)
    if not head:
        raise AudioError(f"nothing arrived on standard input; {hint}")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise AudioError(f"standard input is not a WAV stream; {hint}")
    kind = None
    while True:
        name, size = struct.unpack("<4sI", _exactly(stream, 8).ljust(8, b"\0"))
        if name == b"data":
            break
        body = _exactly(stream, size + size % 2)
        if len(body) < size:
            raise AudioError("the WAV stream ends before its samples begin; send it whole")
        if name == b"fmt " and size >= 16:
            coding, channels, sr, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if coding == 0xFFFE and size >= 26:  # extensible: the coding is the beginning of a longer name
                coding = struct.unpack("<H", body[24:26])[0]
            kind = sr, channels, (coding, bits)
    if kind is None or kind[2] not in KINDS or not (kind[0] and kind[1]):
        raise AudioError("the WAV stream is of a kind not known here; send PCM of 16, 24 or 32 bits, or 32-bit float")
    return kind


def read_blocks(stream, sr: int, channels: int, kind: tuple):
    """The samples that follow -> blocks (C, n) as they come."""
    coding, scale = KINDS[kind]
    width = channels * kind[1] // 8
    size = max(1, round(SECONDS * sr)) * width
    while data := _exactly(stream, size):
        data = data[: len(data) // width * width]
        if coding is None:  # 24 bits: three bytes, low ones first
            whole = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
            values = (whole[:, 0] | whole[:, 1] << 8 | whole[:, 2] << 16) - ((whole[:, 2] & 128) << 17)
        else:
            values = np.frombuffer(data, coding)
        block = torch.from_numpy((values / scale).astype(np.float32).reshape(-1, channels).T.copy())  # (C, n)
        if not torch.isfinite(block).all():
            raise AudioError("the stream holds NaN or infinite samples; repair it first")
        if block.shape[1]:
            yield block


def header(sr: int, channels: int) -> bytes:
    """Of a 16-bit WAV stream whose length nobody knows yet."""
    endless = 0xFFFFFFFF
    form = struct.pack("<HHIIHH", 1, channels, sr, 2 * channels * sr, 2 * channels, 16)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", endless, b"WAVE", b"fmt ", 16) + form + struct.pack("<4sI", b"data", endless)
    )


def to_bytes(block: Tensor) -> bytes:
    return (block.clamp(-1, 1) * 32767).round().to(torch.int16).T.contiguous().numpy().tobytes()


def denoise(model: Denoiser, settings: Settings, source, sink, output=None, force: bool = False) -> None:
    """Clean what comes from `source`; to `sink` as 16-bit WAV, or to the file `output`."""
    sr, channels, kind = read_header(source)
    blocks = model.clean(read_blocks(source, sr, channels, kind), sr, settings, Look(), LIVE)
    if output not in (None, "-"):
        files.save_blocks(output, blocks, sr, force=force)
        return
    sink.write(header(sr, channels))
    for block in blocks:
        sink.write(to_bytes(block))
        sink.flush()
