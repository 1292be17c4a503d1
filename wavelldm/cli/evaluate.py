"""`wavelldm evaluate`: measure enhanced speech against clean."""

import argparse
import sys

from ..errors import WavelldmError
from .options import add_force, command, whole

EVALUATE = """  wavelldm evaluate pairs/clean cleaned pairs/noisy
  wavelldm evaluate pairs/clean cleaned --metrics pesq_wb,stoi,si_sdr -o rows.csv
  wavelldm evaluate clean.wav cleaned.wav noisy.wav"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "evaluate",
        run_evaluate,
        "measure enhanced speech against clean",
        "Pair files by name and measure: PESQ, STOI, SI-SDR, composite scores, DNSMOS and more. With NOISY the "
        "improvement is shown too. A file that cannot be read is named and left out of the means, and the exit code "
        "is 1.",
        EVALUATE,
    )
    sub.add_argument("clean", metavar="CLEAN", help="a folder of clean speech, or one file")
    sub.add_argument(
        "enhanced", metavar="ENHANCED", help="a folder of what a denoiser made of it, under the same names"
    )
    sub.add_argument("noisy", metavar="NOISY", nargs="?", help="a folder of the noisy recordings, under the same names")
    sub.add_argument("--metrics", metavar="NAMES", help="a comma-separated choice (default: all)")
    sub.add_argument("--align", action="store_true", help="remove a constant delay before measuring")
    sub.add_argument("--per-file", action="store_true", help="show a row for every file")
    sub.add_argument("-o", "--output", metavar="FILE", help="also write the scores of every file to FILE, as CSV")
    sub.add_argument("--workers", type=whole(1), metavar="N", help="how many processes (default: one for each core)")
    add_force(sub, "the CSV file")


def run_evaluate(args: argparse.Namespace) -> int:
    from ..metrics import folders

    if args.per_file and args.json:
        raise WavelldmError("JSON always holds a row for every file; leave --per-file out")
    if args.force and not args.output:
        raise WavelldmError("--force overwrites a CSV file, and there is none; add -o FILE or leave --force out")
    names = None if args.metrics is None else args.metrics.split(",")
    result = folders.evaluate(
        args.clean, args.enhanced, args.noisy, metrics=names, align=args.align, workers=args.workers
    )
    if args.output:
        folders.to_csv(result, args.output, force=args.force)
    print(folders.to_json(result) if args.json else folders.to_table(result, per_file=args.per_file))
    if result.failed:
        number, whole = len(result.failed), len(result.rows) + len(result.failed)
        reason = result.failed[0].reason
        print(f"wavelldm evaluate: {number} of {whole} clips could not be scored: {reason}", file=sys.stderr)
    return 1 if result.failed else 0
