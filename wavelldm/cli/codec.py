"""`wavelldm compress` and `wavelldm decompress`: recordings as codes of the neural codec."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WavelldmError
from .options import add_device, add_force, command, number, show, whole

if TYPE_CHECKING:
    from ..light import packets

COMPRESS = """  wavelldm compress talk.wav                      writes talk.wll
  wavelldm compress talk.wav -o small.wll --codebooks 2
  wavelldm compress talk.wav -o best.wll --search 100
  wavelldm compress talk.wav --live               writes talk.wlp: packets, each 40 ms after its sound
  arecord -f S16_LE -r 16000 | wavelldm compress --live - | nc HOST 9000"""

DECOMPRESS = """  wavelldm decompress talk.wll                    writes talk.decoded.wav
  wavelldm decompress talk.wll -o talk.flac
  wavelldm decompress talk.wlp --loss 0.1         as if one packet in ten were lost
  nc -l 9000 | wavelldm decompress - | aplay"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "compress",
        run_compress,
        "make a recording very small",
        "Write a recording as the codes of the neural codec, in a .wll file that also keeps rate, channels and length. "
        "Files of any length are worked through in constant memory. An existing output is never overwritten without "
        "--force.",
        COMPRESS,
    )
    sub.add_argument("input", help="a sound file; with --live also -, a WAV stream on standard input")
    sub.add_argument("-o", "--output", help="the .wll file to write (default: beside the input)")
    sub.add_argument(
        "--live",
        action="store_true",
        help="for talking: packets that can be decoded as they come, and where some are lost; mono, at 16 kHz",
    )
    sub.add_argument(
        "--repeat",
        type=whole(0, 9),
        default=0,
        metavar="N",
        help="with --live: each packet holds the N frames before it once more, in case they are lost (default: 0)",
    )
    sub.add_argument(
        "--codebooks",
        type=whole(1),
        metavar="N",
        help="how many codebooks to keep: fewer are smaller and sound worse (default: all)",
    )
    sub.add_argument(
        "--model",
        metavar="NAME",
        help="the codec: weights that ship, or that you trained, by their path (default: voice16k, with --live "
        "voice16k-live)",
    )
    sub.add_argument(
        "--search",
        type=whole(0, 100_000),
        default=0,
        metavar="STEPS",
        help="look for better codes: as many bits, better sound; 100 steps take some 3 s per second (default: 0)",
    )
    sub.add_argument(
        "--quick", action="store_true", help="do not correct the codes: thirty times as fast, sounds worse"
    )
    add_device(sub)
    add_force(sub)

    sub = command(
        commands,
        "decompress",
        run_decompress,
        "make sound of a .wll file again",
        "Decode a .wll file at the original rate, channels and length. A damaged file is refused; of one that is cut "
        "short what is there is written, and the exit code is 1. An existing output is never overwritten without "
        "--force.",
        DECOMPRESS,
    )
    sub.add_argument("input", help="a .wll or .wlp file, or -, packets on standard input")
    sub.add_argument("-o", "--output", help="the sound file to write (default: a wav beside the input)")
    sub.add_argument(
        "--loss",
        type=number(0, 0.9),
        default=0.0,
        metavar="SHARE",
        help="of packets: leave out this share, in gaps, to hear what their loss does (default: 0)",
    )
    sub.add_argument(
        "--model", metavar="NAME", help="the codec it was made with (default: the shipped one that it names)"
    )
    add_device(sub)
    add_force(sub)


def run_compress(args: argparse.Namespace) -> None:
    if args.live:
        return compress_live(args)
    if args.input == "-" or args.repeat:
        raise WavelldmError(f"{'--repeat' if args.repeat else 'standard input'} is for packets; add --live")
    from .. import weights
    from ..codec import compress
    from ..codec.model import Codec

    target = Path(args.output or Path(args.input).with_suffix(".wll"))
    if target.suffix != ".wll":
        raise WavelldmError(f"compressed sound goes to a .wll file; name the output {target.with_suffix('.wll').name}")
    codec = weights.load(args.model or "voice16k", Codec, args.device)
    result = compress.compress_file(
        args.input, target, codec, args.codebooks, force=args.force, quick=args.quick, steps=args.search
    )
    facts = {"input": args.input, "output": str(target), **result.facts()}
    show(args, facts, f"{args.input} -> {target} ({result.text()})")


