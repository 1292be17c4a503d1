"""The command line: `wavelldm COMMAND`. What goes wrong in a command becomes one sentence and an exit code.

Each file of this folder holds a group of commands: `add(commands)` declares their options, a function below does the
work. Only these functions import torch, so that help comes at once.
"""

import argparse
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from .. import __version__
from . import (
    app,
    batch,
    codec,
    data,
    demo,
    denoise,
    evaluate,
    export,
    info,
    ladder,
    listen,
    live,
    restore,
    text,
    train,
    web,
)
from .options import EXIT, Manual, Parser, did_you_mean, explain, unknown_option

EXAMPLES = """examples:
  wavelldm demo                                   hear and see it work
  wavelldm denoise noisy.wav                      writes noisy.denoised.wav beside it
  wavelldm denoise recordings/ -o cleaned/        a whole folder
  wavelldm restore call.wav                       fills what was lost, and leaves the rest as it is
  wavelldm mix --snr 0 10 --count 50 -o pairs     make noisy and clean pairs
  wavelldm evaluate pairs/clean cleaned pairs/noisy
  wavelldm compress talk.wav                      writes talk.wll, 3.5 kbit/s or less
  wavelldm generate "two low beeps, then rain"    makes a sound of a sentence"""


def parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and those of its commands by name."""
    top = Parser(
        prog="wavelldm",
        formatter_class=Manual,
        description="Latent diffusion for audio: clean a recording, make training data, measure the result.",
        epilog=f"{EXAMPLES}\n\nThe manual of a command: wavelldm COMMAND --help\n\n{EXIT}",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"wavelldm {__version__}")
    top.set_defaults(parser=top)
    commands = top.add_subparsers(title="commands", metavar="COMMAND [options]", dest="command")
    for module in (
        demo,
        denoise,
        live,
        batch,
        restore,
        codec,
        text,
        train,
        evaluate,
        listen,
        app,
        data,
        ladder,
        export,
        web,
        info,
    ):
        module.add(commands)
    return top, commands.choices


def read(argv: list[str]) -> argparse.Namespace:
    """The command line as arguments. A mistake in it ends the program with exit code 2."""
    top, commands = parser()
    name = next((word for word in argv if not word.startswith("-")), None)
    if name is not None and name not in commands:
        top.error(f"there is no command '{name}'{did_you_mean(name, list(commands))}")
    if "" in argv:  # as a path it would mean the current folder
        (commands[name] if name else top).error("one of the words is empty; is a variable of the shell not set?")
    args, left = top.parse_known_args(argv)
    if left:
        args.parser.error(unknown_option(args.parser, left))
    if args.command is None:
        top.print_help()
        args.run = lambda args: 0
    return args


def give_up_output() -> None:
    """Nothing more can be written to standard output: throw away what is left, or Python would complain as it ends."""
    with suppress(OSError):  # not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def terminated(signum: int, frame: FrameType | None) -> None:
    """Answer SIGTERM like Ctrl-C, so that temporary files are removed."""
    sys.exit(128 + signum)


def main(argv: list[str] | None = None) -> int:
    args = read(sys.argv[1:] if argv is None else argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)
    try:
        code = args.run(args) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # as in `wavelldm ... | head`: the reader has seen enough
        give_up_output()
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        code, message = explain(error)
        print(f"wavelldm {args.command}: {message}", file=sys.stderr)
        if isinstance(error, OSError) and error.filename is None:  # of standard output itself
            give_up_output()
        elif args.json:
            print(json.dumps({"error": message}, indent=2))
        return code


if __name__ == "__main__":
    sys.exit(main())
