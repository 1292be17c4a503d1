"""`wavelldm denoise` and `wavelldm refine`: clean recordings, and refine what a denoiser left."""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WavelldmError
from .options import add_device, add_force, add_seed, command, jobs_of, number, over_files, show, whole

if TYPE_CHECKING:
    from . import streams

DENOISE = """  wavelldm denoise talk.wav                       writes talk.denoised.wav
  wavelldm denoise talk.mp3 -o clean.flac
  wavelldm denoise 'talks/*.mp3' recordings/ -o cleaned/
  wavelldm denoise talk.wav --strength 0.7 --keep-background 0.1
  ffmpeg -i talk.mp3 -f wav - | wavelldm denoise - > clean.wav
  arecord -f S16_LE -r 16000 | wavelldm denoise - | aplay"""

REFINE = """  wavelldm refine noisy.wav enhanced.wav -o refined.wav
  wavelldm refine noisy.wav --first base16k
  wavelldm refine noisy.wav enhanced.wav --plus --steps 50
  wavelldm refine noisy.wav enhanced.wav --eta_a none --eta_b 1     a draw from the posterior"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "denoise",
        run_denoise,
        "clean recordings",
        "Clean one recording, several, or folders. Length, loudness, sample rate, channels and sample format stay as "
        "they are; files of any length are worked through in constant memory. A file that cannot be cleaned is named, "
        "the others are cleaned all the same, and the exit code is 1. An existing output is never overwritten without "
        "--force. The input - is a WAV stream on standard input: it is cleaned as it arrives and written to standard "
        "output.",
        DENOISE,
    )
    sub.add_argument("input", nargs="+", help="sound files, folders or patterns, or - for standard input")
    sub.add_argument("-o", "--output", help="the file to write, or a folder if there are several inputs")
    sub.add_argument(
        "--model",
        default="best",
        metavar="NAME",
        help="which denoiser: studio16k, base16k, wavelldm, segan, waveform, logmmse, or weights that you trained, by "
        "their path (default: studio16k for files, base16k for streams)",
    )
    sub.add_argument(
        "--steps",
        type=whole(1, 1000),
        default=1,
        help="steps of the diffusion's sampler, and with --restore of what fills gaps (default: 1)",
    )
    sub.add_argument("--sampler", help="ddim, ddpm, dpmpp_2m ... (default: the one the model was made for)")
    sub.add_argument(
        "--strength",
        type=number(0, 4),
        default=1.0,
        help="turn noise down by this many times the decibels: 0 to 4 (default: 1)",
    )
    sub.add_argument(
        "--keep-background",
        type=number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="put this share of the noise back: 0 to 1 (default: 0)",
    )
    sub.add_argument(
        "--restore",
        action="store_true",
        help="also repair what is damaged, see `wavelldm restore`; a stream then waits 12 s",
    )
    sub.add_argument(
        "--stream", action="store_true", help="clean files as a stream is cleaned: in small blocks, as they come"
    )
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

    sub = command(
        commands,
        "refine",
        run_refine,
        "let a prior of clean speech refine what a denoiser left",
        "Diffiner: what a denoiser took away says how far each bin of the noisy recording can be trusted, and a "
        "diffusion prior of clean speech draws the rest. ENHANCED may come from any program; a constant delay and a "
        "wrong level are found, corrected and named. It makes speech sound cleaner, and does not bring it nearer to "
        "the original: measures with a reference may fall. The prior works at 16 kHz; what lies above its band stays "
        "as it was.",
        REFINE,
    )
    sub.add_argument("noisy", help="the noisy recording")
    sub.add_argument("enhanced", nargs="?", help="what a denoiser made of it: as long, at the same rate")
    sub.add_argument("-o", "--output", help="the file to write (default: noisy.refined.wav beside the input)")
    sub.add_argument(
        "--first",
        metavar="MODEL",
        help="instead of ENHANCED: run one of our denoisers first (studio16k, base16k, wavelldm, logmmse)",
    )
    sub.add_argument(
        "--prior",
        default="prior16k",
        metavar="NAME",
        help="weights of the speech prior, by name or path (default: the one that ships)",
    )
    sub.add_argument("--steps", type=whole(1, 1000), default=30, help="steps of the diffusion (default: 30)")
    sub.add_argument("--plus", action="store_true", help="Diffiner+: keep a share of the noise from step to step")
    sub.add_argument(
        "--eta_a",
        type=share_or_none,
        metavar="SHARE",
        help="fresh noise where the observation is good: 0 to 1, or none for DDPM's own step (default: 0.9, with "
        "--plus 0.4)",
    )
    sub.add_argument(
        "--eta_b",
        type=number(0, 1),
        metavar="SHARE",
        help="how far to lean on the observation where it is bad: 0 to 1 (default: 0.9, with --plus 0.6)",
    )
    sub.add_argument(
        "--eta_c",
        type=number(0, 1),
        metavar="SHARE",
        help="only with --plus: the observation's share of the noise: 0 to 1 (default: 0)",
    )
    add_seed(sub)
    add_device(sub)
    add_force(sub)


def share_or_none(text: str) -> float | str:
    return text if text == "none" else number(0, 1)(text)


# denoise --------------------------------------------------------------------------------------------------------------


def run_denoise(args: argparse.Namespace) -> int:
    backend = backend_of(args)
    standard_input = "-" in args.input
    if standard_input:
        check_standard_input(args)
    else:
        jobs = jobs_of(args.input, args.output)
    live = (standard_input or args.stream) and args.model == "best"
    name, begin, clean_file = (with_onnx if backend == "onnx" else with_torch)(args, "live" if live else args.model)
    if standard_input:
        return denoise_standard_input(args, name, begin)

    def clean(source: Path, target: Path) -> tuple[dict, str]:
        facts = clean_file(source, target)
        text = f"{source} -> {target} ({facts.seconds:.1f} s of sound, model {name})"
        return {"seconds": round(facts.seconds, 3)}, text

    return over_files(args, jobs, clean, {"seconds": None, "model": name}, "cleaned")


def backend_of(args: argparse.Namespace) -> str:
    """onnx or torch. Where the command does not say, onnxruntime, if it is there and can do what is asked: it starts
    within half a second."""
    asked = {
        "--steps": args.steps != 1,
        "--sampler": args.sampler is not None,
        "--device": args.device != "cpu",
    }
    only_torch = [option for option, given in asked.items() if given]
    if args.backend == "onnx" and only_torch:
        raise WavelldmError(f"{only_torch[0]} needs PyTorch; leave --backend onnx out")
    if args.backend != "auto":
        return args.backend
    from ..light import denoiser

    able = find_spec("onnxruntime") is not None and not only_torch and denoiser.knows(args.model)
    return "onnx" if able or find_spec("torch") is None else "torch"


Work = tuple[str, Callable, Callable]  # a model's name, what begins a session, what cleans a file


def with_torch(args: argparse.Namespace, model: str) -> Work:
    import torch

    from ..denoise import denoiser
    from ..denoise.chain import Settings
    from . import streams

    torch.set_num_threads(1)  # the networks are so small that more threads would mostly wait for each other
    settings = Settings(args.steps, args.sampler, args.strength, args.keep_background, args.seed, args.restore)
    found = denoiser.load(model, args.device)

    def begin(sr: int, channels: int) -> "streams.Arrays":
        return streams.Arrays(found.stream(sr, channels, settings))

    clean = partial(found.enhance_file, force=args.force, settings=settings, live=args.stream)
    return found.name, begin, clean


def with_onnx(args: argparse.Namespace, model: str) -> Work:
    from ..light import denoiser

    repair = denoiser.Repair(seed=args.seed) if args.restore else None
    found = denoiser.load(model)
    choices = {"strength": args.strength, "background": args.keep_background, "repair": repair}
    clean = partial(found.enhance_file, force=args.force, live=args.stream, **choices)
    return found.name, partial(found.stream, **choices), clean


def check_standard_input(args: argparse.Namespace) -> None:
    to_file = args.output not in (None, "-")
    if len(args.input) > 1:
        raise WavelldmError("standard input (-) comes alone; name the files in a second command")
    if args.json and not to_file:
        raise WavelldmError("the sound itself goes to standard output, so there is no room for --json; add -o FILE")
    if args.force and not to_file:
        raise WavelldmError("--force overwrites a file, and there is none; add -o FILE or leave --force out")


def denoise_standard_input(args: argparse.Namespace, name: str, begin: Callable) -> int:
    from . import streams

    to_file = args.output not in (None, "-")
    source, sink = streams.standard_input(), None if to_file else streams.standard_output()
    if not to_file:
        streams.denoise(begin, source, sink)
        return 0
    seconds = streams.denoise_to_file(begin, source, args.output, args.force)
    facts = {"input": "-", "output": args.output, "seconds": round(seconds, 3), "model": name, "error": None}
    show(args, [facts], f"standard input -> {args.output} ({seconds:.1f} s of sound, model {name})")
    return 0


# refine ---------------------------------------------------------------------------------------------------------------


def run_refine(args: argparse.Namespace) -> None:
    from .. import weights
    from ..refine import files
    from ..refine.prior import SpeechPrior

    if args.eta_c is not None and not args.plus:
        raise WavelldmError("--eta_c belongs to Diffiner+; add --plus, or leave it out")
    defaults = files.PAPER_PLUS if args.plus else files.PAPER
    given = (args.eta_a, args.eta_b, args.eta_c)
    eta_a, eta_b, eta_c = (default if value is None else value for value, default in zip(given, defaults))
    choices = files.Choices(args.steps, None if eta_a == "none" else eta_a, eta_b, eta_c, args.seed)
    target = args.output or Path(args.noisy).with_suffix(f".refined{Path(args.noisy).suffix}")
    prior = weights.load(args.prior, SpeechPrior, args.device)
    facts = files.refine_file(args.noisy, args.enhanced, target, prior, choices, args.first, args.force)
    done = f"{args.noisy} -> {target} ({facts['seconds']:.1f} s of sound, {args.steps} steps)"
    show(args, facts, "\n".join([*facts["notes"], done]))
