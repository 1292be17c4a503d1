"""`wavelldm restore`: repair what is lost of a recording, and say what was found and done."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AudioError, WavelldmError
from .options import add_device, add_force, add_seed, command, explain, whole

if TYPE_CHECKING:
    from ..audio.files import AudioInfo
    from ..denoise.chain import Settings
    from ..denoise.denoiser import Denoiser, Look
    from ..restore.find import Damage

EXAMPLES = """  wavelldm restore call.wav                       writes call.restored.wav
  wavelldm restore call.wav --picture call.png    and a picture with the repaired places marked
  wavelldm restore call.wav --gaps 1.20-1.45,3.0-3.2
  wavelldm restore calls/ -o restored/ --json
  wavelldm denoise call.wav --restore             clean it too"""
SHOWN = 60.0  # seconds of a recording that a picture shows


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "restore",
        run_restore,
        "repair what is lost of a recording",
        "Find what is damaged (gaps, clipped peaks, overload), repair it, and leave all else as it is, to the bit. "
        "Length, loudness, sample rate, channels and sample format stay as they are. A recording without damage comes "
        "out as it went in. What is found is an estimate: name gaps yourself where you know them. The network knows "
        "speech; above 8 kHz a filled gap is silent.",
        EXAMPLES,
    )
    sub.add_argument("input", nargs="+", help="sound files, folders or patterns")
    sub.add_argument("-o", "--output", help="the file to write, or a folder if there are several inputs")
    sub.add_argument(
        "--only", metavar="KINDS", help="of damage that is repaired, such as gaps,clip (default: all that is known)"
    )
    sub.add_argument(
        "--gaps",
        metavar="PLACES",
        help="what is lost, in seconds, such as 1.20-1.45,3.0-3.2, or a JSON file with such pairs; then none are "
        "looked for",
    )
    sub.add_argument(
        "--steps",
        type=whole(0, 1000),
        default=1,
        help="0: straight lines between the spectra on both sides; 1: what the network expects there; more: one of "
        "the things that it holds possible, in so many steps (default: 1)",
    )
    sub.add_argument(
        "--bold",
        action="store_true",
        help="let the network fill gaps even where noise is louder than speech by 7 dB, where it invents speech",
    )
    sub.add_argument("--picture", metavar="FILE", help="a PNG of before and after, repaired places marked (one input)")
    add_seed(sub)
    add_device(sub)
    add_force(sub, "existing files")


def run_restore(args: argparse.Namespace) -> int:
    import torch

    from ..denoise import denoiser
    from ..denoise.chain import DEFAULTS, Settings

    torch.set_num_threads(1)  # the networks are so small that more threads would mostly wait for each other
    kinds = (
        DEFAULTS.kinds if args.only is None else tuple(word.strip() for word in args.only.split(",") if word.strip())
    )
    settings = Settings(args.steps, seed=args.seed, restore=True, kinds=kinds, bold=args.bold)
    if args.gaps is not None and "gaps" not in kinds:
        raise WavelldmError("--gaps names gaps, and --only leaves them out; leave one of them out")
    if "-" in args.input:
        raise WavelldmError("restore hears a recording twice, so it takes files; for a stream: denoise - --restore")
    jobs = denoiser.jobs(args.input, args.output, "restored")
    if args.picture and len(jobs) > 1:
        raise WavelldmError(f"--picture draws one recording, and there are {len(jobs)}; restore them one by one")
    model, rows, worst = denoiser.Untouched(args.device), [], 0
    try:
        for source, target in jobs:
            row, code = restore_one(args, model, settings, source, target)
            rows.append(row)
            worst = max(worst, code)
    finally:  # also when it is stopped: what is done is done
        if args.json:
            print(json.dumps(rows, indent=2))
    failed = [row["input"] for row in rows if row["error"]]
    if failed and len(rows) > 1:
        print(f"{len(failed)} of {len(rows)} files were not restored: {', '.join(failed)}", file=sys.stderr)
    return worst


def restore_one(
    args: argparse.Namespace, model: "Denoiser", settings: "Settings", source: Path, target: Path
) -> tuple[dict, int]:
    """Restore one file -> what was found and done, and its exit code. One that cannot be read does not end the run."""
    row = {"input": str(source), "output": str(target), "seconds": None, "found": [], "error": None}
    try:
        look, facts = found(source, settings, args.gaps)
        row["found"] = [entry for i, d in enumerate(look.damages) for entry in entries(i, d, facts)]
        facts = model.enhance_file(source, target, args.force, settings=settings, look=look)
        row["seconds"] = round(facts.seconds, 3)
        if args.picture:
            draw(source, target, row, args.picture, args.force)
    except Exception as error:
        about_settings = isinstance(error, WavelldmError) and not isinstance(error, AudioError)
        if args.debug or about_settings:
            raise
        code, row["error"] = explain(error)
        place = "" if isinstance(error, AudioError) else f"{source}: "
        print(f"wavelldm restore: {place}{row['error']}", file=sys.stderr)
        return row, code
    if not args.json:
        print(f"{source} -> {target} ({row['seconds']:.1f} s of sound)\n{table(row)}", flush=True)
    return row, 0


def found(source: Path, settings: "Settings", named: str | None) -> tuple["Look", "AudioInfo"]:
    """What a first look finds, with the gaps that a user names in place of those that were found."""
    from dataclasses import replace

    from ..audio import files
    from ..denoise.denoiser import look_at
    from ..restore.find import read_gaps

    facts = files.info(source)
    look = look_at(files.read_blocks(source, seconds=10.0), facts.sr, damage=True)
    damages = look.damages
    if named is not None:
        each = read_gaps(named, facts.sr, facts.frames, facts.channels)
        damages = tuple(replace(d, gaps=gaps) for d, gaps in zip(damages, each))
    if "gaps" not in settings.kinds:
        damages = tuple(replace(d, gaps=()) for d in damages)
    if "clip" not in settings.kinds:
        damages = tuple(replace(d, ceiling=None, curve=None) for d in damages)
    return replace(look, damages=damages), facts


def entries(channel: int, damage: "Damage", facts: "AudioInfo") -> list[dict]:
    """The damage of one channel as rows of a table."""
    rows: list[dict] = []
    if damage.curve is not None:
        rows.append({"channel": channel, "kind": "overload", "ceiling": round(damage.curve.ceiling, 4)})
    if damage.ceiling is not None:
        low, high = (round(x, 4) if abs(x) < 100 else None for x in damage.ceiling)
        rows.append({"channel": channel, "kind": "clip", "low": low, "high": high})
    for a, b in damage.gaps:
        rows.append({"channel": channel, "kind": "gap", "start": round(a / facts.sr, 3), "end": round(b / facts.sr, 3)})
    return rows


def sentence(entry: dict) -> str:
    """What was found and done, in a line."""
    if entry["kind"] == "overload":
        return f"soft overload below {entry['ceiling']:.3f}, its curve undone"
    if entry["kind"] == "clip":
        ends = " and ".join(f"{entry[end]:.3f}" for end in ("low", "high") if entry[end] is not None)
        return f"samples cut off at {ends}, their peaks put back"
    return f"gap of {1000 * (entry['end'] - entry['start']):.0f} ms at {entry['start']:.3f} s, filled"


def table(row: dict) -> str:
    """What was found, a line each."""
    if not row["found"]:
        return "  nothing was found to be damaged; the sound is as it was"
    return "\n".join(f"  channel {entry['channel'] + 1}: {sentence(entry)}" for entry in row["found"])


def draw(source: Path, target: Path, row: dict, path: str, force: bool) -> None:
    """Before and after below each other, with the repaired places of the first channel marked."""
    from .. import plots
    from ..audio import files

    with files.writing(path, force) as part:
        before, sr = files.load(source, seconds=SHOWN)
        after, _ = files.load(target, seconds=SHOWN)
        figure = plots.compare({"as it was": before[:1], "restored": after[:1]}, sr)
        for ax in figure.axes[:2]:
            for entry in row["found"]:
                if entry["kind"] == "gap" and entry["channel"] == 0 and entry["end"] <= before.shape[1] / sr:
                    ax.axvspan(entry["start"], entry["end"], ymin=0.96, color=plots.ACCENT, lw=0)
        figure.savefig(part, format="png")
        plots.pyplot().close(figure)
