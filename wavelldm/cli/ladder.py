"""`wavelldm ladder`: measure every way to rebuild a sound."""

import argparse

from ..errors import WavelldmError
from .options import command, folder, show, whole

LADDER = """  wavelldm ladder --rungs griffin-lim codec phase
  wavelldm ladder my.wav --vocoder microsoft/speecht5_hifigan -o my_ladder
  wavelldm ladder --vae cvssp/audioldm2 --vocoder cvssp/audioldm2
  wavelldm ladder --weights runs/vae/ladder-vae.safetensors"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "ladder",
        run_ladder,
        "measure every way to rebuild a sound",
        "Climb the reconstruction ladder on the same clips: Griffin-Lim, vocoders, mel settings, normalisations, mel "
        "VAEs, their refinement, the codec at each bitrate, and autoencoders that keep phase. Writes "
        "OUTPUT/ladder.csv, quality.png, spectrograms.png and audio/. Rungs whose weights are not there are named and "
        "left out.",
        LADDER,
    )
    sub.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="sound files or folders (default: held-out speech of the embedded corpus)",
    )
    sub.add_argument("--manifest", metavar="TABLE", help="a manifest.tsv instead: its held-out speech")
    sub.add_argument("--clips", type=whole(1), default=8, metavar="N", help="how many clips at most (default: 8)")
    sub.add_argument(
        "--rungs",
        nargs="+",
        metavar="NAME",
        help="all (default), or some of griffin-lim, vocoder, grid, normalisation, vae, stages, codec, phase, words",
    )
    sub.add_argument(
        "--weights", nargs="+", default=[], metavar="PATH", help="weights of your own, in place of those that ship"
    )
    sub.add_argument(
        "--vocoder", metavar="NAME", help="a published HiFi-GAN too, by its name on the hub or as a folder"
    )
    sub.add_argument("--vae", metavar="NAME", help="a published mel VAE too, by its name on the hub or as a folder")
    sub.add_argument(
        "-o",
        "--output",
        type=folder,
        default="ladder",
        metavar="FOLDER",
        help="the folder to write, made anew each time (default: ladder)",
    )


def run_ladder(args: argparse.Namespace) -> None:
    from ..ladder import report

    if args.files and args.manifest:
        raise WavelldmError("give files or a manifest, not both")
    facts = report.run(
        args.files, args.manifest, args.output, args.rungs, args.weights, args.vocoder, args.vae, args.clips
    )
    show(args, facts, report.text(facts))
