"""`wavelldm live`: clean what a microphone hears, while it is heard."""

import argparse
import sys
from typing import TYPE_CHECKING

from ..errors import WavelldmError
from .options import add_force, command, number, show

if TYPE_CHECKING:
    from ..light.live import Live

EXAMPLES = """  wavelldm live                                    from microphone to loudspeaker (wear headphones)
  wavelldm live --devices                          which sound devices there are
  wavelldm live --microphone 3 --loudspeaker 5
  wavelldm live --input talk.wav --output out.wav  a file, at the pace of a microphone"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "live",
        run_live,
        "clean what a microphone hears, while it is heard",
        "Clean the sound of a microphone and play it, about 70 ms late. Type b and Enter to hear the sound as it "
        "comes, and again to hear it cleaned; q and Enter or Ctrl-C to end. If the computer is too slow, the sound "
        "passes as it is for two seconds. With --input and --output files take the place of microphone and "
        "loudspeaker; the result is late by as much.",
        EXAMPLES,
    )
    sub.add_argument("--devices", action="store_true", help="list the sound devices, and end")
    sub.add_argument("--microphone", metavar="DEVICE", help="number or name (default: that of the system)")
    sub.add_argument("--loudspeaker", metavar="DEVICE", help="number or name (default: that of the system)")
    sub.add_argument("--input", metavar="FILE", help="instead of the microphone")
    sub.add_argument("--output", metavar="FILE", help="instead of the loudspeaker")
    sub.add_argument("--model", default="live", metavar="NAME", help="base16k (default), or a stream that you exported")
    sub.add_argument("--strength", type=number(0, 4), default=1.0, help="as in wavelldm denoise (default: 1)")
    sub.add_argument(
        "--keep-background", type=number(0, 1), default=0.0, metavar="SHARE", help="as in wavelldm denoise (default: 0)"
    )
    add_force(sub)


def run_live(args: argparse.Namespace) -> None:
    from ..light import denoiser, live

    files = (args.input, args.output)
    if args.devices:
        print(live.devices())
        return
    if any(files) and not all(files):
        raise WavelldmError("--input and --output belong together; give both, or neither")
    if any(files) and (args.microphone or args.loudspeaker):
        raise WavelldmError("name files or devices, not both")
    if args.force and not any(files):
        raise WavelldmError("--force overwrites a file, and there is none; add --input and --output, or leave it out")
    if args.json and not any(files):
        raise WavelldmError("--json tells of a file; add --input and --output, or leave it out")
    model = denoiser.load(args.model)
    if model.graph.facts.form != "stream":
        raise WavelldmError(f"{model.name} hears recordings to their end; choose base16k for what is live")
    choices = {"strength": args.strength, "background": args.keep_background}
    if any(files):
        found = live.from_file(model, args.input, args.output, args.force, Screen().show, **choices)
        facts = {"output": args.output, "load": found.load, "worst": found.worst, "overloads": found.overloads}
        facts["delay"] = found.delay / found.sr
        text = f"{args.input} -> {args.output} ({1_000 * facts['delay']:.0f} ms late, load {100 * found.load:.0f} %, "
        show(args, facts, text + f"the worst block {100 * found.worst:.0f} %, {found.overloads} overloads)")
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise WavelldmError("live needs a terminal to be ended from; give files with --input and --output instead")
    microphone, loudspeaker = (int(d) if d and d.isdigit() else d for d in (args.microphone, args.loudspeaker))
    live.from_microphone(model, microphone, loudspeaker, Screen(keys=True).show, **choices)


class Screen:
    """A status line on standard error, where that is a terminal, and the keys b and q."""

    def __init__(self, keys: bool = False):
        self.keys, self.calls = keys, 0

    def show(self, live: "Live") -> bool:
        """Show how `live` does; do what was typed. Whether it is enough."""
        self.calls += 1
        if sys.stderr.isatty() and (self.keys or self.calls % 6 == 0):
            print(f"\r{live.status()}", end="", file=sys.stderr, flush=True)
        typed = typed_line() if self.keys else ""
        live.bypass ^= typed == "b"
        return typed == "q"


def typed_line() -> str:
    """What was typed and ended with Enter since the last time."""
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.getwch().lower() if msvcrt.kbhit() else ""
    import select

    return sys.stdin.readline().strip().lower() if select.select([sys.stdin], [], [], 0)[0] else ""
