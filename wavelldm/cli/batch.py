"""`wavelldm batch`: many files on many machines."""

import argparse
import sys

from ..errors import WavelldmError
from .options import add_force, command, number, show, whole

BATCH = """  wavelldm batch recordings/ cleaned/
  wavelldm batch manifest.jsonl cleaned/ --workers 8 --dnsmos
  wavelldm batch 's3://bucket/shards/*.tar' s3://bucket/cleaned --address ray://head:10001 --workers 200
  wavelldm batch recordings/ codes/ --task codes --shards
  wavelldm batch recordings/ cleaned/ --model wavelldm --workers 4 --gpus-per-worker 0.25"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "batch",
        run_batch,
        "work on many files, on one machine or many",
        "Clean, compress or measure all files of a folder, of a manifest (TSV, JSONL as NeMo or Lhotse write it, "
        "Parquet) or of shards (WebDataset's .tar, Parquet tables of sounds), with Ray Data. Source and target are "
        "folders of this machine or addresses such as s3://bucket/folder. Target gets the same tree of files, and "
        "report.parquet with a row for each. A run that was stopped or killed goes on with the same command, and does "
        "again only what was not done. A bad file is named in the report, and the exit code is 1.",
        BATCH,
    )
    sub.add_argument("source", help="a folder, a pattern in its last part, a manifest, or shards")
    sub.add_argument("target", help="a folder to write; a new one, or that of the run to go on with")
    sub.add_argument(
        "--task",
        choices=["denoise", "compress", "evaluate", "codes"],
        default="denoise",
        help="denoise: cleaned files; compress: .wll files; codes: .npy files of codec codes (C, Q, T); evaluate: the "
        "report alone, with DNSMOS (default: denoise)",
    )
    sub.add_argument("--model", default="best", metavar="NAME", help="of the task, by name or path (default: the best)")
    sub.add_argument("--strength", type=number(0, 4), default=1.0, help="as in `wavelldm denoise` (default: 1)")
    sub.add_argument(
        "--keep-background",
        type=number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="as in `wavelldm denoise` (default: 0)",
    )
    sub.add_argument("--codebooks", type=whole(1), metavar="N", help="as in `wavelldm compress` (default: all)")
    sub.add_argument("--dnsmos", action="store_true", help="also measure DNSMOS before and after cleaning")
    sub.add_argument(
        "--reference", metavar="FOLDER", help="for evaluate: clean files of the same names, for PESQ, ESTOI and SI-SDR"
    )
    sub.add_argument("--shards", action="store_true", help="write .tar shards, one for each batch, instead of files")
    sub.add_argument("--workers", type=whole(1), metavar="N", help="processes (default: one for each core)")
    sub.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster, such as ray://head:10001 or auto")
    sub.add_argument(
        "--gpus-per-worker", type=number(0), default=0.0, metavar="F", help="0.25: four share a GPU (default: 0)"
    )
    sub.add_argument(
        "--batch-seconds", type=number(above=0), default=600.0, metavar="S", help="sound in a batch (default: 600)"
    )
    add_force(sub, "what an earlier run left in the target")


def run_batch(args: argparse.Namespace) -> int:
    check(args)
    from ..batch import run
    from ..batch.tasks import Settings

    settings = Settings(
        args.task,
        args.source,
        args.model,
        "cuda" if args.gpus_per_worker else "cpu",
        args.strength,
        args.keep_background,
        args.codebooks,
        args.dnsmos,
        args.reference,
        args.shards,
        args.batch_seconds,
    )
    cluster = run.Cluster(args.workers or run.cores(), args.address, args.gpus_per_worker)
    result = run.run(args.source, args.target, settings, cluster, args.force)
    for bad in result["errors"]:
        print(f"wavelldm batch: {bad['input']}: {bad['error']}", file=sys.stderr)
    if result["failed"]:
        print(f"{result['failed']} of {result['files']} files were not done", file=sys.stderr)
    text = f"{result['files'] - result['failed']} files, {result['hours']:.2f} hours; the report: {result['report']}"
    show(args, result, text)
    return 1 if result["failed"] else 0


def check(args: argparse.Namespace) -> None:
    """Refuse what would have no effect."""
    if args.reference and args.task != "evaluate":
        raise WavelldmError("--reference belongs to --task evaluate; leave it out")
    if args.codebooks and args.task not in ("compress", "codes"):
        raise WavelldmError("--codebooks belongs to --task compress and codes; leave it out")
    if args.task != "denoise" and (args.strength != 1 or args.keep_background or args.dnsmos):
        raise WavelldmError("--strength, --keep-background and --dnsmos belong to --task denoise; leave them out")
    if args.shards and args.task == "evaluate":
        raise WavelldmError("evaluate writes no files; leave --shards out")
