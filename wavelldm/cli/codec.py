"""`wavelldm compress` and `wavelldm decompress`: recordings as codes of the neural codec."""

import argparse
import sys
from pathlib import Path

from ..errors import WavelldmError
from .options import add_device, add_force, command, show, whole

COMPRESS = """  wavelldm compress talk.wav                      writes talk.wll
  wavelldm compress talk.wav -o small.wll --codebooks 2
  wavelldm compress talk.wav -o best.wll --search 100"""

DECOMPRESS = """  wavelldm decompress talk.wll                    writes talk.decoded.wav
  wavelldm decompress talk.wll -o talk.flac"""


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
    sub.add_argument("input", help="a sound file")
    sub.add_argument("-o", "--output", help="the .wll file to write (default: beside the input)")
    sub.add_argument(
        "--codebooks",
        type=whole(1),
        metavar="N",
        help="how many codebooks to keep: fewer are smaller and sound worse (default: all)",
    )
    sub.add_argument(
        "--model",
        default="voice16k",
        metavar="NAME",
        help="the codec: weights that ship, or that you trained, by their path (default: voice16k)",
    )
    sub.add_argument(
        "--search",
        type=whole(0, 100_000),
        default=0,
        metavar="STEPS",
        help="look for better codes: as many bits, better sound; 100 steps take some 3 s per second (default: 0)",
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
    sub.add_argument("input", help="a .wll file")
    sub.add_argument("-o", "--output", help="the sound file to write (default: a wav beside the input)")
    sub.add_argument(
        "--model", metavar="NAME", help="the codec it was made with (default: the shipped one that it names)"
    )
    add_device(sub)
    add_force(sub)


def run_compress(args: argparse.Namespace) -> None:
    from .. import weights
    from ..codec import compress
    from ..codec.model import Codec

    target = Path(args.output or Path(args.input).with_suffix(".wll"))
    if target.suffix != ".wll":
        raise WavelldmError(f"compressed sound goes to a .wll file; name the output {target.with_suffix('.wll').name}")
    codec = weights.load(args.model, Codec, args.device)
    result = compress.compress_file(args.input, target, codec, args.codebooks, force=args.force, steps=args.search)
    facts = {"input": args.input, "output": str(target), **result.facts()}
    show(args, facts, f"{args.input} -> {target} ({result.text()})")


def run_decompress(args: argparse.Namespace) -> int:
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
