"""`wavelldm restore`: repair what is lost of a recording, and say what was found and done."""

import argparse
import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ..errors import WavelldmError
from .options import add_device, add_force, add_seed, command, jobs_of, over_files, whole

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
        "Length, sample rate, channels and sample format stay as they are. A recording without damage comes out as it "
        "went in. If peaks that are put back do not fit into the file, all of it is turned down. What is found is an "
        "estimate: name gaps yourself where you know them. The network knows speech; above 8 kHz a gap stays silent.",
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
    sub.add_argument(
        "--backend",
        choices=["auto", "torch", "onnx"],
        default="auto",
        help="what runs the network: PyTorch, or onnxruntime alone, with the same results (default: onnxruntime if it "
        "is there and can do what is asked)",
    )
    add_seed(sub)
    add_device(sub)
    add_force(sub, "existing files")


def run_restore(args: argparse.Namespace) -> int:
    from ..light import files
    from ..light.find import entries, read_gaps
    from ..light.restorer import KINDS

    words = KINDS if args.only is None else tuple(word.strip() for word in args.only.split(","))
    restorer = (with_onnx if backend_of(args) == "onnx" else with_torch)(args, words)
    if args.gaps is not None and "gaps" not in words:
        raise WavelldmError("--gaps names gaps, and --only leaves them out; leave one of them out")
    if "-" in args.input:
        raise WavelldmError("restore hears a recording twice, so it takes files; for a stream: denoise - --restore")
    jobs = jobs_of(args.input, args.output, "restored")
    if args.picture and len(jobs) > 1:
        raise WavelldmError(f"--picture draws one recording, and there are {len(jobs)}; restore them one by one")
    if args.picture and Path(args.picture).exists() and not args.force:
        raise WavelldmError(f"{args.picture} exists already; name another picture, or add --force")
    look_at, restored = restorer

    def restore(source: Path, target: Path) -> tuple[dict, str]:
        before = files.info(source)
        gaps = None if args.gaps is None else read_gaps(args.gaps, before.sr, before.frames, before.channels)
        look = look_at(source, target, gaps=gaps)
        facts = restored(source, target, look=look)
        found = [entry for i, damage in enumerate(look.damages) for entry in entries(i, damage, facts.sr)]
        down = round(-20 * math.log10(look.gain), 2)
        if args.picture:
            draw(source, target, found, args.picture)
        text = f"{source} -> {target} ({facts.seconds:.1f} s of sound)\n{table(found, down)}"
        return {"seconds": round(facts.seconds, 3), "found": found, "turned_down_db": down}, text

    return over_files(args, jobs, restore, {"seconds": None, "found": [], "turned_down_db": None}, "restored")


def backend_of(args: argparse.Namespace) -> str:
    """onnx or torch. Where the command does not say, onnxruntime, if it is there and can do what is asked."""
    asked = {"--steps": args.steps > 1, "--device": args.device != "cpu", "--picture": args.picture is not None}
    only_torch = [option for option, given in asked.items() if given]
    if args.backend == "onnx" and only_torch:
        raise WavelldmError(f"{only_torch[0]} needs PyTorch; leave --backend onnx out")
    if args.backend != "auto":
        return args.backend
    able = find_spec("onnxruntime") is not None and not only_torch
    return "onnx" if able or find_spec("torch") is None else "torch"


Work = tuple[Callable, Callable]  # what looks at a file, what restores it


def with_torch(args: argparse.Namespace, kinds: tuple[str, ...]) -> Work:
    import torch

    from ..denoise import denoiser
    from ..denoise.chain import Settings

    torch.set_num_threads(1)  # the networks are so small that more threads would mostly wait for each other
    settings = Settings(args.steps, seed=args.seed, restore=True, kinds=kinds, bold=args.bold)
    clean = partial(denoiser.Untouched(args.device).enhance_file, force=args.force, settings=settings)
    return partial(denoiser.look_at_file, settings=settings), clean


def with_onnx(args: argparse.Namespace, kinds: tuple[str, ...]) -> Work:
    from ..light import denoiser

    repair = denoiser.Repair(args.steps, args.seed, kinds, args.bold)
    clean = partial(denoiser.untouched().enhance_file, force=args.force, repair=repair)
    return partial(denoiser.look_at_file, repair=repair), clean


def table(found: list[dict], down: float) -> str:
    """What was found, a line each, and by how many dB the whole was turned down."""
    if not found:
        return "  nothing was found to be damaged; the sound is as it was"
    from ..light.find import sentence

    lines = [f"  channel {entry['channel'] + 1}: {sentence(entry)}" for entry in found]
    return "\n".join(lines + [f"  turned down by {down:.1f} dB, so that the peaks fit into the file"] * (down > 0))


def draw(source: Path, target: Path, found: list[dict], path: str) -> None:
    """Before and after below each other, with the repaired places of the first channel marked."""
    from .. import plots
    from ..audio import files

    with files.writing(path, force=True) as part:
        before, sr = files.load(source, seconds=SHOWN)
        after, _ = files.load(target, seconds=SHOWN)
        figure = plots.compare({"as it was": before[:1], "restored": after[:1]}, sr)
        for ax in figure.axes[:2]:
            for entry in found:
                if entry["kind"] == "gap" and entry["channel"] == 0 and entry["end"] <= before.shape[1] / sr:
                    ax.axvspan(entry["start"], entry["end"], ymin=0.96, color=plots.ACCENT, lw=0)
        figure.savefig(part, format="png")
        plots.pyplot().close(figure)