def compress_live(args: argparse.Namespace) -> None:
    from ..light import files, packets
    from ..progress import progress_bar
    from . import streams

    for option, given in (("--search", args.search), ("--quick", args.quick)):
        if given:
            raise WavelldmError(f"packets are made while one speaks, so there is no {option}; leave it out")
    stream = args.input == "-"
    target = args.output or ("-" if stream else str(Path(args.input).with_suffix(".wlp")))
    check_streams(args, target)
    if target != "-" and Path(target).suffix != ".wlp":
        raise WavelldmError(f"packets go to a .wlp file; name the output {Path(target).with_suffix('.wlp').name}")
    sender = packets.Sender(coder_of(args), args.codebooks, args.repeat)
    if stream:
        source = streams.standard_input()
        form = streams.read_format(source)
        sr, total, blocks = form.sr, None, streams.read_blocks(source, form)
    else:
        facts = files.info(args.input)
        sr, total, blocks = facts.sr, facts.frames, files.read_blocks(args.input, seconds=1.0)
    heard = 0
    with progress_bar(show=not stream, total=total, desc="compressing", unit="sample", unit_scale=True) as bar:

        def counted():
            nonlocal heard
            for block in blocks:
                heard += block.shape[1]
                bar.update(block.shape[1])
                yield block

        sent = packets.packets_of(sender, counted(), sr)
        if target == "-":
            packets.write_packets(streams.standard_output(), sent)
            return
        with files.writing(target, args.force) as part, open(part, "wb") as file:
            count, size = packets.write_packets(file, sent)
    rate = 8 * size * sr / max(heard, 1) / 1000
    facts = {"input": args.input, "output": target, "seconds": heard / sr, "model": sender.coder.name}
    text = f"{heard / sr:.1f} s of sound, {count} packets, {size} bytes: {rate:.2f} kbit/s"
    show(args, facts | {"packets": count, "bytes": size}, f"{args.input} -> {target} ({text})")


def coder_of(args: argparse.Namespace) -> "packets.Coder":
    """The codec that streams: with onnxruntime where its graphs are there and nothing else is asked."""
    from ..light import talk

    if args.model is None and args.device == "cpu" and talk.ready():
        return talk.load()
    import torch

    from .. import weights
    from ..codec.model import Codec
    from ..codec.talk import coder

    torch.set_num_threads(1)
    return coder(weights.load(args.model or "voice16k-live", Codec, args.device))


def check_streams(args: argparse.Namespace, target: str) -> None:
    if target == "-" and args.json:
        raise WavelldmError("the result itself goes to standard output, so there is no room for --json; add -o FILE")
    if target == "-" and args.force:
        raise WavelldmError("--force overwrites a file, and there is none; add -o FILE or leave --force out")


def run_decompress(args: argparse.Namespace) -> int:
    if args.input == "-" or Path(args.input).suffix == ".wlp":
        return decompress_packets(args)
    if args.loss:
        raise WavelldmError("--loss is for packets (.wlp); a .wll file is whole or is refused")
    from .. import weights
    from ..codec import compress
    from ..codec.model import Codec

    target = args.output or Path(args.input).with_suffix(".decoded.wav")
    codec = weights.load(args.model, Codec, args.device) if args.model else None
    result = compress.decompress_file(args.input, target, codec, force=args.force, device=args.device)
    facts = {"input": args.input, "output": str(target), **result.facts(), "error": None}
    if not result.complete:
        facts["error"] = (
            f"{args.input} is cut short and {target} holds only what was there; copy it again to have the rest"
        )
        print(f"wavelldm decompress: {facts['error']}", file=sys.stderr)
    show(args, facts, f"{args.input} -> {target} ({result.text()})")
    return 0 if result.complete else 1


def decompress_packets(args: argparse.Namespace) -> int:
    from ..light import files, packets
    from . import streams

    stream = args.input == "-"
    target = args.output or ("-" if stream else str(Path(args.input).with_suffix(".decoded.wav")))
    check_streams(args, target)
    if not stream and not Path(args.input).is_file():
        raise WavelldmError(f"{args.input} does not exist or is no file; check the path")
    receiver = packets.Receiver(coder_of(args))
    sr, name = receiver.coder.sr, "standard input" if stream else args.input
    with contextlib.nullcontext(streams.standard_input()) if stream else open(args.input, "rb") as file:
        blocks = packets.decoded(receiver, packets.with_gaps(packets.read_packets(file, name), args.loss))
        if target == "-":
            streams.write(streams.standard_output(), sr, blocks)
            return 0
        seconds = files.save_blocks(target, blocks, sr, force=args.force) / sr
    facts = {"input": args.input, "output": target, "seconds": seconds, "model": receiver.coder.name}
    text = f"{seconds:.1f} s of sound, {receiver.lost} frames lost"
    show(args, facts | {"lost": receiver.lost}, f"{name} -> {target} ({text})")
    return 0
