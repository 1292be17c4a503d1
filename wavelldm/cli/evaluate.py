"""`wavelldm evaluate`: measure enhanced speech against clean, as papers do, and compare two systems."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WavelldmError
from .options import add_force, command, whole

if TYPE_CHECKING:
    from ..metrics.folders import Failure, Result
    from ..metrics.protocols import Protocol

EVALUATE = """  wavelldm evaluate pairs/clean cleaned pairs/noisy
  wavelldm evaluate pairs/clean cleaned --metrics pesq_wb,stoi,si_sdr -o rows.csv
  wavelldm evaluate clean.wav cleaned.wav noisy.wav
  wavelldm evaluate pairs/clean --compare mine theirs
  wavelldm evaluate --protocol voicebank data/voicebank-demand
  wavelldm evaluate --protocol voicebank data/voicebank-demand studio16k results/theirs
  wavelldm evaluate --protocol voicebank data/voicebank-demand --compare studio16k base16k
  wavelldm evaluate --protocol ljspeech data/LJSpeech-1.1 voice16k:2 --mos test"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "evaluate",
        run_evaluate,
        "measure enhanced speech against clean",
        "Pair files by name and measure: PESQ, STOI, SI-SDR, composite scores, DNSMOS and more, with 95 % intervals of "
        "the bootstrap. With NOISY the improvement is shown too. --compare tells two systems apart by a paired test; "
        "--protocol measures a corpus as papers do. A file that cannot be read is named and left out of the means, "
        "and the exit code is 1.",
        EVALUATE,
    )
    sub.any_order = True
    sub.add_argument(
        "words",
        metavar="CLEAN ENHANCED [NOISY]",
        nargs="*",
        help="folders of clean speech, of what a denoiser made of it, and of the noisy recordings, under the same "
        "names; or three files. With --protocol, in any order: the folder of the corpus (or nothing, if 'wavelldm data "
        "get' has fetched it), and any number of folders of results and names of denoisers or codecs (voice16k:2 for "
        "two codebooks)",
    )
    sub.add_argument(
        "--protocol",
        choices=["voicebank", "ljspeech"],
        help="voicebank: the row that papers print for a denoiser on the test pairs of VoiceBank+DEMAND; "
        "ljspeech: for a codec or vocoder on LJSpeech, with predicted MOS",
    )
    sub.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two such folders (or names) instead of ENHANCED")
    sub.add_argument("--mos", metavar="TEST", help="with ljspeech: the folder of a listening test, for real MOS")
    sub.add_argument("--metrics", metavar="NAMES", help="a comma-separated choice (default: all)")
    sub.add_argument("--align", action="store_true", help="remove a constant delay before measuring")
    sub.add_argument("--per-file", action="store_true", help="show a row for every file")
    sub.add_argument("-o", "--output", metavar="FILE", help="also write the scores of every file to FILE, as CSV")
    sub.add_argument("--workers", type=whole(1), metavar="N", help="how many processes (default: one for each core)")
    add_force(sub, "the CSV file")


def check(args: argparse.Namespace) -> None:
    """Refuse what would have no effect, or cannot be meant."""
    if args.per_file and args.json:
        raise WavelldmError("JSON always holds a row for every file; leave --per-file out")
    if args.force and not args.output:
        raise WavelldmError("--force overwrites a CSV file, and there is none; add -o FILE or leave --force out")
    if args.compare and (args.output or args.per_file):
        raise WavelldmError("--compare shows means and differences; for every file measure each system by itself")
    if args.protocol and (args.metrics or args.align):
        raise WavelldmError("a protocol chooses metrics and noisy files; leave --metrics and --align out")
    if args.protocol and args.per_file:
        raise WavelldmError("the row of a protocol has no files; leave --per-file out, or write them with -o FILE")
    if args.mos and args.protocol != "ljspeech":
        raise WavelldmError("--mos belongs to --protocol ljspeech; leave it out")


def folders_of(args: argparse.Namespace) -> tuple[str, list[str], str | None]:
    """The words, without a protocol: clean, systems, noisy."""
    words = args.words
    if len(words) > 3:
        raise WavelldmError(f"'{words[3]}' is one word too many; name CLEAN, ENHANCED and NOISY")
    if args.compare:
        if len(words) > 1:
            raise WavelldmError("--compare A B names the systems; leave ENHANCED and NOISY out")
        if not words:
            raise WavelldmError("name the folder CLEAN of clean speech")
        return words[0], args.compare, None
    if len(words) < 2:
        raise WavelldmError("name a folder CLEAN and a folder ENHANCED to measure, or two with --compare A B")
    return words[0], [words[1]], words[2] if len(words) == 3 else None


def run_evaluate(args: argparse.Namespace) -> int:
    from ..metrics import folders

    check(args)
    if args.protocol:
        protocol, systems, results = by_protocol(args)
    else:
        clean, systems, noisy = folders_of(args)
        distinct(systems)
        names = None if args.metrics is None else args.metrics.split(",")
        results = [
            folders.evaluate(clean, system, noisy, names, align=args.align, workers=args.workers) for system in systems
        ]
    if args.output:
        folders.to_csv(results[0], args.output, force=args.force)
    if args.json:
        print(as_json(systems, results, args))
    elif args.protocol:
        print(protocol_text(protocol, dict(zip(systems, results)), args))
    elif args.compare:
        print(folders.compared_table(*results, systems))
    else:
        print(folders.to_table(results[0], per_file=args.per_file))
    failed = [failure for result in results for failure in result.failed]
    if failed:
        number, whole = len(failed), len(failed) + sum(len(result.rows) for result in results)
        print(f"wavelldm evaluate: {number} of {whole} clips could not be scored: {failed[0].reason}", file=sys.stderr)
    return 1 if failed else 0


