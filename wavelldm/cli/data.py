"""`wavelldm data` and `wavelldm mix`: corpora to train on, noisy and clean pairs to measure with."""

import argparse
import sys

from ..errors import WavelldmError
from .options import Parser, add_force, add_seed, command, folder, number, show, whole

DATA = """  wavelldm data list
  wavelldm data get embedded
  wavelldm data get voicebank-demand -o /mnt/corpora
  wavelldm data prepare recordings/ -o shards/"""

MIX = """  wavelldm mix                                    pairs/ from the embedded corpus
  wavelldm mix --speech my/clean --noise my/noise --snr 0 5 10 --count 200 -o pairs
  wavelldm mix --manifest corpus/manifest.tsv --split valid -o pairs"""

MINUTES = 5.0  # of speech in the embedded corpus


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "data",
        run_data,
        "list or fetch data sets, or prepare your own",
        "List the data sets this course knows, fetch one from its public home (resumed after a break, checked, "
        "unpacked safely), or build the embedded corpus, which needs no download. "
        "prepare: find the speech in raw recordings (a folder or manifest), make it equally loud, and write it to .tar "
        "shards with manifest.jsonl; the same command goes on where it stopped.",
        DATA,
    )
    sub.add_argument(
        "action", choices=("list", "get", "prepare"), help="list the data sets, get one, or prepare recordings"
    )
    sub.add_argument("name", nargs="?", help="for get: a name from the list; for prepare: the recordings")
    sub.add_argument(
        "-o",
        "--output",
        type=folder,
        metavar="FOLDER",
        help="for get: where to put it (default: the folder that `list` names)",
    )
    add_minutes(sub, "for get embedded: minutes of speech")
    sub.add_argument(
        "--lengths",
        type=number(above=0),
        nargs=2,
        default=[1.0, 20.0],
        metavar=("MIN", "MAX"),
        help="for prepare: seconds of the stretches that are kept (default: 1 20)",
    )
    sub.add_argument(
        "--level", type=number(-60, 0), default=-26.0, metavar="DB", help="for prepare: of the speech (default: -26)"
    )
    add_force(sub, "for prepare: what an earlier run left")

    sub = command(
        commands,
        "mix",
        run_mix,
        "make noisy and clean pairs",
        "Write OUTPUT/clean and OUTPUT/noisy, files of the same name, at exact signal-to-noise ratios measured on "
        "active speech, and OUTPUT/pairs.tsv, which says what each is made of. The same command again finishes what "
        "was left undone. Pairs whose files cannot be read are left out, the files are named, and the exit code is 1.",
        MIX,
    )
    sub.add_argument(
        "-o", "--output", type=folder, default="pairs", metavar="FOLDER", help="the folder to write (default: pairs)"
    )
    sub.add_argument("--speech", metavar="FOLDER", help="a folder of clean speech")
    sub.add_argument("--noise", metavar="FOLDER", help="a folder of noise")
    sub.add_argument("--manifest", metavar="TABLE", help="a manifest.tsv instead of two folders")
    sub.add_argument("--split", choices=("train", "valid"), help="which part of a manifest (default: train)")
    sub.add_argument(
        "--snr",
        type=number(-100, 100),
        nargs="+",
        default=[0.0, 5.0, 10.0, 15.0],
        metavar="DB",
        help="signal-to-noise ratios, taken in turn (default: 0 5 10 15)",
    )
    sub.add_argument("--count", type=whole(1), default=20, help="how many pairs (default: 20)")
    add_minutes(sub, "minutes of speech in the embedded corpus")
    add_seed(sub, "pairs")
    add_force(sub, "pairs that are in the folder")


def add_minutes(parser: Parser, words: str) -> None:
    parser.add_argument("--minutes", type=number(above=0, most=10_000), help=f"{words} (default: {MINUTES:g})")


