"""`wavelldm generate` and `wavelldm tag`: from text to sound, and from sound to text."""

import argparse
import warnings
from pathlib import Path

from ..errors import WavelldmError
from .options import add_device, add_force, add_seed, command, number, show, whole

GENERATE = """  wavelldm generate "two low beeps, then rain"    writes two-low-beeps-then-rain.wav
  wavelldm generate "a low hum with rain" -o out.wav --seconds 4 --guidance 3.5 --steps 50 --seed 0
  wavelldm generate "a bell" -o bell.wav --negative "people talking" """

TAG = """  wavelldm tag in.wav                             the likeliest of the sounds it knows
  wavelldm tag in.wav --labels "rain" "a dog barking" "two beeps\""""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "generate",
        run_generate,
        "make a sound of a sentence",
        "Make the sound that a sentence describes, by diffusion. The model that ships knows some twenty kinds of "
        "sounds, alone, one after the other or together, and their pitch, number, speed and loudness; it says which "
        "words it has never met. The same options give the same sound.",
        GENERATE.rstrip(),
    )
    sub.add_argument("text", help="what is to be heard")
    sub.add_argument("-o", "--output", metavar="FILE", help="the sound file to write (default: named after the text)")
    sub.add_argument(
        "--seconds", type=number(0.25, 60), default=4.0, metavar="N", help="how long, 0.25 to 60 (default: 4)"
    )
    sub.add_argument(
        "--guidance",
        type=number(0, 20),
        default=3.5,
        metavar="N",
        help="how strictly to follow the text; 1: as trained, 0: not at all (default: 3.5)",
    )
    sub.add_argument(
        "--steps", type=whole(1, 1000), default=50, metavar="N", help="steps of the diffusion (default: 50)"
    )
    sub.add_argument("--negative", metavar="TEXT", help="what not to hear")
    sub.add_argument(
        "--model", default="scenes16k-diffusion", metavar="NAME", help="weights, by name or path (default: what ships)"
    )
    add_seed(sub, "sound")
    add_device(sub)
    add_force(sub)

    sub = command(
        commands,
        "tag",
        run_tag,
        "say what can be heard in a recording",
        "List the captions that fit a recording best, with probabilities that sum to one. Any caption can be a label: "
        "the model compares sound and text in one space.",
        TAG,
    )
    sub.add_argument("input", help="a sound file")
    sub.add_argument("--labels", nargs="+", metavar="TEXT", help="what to choose from (default: all kinds it knows)")
    sub.add_argument("--top", type=whole(1), default=5, metavar="N", help="how many to list (default: 5)")
    sub.add_argument(
        "--model", default="scenes16k-pair", metavar="NAME", help="weights, by name or path (default: what ships)"
    )
    add_device(sub)


def run_generate(args: argparse.Namespace) -> None:
    from ..audio import files
    from ..text.text2audio import load_maker, named_after

    target = Path(args.output or named_after(args.text))
    if target.exists() and not args.force:
        raise WavelldmError(f"{target} exists; give --force to overwrite it, or name another output")
    maker = load_maker(args.model, args.device)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        wav, sr = maker.generate(args.text, args.seconds, args.guidance, args.steps, args.seed, args.negative or "")
    files.save(target, wav, sr, force=args.force)
    facts = {"text": args.text, "output": str(target), "seconds": wav.shape[-1] / sr, "sample_rate": sr}
    facts["unknown"] = maker.pair.text.unknown(args.text) if maker.pair.text.words else []
    notes = "".join(f"\nnote: {w.message}" for w in found)
    show(args, facts, f"{target}: {facts['seconds']:g} s{notes}")


def run_tag(args: argparse.Namespace) -> None:
    from .. import weights
    from ..audio import files
    from ..data.scenes import KINDS
    from ..text.contrastive import TextAudioPair, tag

    labels = args.labels or [kind.one for kind in KINDS.values()]
    pair = weights.load(args.model, TextAudioPair, args.device)
    wav, sr = files.load(args.input)
    rows = tag(pair, wav, sr, labels)[: args.top]
    facts = {"input": args.input, "labels": [{"label": label, "score": round(score, 4)} for label, score in rows]}
    show(args, facts, "\n".join(f"{score:6.1%}  {label}" for label, score in rows))