def distinct(systems: list[str]) -> None:
    if twice := next((name for name in systems if systems.count(name) > 1), None):
        raise WavelldmError(f"{twice} would be compared with itself; name each system once")


def by_protocol(args: argparse.Namespace) -> tuple["Protocol", list[str], list["Result"]]:
    """Results of folders, or of what named systems make of the corpus, in a folder that is gone afterwards."""
    from ..metrics import folders
    from ..metrics.protocols import PROTOCOLS, places, told_apart

    protocol = PROTOCOLS[args.protocol]
    corpus, systems = told_apart(protocol, args.words)
    if args.compare and systems:
        raise WavelldmError(f"--compare A B names the systems; leave '{systems[0]}' out")
    systems = args.compare or systems or [protocol.usual]
    distinct(systems)
    if args.output and len(systems) > 1:
        raise WavelldmError("-o writes the clips of one system; name one")
    clean, noisy = places(protocol, corpus)
    makers = [None if Path(system).is_dir() else maker(protocol.name, system) for system in systems]
    results = []
    for system, make in zip(systems, makers):
        with tempfile.TemporaryDirectory(prefix="wavelldm-") as temporary:
            unread = [] if make is None else fill(protocol, corpus, make, Path(temporary), system)
            made = Path(system) if make is None else Path(temporary)
            found = folders.evaluate(
                clean, made, noisy, protocol.metrics, workers=args.workers, sr=protocol.sr, some=True
            )
            results.append(replace(found, failed=[*unread, *found.failed]))
    return protocol, systems, results


def maker(protocol: str, name: str) -> Callable:
    """wav (C, N), sr -> wav of a denoiser or codec by its name."""
    if protocol == "voicebank":
        from ..denoise.denoiser import load

        return load(name).enhance
    from .. import weights
    from ..codec.model import Codec

    found, colon, books = name.rpartition(":")
    codec = weights.load(found if colon else name, Codec)
    if colon and not (books.isdigit() and 1 <= int(books) <= codec.config.codebooks):
        raise WavelldmError(f"'{name}' asks for '{books}' codebooks; give 1 to {codec.config.codebooks}")
    books = int(books) if colon else codec.config.codebooks

    def rebuild(wav, sr: int):
        import torch

        with torch.inference_mode():
            coded = codec.quantise(codec.encode(wav[None], sr))[1]  # (B, Q, T)
            return codec.codes_to_wav(coded[:, :books], wav.shape[-1])[0]

    return rebuild


def fill(protocol: "Protocol", corpus: Path, make: Callable, folder: Path, name: str) -> list["Failure"]:
    """Write what `make` makes of the protocol's clips into a folder, at the protocol's rate -> clips it cannot read."""
    from ..audio import files
    from ..errors import AudioError
    from ..metrics.folders import Failure
    from ..metrics.protocols import test_clips
    from ..progress import progress_bar

    unread, kind = [], files.AudioInfo(protocol.sr, 1, 0, "WAV", "FLOAT")
    for clip, path in progress_bar(test_clips(protocol, corpus).items(), desc=name, unit="clip"):
        try:
            wav = files.load(path, sr=protocol.sr, mono=True)[0]  # (1, N)
        except AudioError as error:
            unread.append(Failure(clip, str(error)))
            continue
        files.save(folder / f"{clip}.wav", make(wav, protocol.sr), protocol.sr, like=kind)
    return unread


def mos_of(test: str | None) -> dict[str, tuple[float, float, float]] | None:
    """{system: (MOS, low, high)} of a listening test's ratings."""
    if test is None:
        return None
    from ..app import listen_report

    return listen_report.mos(test)


def protocol_text(protocol: "Protocol", results: dict[str, "Result"], args: argparse.Namespace) -> str:
    from ..metrics import folders, protocols

    mos = mos_of(args.mos)
    named = {Path(name).name: result for name, result in results.items()} if mos else results
    notes = [f"the listening test knows {', '.join(mos)}"] if mos and not set(mos) & set(named) else []
    text = protocols.to_table(protocol, named, mos, notes)
    return f"{text}\n\n{folders.compared_table(*results.values(), list(results))}" if args.compare else text


def as_json(systems: list[str], results: list["Result"], args: argparse.Namespace) -> str:
    from ..metrics import folders

    each = [json.loads(folders.to_json(result)) for result in results]
    if len(each) == 1:
        whole = each[0] | ({"protocol": args.protocol} if args.protocol else {})
        return json.dumps(whole | ({"mos": mos_of(args.mos)} if args.mos else {}), indent=2)
    if not args.compare:
        whole = {"protocol": args.protocol, "systems": dict(zip(systems, each))}
        return json.dumps(whole | ({"mos": mos_of(args.mos)} if args.mos else {}), indent=2)
    difference = {
        name: asdict(found) | {"better": folders.verdict(name, found)}
        for name, found in folders.compared(*results).items()
    }
    return json.dumps({"systems": dict(zip(systems, each)), "difference": difference}, indent=2)