def run_data(args: argparse.Namespace) -> int:
    if args.action == "list":
        list_data(args)
    elif args.action == "prepare":
        return prepare_data(args)
    else:
        get_data(args)
    return 0


def prepare_data(args: argparse.Namespace) -> int:
    from ..batch import prepare

    if not (args.name and args.output):
        raise WavelldmError(
            "name the recordings and a folder for the shards: wavelldm data prepare RECORDINGS -o SHARDS"
        )
    wanted = prepare.Wanted(*args.lengths, args.level)
    result = prepare.prepare(args.name, args.output, wanted, args.force)
    for bad in result["errors"]:
        print(f"wavelldm data: {bad['input']}: {bad['error']}", file=sys.stderr)
    text = f"{result['stretches']} stretches of speech, {result['hours']:.2f} hours: {result['manifest']}"
    show(args, result, text)
    return 1 if result["failed"] else 0


def list_data(args: argparse.Namespace) -> None:
    from ..data import download
    from ..paths import data_home

    if args.name or args.output or args.minutes:
        raise WavelldmError("`data list` takes neither a name nor options; to fetch one: wavelldm data get NAME")
    rows = download.sources()
    lines = [f"{row['name']:<24} {row['size'] / 1e9:6.2f} GB  {row['licence']}" for row in rows]
    lines.append(f"{'embedded':<24} {'':>6}     built here from espeak-ng voices and procedural noises")
    lines.append(f"data lives in {data_home()}")
    show(args, {"folder": str(data_home()), "sources": rows}, "\n".join(lines))


def get_data(args: argparse.Namespace) -> None:
    from ..data import download

    if not args.name:
        raise WavelldmError("name what to get: `wavelldm data list` shows what there is")
    if args.name == "embedded":
        from ..data import voices

        manifest = voices.build_corpus(args.output, minutes=args.minutes or MINUTES)
        show(args, {"manifest": str(manifest)}, f"the embedded corpus is ready: {manifest}")
        return
    if args.minutes:
        raise WavelldmError("--minutes is for the embedded corpus; the others are fetched whole")
    folder = download.get(args.name, args.output)
    show(args, {"folder": str(folder)}, f"{args.name} is ready: {folder}")


def run_mix(args: argparse.Namespace) -> int:
    from ..data import pairs

    speech, noise = sources(args)
    errors: list[str] = []
    table = pairs.write_pairs(
        speech,
        noise,
        args.output,
        snrs=args.snr,
        count=args.count,
        seed=args.seed,
        force=args.force,
        on_error=lambda error: errors.append(str(error)),
    )
    for error in dict.fromkeys(errors):  # each file once
        print(f"wavelldm mix: {error}", file=sys.stderr)
    if errors:
        print(f"{len(errors)} of {args.count} pairs were left out", file=sys.stderr)
    made = args.count - len(errors)
    facts = {"pairs": str(table), "count": made, "errors": list(dict.fromkeys(errors))}
    show(args, facts, f"{made} pairs are in {args.output}, described in {table}")
    return 1 if errors else 0


def sources(args: argparse.Namespace) -> tuple[list, list]:
    """Speech and noise to mix: of two folders, of a manifest, or of the embedded corpus."""
    from ..data import corpora, voices

    folders = bool(args.speech or args.noise)
    if folders and args.manifest:
        raise WavelldmError("give folders of speech and noise, or a manifest, not both")
    if folders and not (args.speech and args.noise):
        raise WavelldmError("give both --speech and --noise, or --manifest, or none of them for the embedded corpus")
    if folders and args.split:
        raise WavelldmError("--split is a part of a manifest; folders have none, so leave it out")
    if args.minutes and (folders or args.manifest):
        raise WavelldmError("--minutes is for the embedded corpus; leave it out, all that you gave is used")
    if folders:
        return corpora.folders(args.speech, args.noise)
    table = args.manifest or voices.build_corpus(minutes=args.minutes or MINUTES)
    return corpora.read_manifest(table, split=args.split or "train")
