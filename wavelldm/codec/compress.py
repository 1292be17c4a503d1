"""Files of any length to .wll and back in constant memory: the codec works on windows that overlap by what it can see.

What comes out equals what the codec makes of the whole recording at once. Rate, channels and length are restored; the
sound itself is what the codec keeps, at the codec's rate.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import weights
from ..audio import files
from ..audio.blocks import resample_blocks, take, windows
from ..errors import AudioError, WavelldmError
from ..nn.layers import Conv1d, ConvTranspose1d
from ..progress import progress_bar
from . import container
from .container import BLOCK_FRAMES, Header
from .look import Looks, looks_of
from .model import Codec
from .search import search

MARGINS = 8  # a window to decode has at least this many margins of new frames: no more than a quarter is done twice


def identity(codec: Codec) -> str:
    """16 hexadecimal digits that differ when the weights do; the same before and after saving in half precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().half().numpy().astype("<f2").tobytes())
    return digest.hexdigest()[:16]


def _reach(module: nn.Module, step: float) -> float:
    """How many samples a chain of convolutions sees at most on either side of a frame of `step` samples."""
    total = 0.0
    for layer in module.modules():
        if isinstance(layer, Conv1d):
            total += (layer.span - 1 if layer.causal else layer.span // 2) * step
            step *= layer.stride[0]
        elif isinstance(layer, ConvTranspose1d):
            step /= layer.stride[0]
            total += layer.kernel_size[0] * step
    return total


def encoder_margin(codec: Codec) -> int:
    """Frames on either side beyond which nothing changes a frame's codes (a safe bound)."""
    mel = codec.config.mel
    return math.ceil((_reach(codec.encoder, mel.hop) + codec.past + mel.hop) / codec.hop) + codec.config.ahead


def decoder_margin(codec: Codec) -> int:
    """Frames on either side of a frame beyond which no code changes its sound (a safe bound)."""
    mel = codec.config.mel
    rounds = getattr(codec.decoder, "polish", 0)  # each step of Griffin-Lim takes a frame's news to all that overlap it
    blur = mel.n_fft + rounds * (-(-mel.n_fft // mel.hop) - 1) * mel.hop
    return math.ceil((_reach(codec.upsampler, codec.hop) + _reach(codec.decoder, mel.hop) + blur) / codec.hop)


@torch.no_grad()
def encode_blocks(
    codec: Codec,
    blocks: Iterable[Tensor],
    codebooks: int | None = None,
    looks: Looks | None = None,
    steps: int = 0,
) -> Iterator[Tensor]:
    """wav blocks (C, any) at the codec's rate -> blocks of codes (C, K, up to 512), corrected by `looks`, searched for
    in `steps` steps."""
    done, device = 0, next(codec.parameters()).device
    for wav, before, count in windows(blocks, codec.hop, encoder_margin(codec), BLOCK_FRAMES):
        rows = []
        for channel in wav.to(device)[:, None, None]:  # one after the other, to save memory
            new, first = slice(before, before + count), done - before
            if looks or steps:
                start = looks.numbers(codec, channel, codebooks, first) if looks else None
                rows.append(search(codec, channel, steps, codebooks, first, start)[..., new])
            else:
                z = codec.encode(channel, codec.sr)[..., new]  # (1, D, count)
                rows.append(codec.quantise(z)[1][:, :codebooks])
        yield torch.cat(rows)
        done += count


@torch.no_grad()
def decode_blocks(codec: Codec, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Blocks of codes (C, K, any) -> wav blocks (C, 512 * hop or more, but for the last)."""
    margin, states, device = decoder_margin(codec), None, next(codec.parameters()).device
    for codes, before, count in windows(blocks, 1, margin, max(BLOCK_FRAMES, MARGINS * margin)):
        states, rows = states or [codec.initial_window_state(1) for _ in codes], []
        for i, channel in enumerate(codes.to(device)):  # one after the other, to save memory
            z_q = codec.quantiser.decode_codes(channel[None])
            wav, states[i] = codec.decode_window(z_q, before, count, states[i])
            rows.append(wav[:, 0])
        yield torch.cat(rows)


@dataclass(frozen=True)
class Result:
    """What became of a file."""

    header: Header
    frames: int  # decoded; fewer than header.frames if the file was cut short

    @property
    def complete(self) -> bool:
        return self.frames == self.header.frames

    @property
    def seconds(self) -> float:
        h = self.header
        return min(h.seconds, self.frames * h.hop / h.sr)

    def facts(self) -> dict:
        h = self.header
        return {
            "seconds": self.seconds,
            "complete": self.complete,
            "sr": h.original_sr,
            "channels": h.channels,
            "model": h.model,
            "weights": h.weights,
            "codebooks": h.codebooks,
            "bytes": h.size,
            "bits_per_second": h.bits_per_second,
            "plain_bits_per_second": h.plain_bits_per_second,
        }

    def text(self) -> str:
        h = self.header
        seconds = f"{self.seconds:.1f}" if self.complete else f"only the first {self.seconds:.1f} of {h.seconds:.1f}"
        rates = f"{h.bits_per_second / 1000:.2f} kbit/s, {h.plain_bits_per_second / 1000:.2f} before entropy coding"
        kind = f"{h.channels} x {h.original_sr} Hz, {h.codebooks} codebooks"
        return f"{seconds} s of sound, {kind}, {h.size} bytes: {rates}"


def _apart(source: str | Path, target: str | Path) -> None:
    if Path(source).resolve() == Path(target).resolve():
        raise AudioError(f"{source} would overwrite itself; name another output")


def compress_file(
    source: str | Path,
    target: str | Path,
    codec: Codec,
    codebooks: int | None = None,
    force: bool = False,
    progress: bool = True,
    quick: bool = False,
    steps: int = 0,
) -> Result:
    """Code a sound file with the first `codebooks` codebooks (default: all) and write it as .wll.

    The encoder corrects its codes where looks ship for this codec (see `look`), unless it should be `quick`. `steps`:
    of the search for better codes, see `search`.
    """
    _apart(source, target)
    facts, most = files.info(source), codec.quantiser.codebooks
    codebooks = most if codebooks is None else codebooks
    if not 1 <= codebooks <= most:
        raise WavelldmError(f"this codec has 1 to {most} codebooks, not {codebooks}; choose one of these numbers")
    if steps < 0:
        raise WavelldmError(f"a search takes 0 steps (none) or more, not {steps}")
    seen, looks = 0, None if quick else looks_of(codec)
    rates = codec.sr, codec.hop, facts.sr
    header = Header(codec.name, identity(codec), *rates, facts.channels, 0, codebooks, codec.config.levels)
    with progress_bar(show=progress, total=facts.frames, desc="compressing", unit="sample", unit_scale=True) as bar:

        def blocks():
            nonlocal seen
            for block in files.read_blocks(source, seconds=10.0):
                seen += block.shape[1]
                yield block
                bar.update(block.shape[1])

        codes = encode_blocks(codec, resample_blocks(blocks(), facts.sr, codec.sr), codebooks, looks, steps)
        header = container.write(target, header, codes, lambda: seen, force)
    return Result(header, header.frames)


def decompress_file(
    source: str | Path,
    target: str | Path,
    codec: Codec | None = None,
    force: bool = False,
    progress: bool = True,
    device: str = "cpu",
) -> Result:
    """Decode a .wll file, by default with the weights that it names, to a sound file of the original rate and length.

    Of a file that is cut short, what is there is decoded: `complete` is then False.
    """
    _apart(source, target)
    header, blocks = container.read(source)
    codec = codec or weights.load(header.model, Codec, device)
    if header.weights not in (identity(codec), *codec.reads):
        raise WavelldmError(
            f"{source} was made with other weights ({header.model}, {header.weights}) than these "
            f"({codec.name}, {identity(codec)}); give the same ones with --model"
        )
    frames = 0
    with progress_bar(show=progress, total=header.frames, desc="decompressing", unit="frame", unit_scale=True) as bar:

        def counted():
            nonlocal frames
            for codes in blocks:
                frames += codes.shape[2]
                yield codes
                bar.update(codes.shape[2])
            if frames == 0:
                raise WavelldmError(f"{source} ends within its first block, so nothing can be decoded; copy it again")

        wav = take(decode_blocks(codec, counted()), header.length)
        wav = take(resample_blocks(wav, codec.sr, header.original_sr), header.samples)
        files.save_blocks(target, wav, header.original_sr, force=force)
    return Result(header, frames)
