"""The words of the command line: every command, its options, its help. What they do is in cli.py."""

import argparse
from textwrap import fill

from .. import __version__

EXIT = """exit codes:
  0  done
  1  something is wrong with what was given; the message says what to do
  2  the command line itself is wrong
  3  a fault of the program; run again with --debug and report it
  130  stopped with Ctrl-C; nothing half-written is left behind"""


def parser(runs: dict) -> argparse.ArgumentParser:
    """`runs`: the function behind each command; it gets the parsed arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="wavelldm",
        formatter_class=raw,
        description="Latent diffusion for audio: clean a recording, make training data, measure the result.",
        epilog="examples:\n  wavelldm demo                               hear and see it work\n"
        "  wavelldm denoise noisy.wav                  writes noisy.denoised.wav beside it\n"
        "  wavelldm mix --snr 0 10 --count 50 pairs    make a folder of noisy and clean pairs\n"
        "  wavelldm evaluate pairs/clean cleaned pairs/noisy\n"
        "  wavelldm compress talk.wav                  writes talk.wll, 3.5 kbit/s or less\n\n" + EXIT,
    )
    top.add_argument("--version", action="version", version=f"wavelldm {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND [options]", dest="command")

    def command(name, help, description, examples=""):
        sub = commands.add_parser(
            name,
            help=help,
            description=fill(description, 100),
            formatter_class=raw,
            epilog=f"{examples}\n\n{EXIT}".strip(),
        )
        sub.set_defaults(run=runs[name])
        sub.add_argument("--json", action="store_true", help="print the result as JSON, for a machine to read")
        sub.add_argument("--debug", action="store_true", help="show the whole traceback when something goes wrong")
        return sub

    command(
        "info",
        "versions, device and presets",
        "Versions, the device, and for every preset its parameters, latent rate and bitrate.",
    )

    sub = command(
        "denoise",
        "clean recordings",
        "Clean one recording, several, or folders. Length, loudness, sample rate, channels and sample format stay as they are; "
        "files of any length are worked through in constant memory. An existing output is never overwritten without --force. "
        "The input - is a WAV stream on standard input: it is cleaned as it arrives and written to standard output.",
        "examples:\n  wavelldm denoise talk.wav                   writes talk.denoised.wav\n"
        "  wavelldm denoise talk.mp3 -o clean.flac\n  wavelldm denoise 'talks/*.mp3' recordings/ -o cleaned/\n"
        "  wavelldm denoise talk.wav --strength 0.7 --keep-background 0.1\n"
        "  arecord -f S16_LE -r 16000 | wavelldm denoise - | aplay",
    )
    sub.add_argument("input", nargs="+", help="sound files, folders or patterns, or - for standard input")
    sub.add_argument("-o", "--output", help="the file to write, or a folder if there are several inputs")
    sub.add_argument(
        "--model",
        default="best",
        help="which denoiser: base16k, wavelldm, segan, waveform, logmmse, or a .safetensors file of yours (default: the best one that ships)",
    )
    sub.add_argument("--steps", type=int, default=1, help="steps of the diffusion's sampler (default: 1)")
    sub.add_argument("--sampler", help="ddim, ddpm, dpmpp_2m ... (default: the one the model was made for)")
    sub.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="turn noise down by this many times the decibels: 0 to 4 (default: 1)",
    )
    sub.add_argument(
        "--keep-background",
        type=float,
        default=0.0,
        metavar="G",
        help="put this share of the noise back: 0 to 1 (default: 0)",
    )
    sub.add_argument(
        "--restore",
        action="store_true",
        help="also fill dropouts (up to 0.6 s) and missing bands with what the diffusion expects there; a stream then waits 11 s, and keeps its band",
    )
    sub.add_argument(
        "--stream", action="store_true", help="work in small blocks and look at nothing twice, as for standard input"
    )
    sub.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    sub.add_argument("--force", action="store_true", help="overwrite existing files")

    sub = command(
        "refine",
        "let a prior of clean speech refine what a denoiser left",
        "Diffiner: what a denoiser took away says how far each bin of the noisy recording can be trusted, and a diffusion prior of clean speech "
        "draws the rest. ENHANCED may come from any program; a constant delay and a wrong level are found, corrected and named. It makes speech sound "
        "cleaner, and does not bring it nearer to the original: measures with a reference may fall. The prior works at 16 kHz; what lies above its band "
        "stays as it was.",
        "examples:\n  wavelldm refine noisy.wav enhanced.wav -o refined.wav\n  wavelldm refine noisy.wav --first base16k\n"
        "  wavelldm refine noisy.wav enhanced.wav --plus --steps 50\n  wavelldm refine noisy.wav enhanced.wav --eta_a none --eta_b 1     a draw from the posterior",
    )
    sub.add_argument("noisy", help="the noisy recording")
    sub.add_argument("enhanced", nargs="?", help="what a denoiser made of it: as long, at the same rate")
    sub.add_argument("-o", "--output", help="the file to write (default: noisy.refined.wav beside the input)")
    sub.add_argument(
        "--first",
        metavar="MODEL",
        help="instead of ENHANCED: run one of our denoisers first (base16k, wavelldm, logmmse)",
    )
    sub.add_argument(
        "--prior", default="prior16k", help="weights of the speech prior, by name or path (default: the one that ships)"
    )
    sub.add_argument("--steps", type=int, default=30, help="steps of the diffusion (default: 30)")
    sub.add_argument("--plus", action="store_true", help="Diffiner+: keep a share of the noise from step to step")
    sub.add_argument(
        "--eta_a",
        type=lambda x: x if x == "none" else float(x),
        help="fresh noise where the observation is good: 0 to 1, or none for DDPM's own step (default: 0.9, with --plus 0.4)",
    )
    sub.add_argument(
        "--eta_b",
        type=float,
        help="how far to lean on the observation where it is bad: 0 to 1 (default: 0.9, with --plus 0.6)",
    )
    sub.add_argument(
        "--eta_c",
        type=float,
        help="Diffiner+: the observation's share of the noise: 0 to 1 (default: 0, and without --plus none)",
    )
    sub.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    sub.add_argument("--force", action="store_true", help="overwrite an existing file")

    sub = command(
        "compress",
        "make a recording very small",
        "Write a recording as the codes of the neural codec, in a .wll file that also keeps rate, channels and length. "
        "Files of any length are worked through in constant memory. An existing output is never overwritten without --force.",
        "examples:\n  wavelldm compress talk.wav                  writes talk.wll\n  wavelldm compress talk.wav small.wll --codebooks 2\n  wavelldm compress talk.wav best.wll --search 100",
    )
    sub.add_argument("input", help="a sound file")
    sub.add_argument("output", nargs="?", help="the .wll file to write (default: beside the input)")
    sub.add_argument(
        "--codebooks", type=int, help="how many codebooks to keep: fewer are smaller and sound worse (default: all)"
    )
    sub.add_argument(
        "--model", default="voice16k", help="name of shipped weights, or a .safetensors file (default: voice16k)"
    )
    sub.add_argument(
        "--search",
        type=int,
        default=0,
        metavar="STEPS",
        help="look for better codes: as many bits, better sound; 100 steps take some 3 s per second (default: 0)",
    )
    sub.add_argument("--force", action="store_true", help="overwrite an existing file")

    sub = command(
        "decompress",
        "make sound of a .wll file again",
        "Decode a .wll file at the original rate, channels and length. A damaged file is refused; of one that is cut short "
        "what is there is written, and the exit code is 1. An existing output is never overwritten without --force.",
        "examples:\n  wavelldm decompress talk.wll                writes talk.decoded.wav\n  wavelldm decompress talk.wll talk.flac",
    )
    sub.add_argument("input", help="a .wll file")
    sub.add_argument("output", nargs="?", help="the sound file to write (default: a wav beside the input)")
    sub.add_argument("--model", help="the weights it was made with (default: the shipped ones that it names)")
    sub.add_argument("--force", action="store_true", help="overwrite an existing file")

    sub = command(
        "data",
        "list or fetch data sets",
        "List the data sets this course knows, fetch one from its public home (resumed after a break, checked, unpacked safely), "
        "or build the embedded corpus, which needs no download.",
        "examples:\n  wavelldm data list\n  wavelldm data get embedded\n  wavelldm data get voicebank-demand",
    )
    sub.add_argument("action", choices=("list", "get"))
    sub.add_argument("name", nargs="?", help="for get: a name from the list")
    sub.add_argument("--folder", help="where to put it (default: the data folder that `data list` names)")
    sub.add_argument("--minutes", type=float, default=5.0, help="minutes of speech in the embedded corpus (default: 5)")

    sub = command(
        "mix",
        "make noisy and clean pairs",
        "Write OUT/clean and OUT/noisy, files of the same name, at exact signal-to-noise ratios measured on active speech, "
        "and OUT/pairs.tsv that says what each is made of.",
        "examples:\n  wavelldm mix pairs                          from the embedded corpus\n"
        "  wavelldm mix --speech my/clean --noise my/noise --snr 0 5 10 --count 200 pairs\n"
        "  wavelldm mix --manifest corpus/manifest.tsv --split valid pairs",
    )
    sub.add_argument("out", help="the folder to write")
    sub.add_argument("--speech", help="a folder of clean speech")
    sub.add_argument("--noise", help="a folder of noise")
    sub.add_argument("--manifest", help="a manifest.tsv instead of two folders")
    sub.add_argument(
        "--split", default="train", choices=("train", "valid"), help="which part of a manifest (default: train)"
    )
    sub.add_argument(
        "--snr", type=float, nargs="+", default=[0.0, 5.0, 10.0, 15.0], help="dB, taken in turn (default: 0 5 10 15)"
    )
    sub.add_argument("--count", type=int, default=20, help="how many pairs (default: 20)")
    sub.add_argument("--seed", type=int, default=0, help="same seed, same pairs (default: 0)")
    sub.add_argument("--minutes", type=float, default=5.0, help="minutes of speech in the embedded corpus (default: 5)")
    sub.add_argument("--force", action="store_true", help="overwrite existing files")

    sub = command(
        "evaluate",
        "measure enhanced speech against clean",
        "Pair files by name and measure: PESQ, STOI, SI-SDR, composite scores, DNSMOS and more. With NOISY_DIR the improvement is shown too.",
        "examples:\n  wavelldm evaluate pairs/clean cleaned pairs/noisy\n"
        "  wavelldm evaluate pairs/clean cleaned --metrics pesq_wb,stoi,si_sdr --csv rows.csv",
    )
    sub.add_argument("clean", metavar="CLEAN_DIR")
    sub.add_argument("enhanced", metavar="ENHANCED_DIR")
    sub.add_argument("noisy", metavar="NOISY_DIR", nargs="?")
    sub.add_argument("--metrics", help="a comma-separated choice (default: all)")
    sub.add_argument("--align", action="store_true", help="remove a constant delay before measuring")
    sub.add_argument("--per-file", action="store_true", help="show a row for every file")
    sub.add_argument("--csv", metavar="FILE", help="write the rows of all files to FILE")
    sub.add_argument("--workers", type=int, help="how many processes (default: one for each core)")
    sub.add_argument("--force", action="store_true", help="overwrite the CSV file")

    sub = command(
        "train",
        "train a network",
        "Train a network on folders of clean speech (with noisy recordings under the same names, if you have them), on a manifest, or, "
        "with no data given, on the embedded corpus. First the codec, then the diffusion over its latents, then the mask network that "
        "the diffusion guides; the prior of clean speech, SEGAN and the waveform denoiser stand alone. Ctrl-C saves; the same command goes on where it stopped. OUT gets the weights, checkpoints, "
        "log.csv and TensorBoard logs. Several GPUs: torchrun --nproc-per-node N -m wavelldm train ...",
        "examples:\n  wavelldm train codec --preset tiny --steps 300\n"
        "  wavelldm train diffusion --codec runs/codec/tiny --preset tiny --steps 300\n"
        "  wavelldm train mask --diffusion runs/diffusion/tiny-diffusion --codec runs/codec/tiny --preset tiny --steps 300\n"
        "  wavelldm train waveform --clean_data_path clean --preset wave48k\n"
        "  wavelldm train diffusion --clean_data_path clean --noisy_data_path noisy --add_random_cutting --batch_size 16 "
        "--lr 2e-5 --use_scheduler --epochs 100 --num_workers 16",
    )
    sub.add_argument(
        "network",
        choices=(
            "codec",
            "diffusion",
            "mask",
            "prior",
            "segan",
            "waveform",
            "vocoder",
            "vae",
            "refinement",
            "autoencoder",
        ),
    )
    sub.add_argument(
        "--preset",
        help="which numbers to start from: see `wavelldm info` (default: voice16k for codec and diffusion, base16k for mask, prior, SEGAN, waveform, ladder for vocoder, VAE, refinement, autoencoder)",
    )
    sub.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change some of them, such as mel.n_mels=80"
    )
    sub.add_argument("--clean_data_path", help="a folder of clean speech, or of VoiceBank+DEMAND")
    sub.add_argument("--noisy_data_path", help="a folder of noisy recordings of it, under the same names")
    sub.add_argument("--manifest", help="a manifest.tsv instead of folders")
    sub.add_argument(
        "--add_random_cutting", action="store_true", help="hear speech with dropouts of 50 to 450 ms as well"
    )
    sub.add_argument("--batch_size", type=int, default=16, help="crops per step (default: 16)")
    sub.add_argument(
        "--seconds",
        type=float,
        help="length of a crop (default: 1 for the codec, 1.5 for the diffusion, 2 for the mask, 1.024 for the prior and SEGAN, 1 for the waveform)",
    )
    sub.add_argument(
        "--lr",
        type=float,
        help="learning rate after the warm-up (default: 0.001; for segan 0.0002, for waveform 0.0001)",
    )
    sub.add_argument(
        "--use_scheduler",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let it fall along a cosine; waveform: OneCycle (default)",
    )
    length = sub.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, default=100.0, help="how often to hear everything (default: 100)")
    length.add_argument("--steps", type=int, help="or how many steps")
    sub.add_argument(
        "--codec", default="voice16k", help="diffusion, mask: weights of the codec, by name or path (default: voice16k)"
    )
    sub.add_argument(
        "--hours",
        type=float,
        default=20.0,
        help="diffusion: hours of noisy and clean latents to keep on disk, 0.4 GB each (default: 20)",
    )
    sub.add_argument(
        "--diffusion", help="mask: weights of the diffusion that guides it (default: none, the mask network alone)"
    )
    sub.add_argument("--vae", help="refinement: weights of the VAE whose mels it repairs, by name or path")
    sub.add_argument("--start", help="weights to begin with, of the same preset")
    sub.add_argument(
        "--decoded",
        type=float,
        default=0.0,
        help="diffusion: weight of what is decoded beside the latent itself (default: 0)",
    )
    sub.add_argument(
        "--critics",
        type=int,
        default=0,
        metavar="WIDTH",
        help="codec: width of MPD and MSD: 32 as in the papers, 0 for none (default)",
    )
    sub.add_argument(
        "--snr",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="segan, waveform: mix noise at these dB on active speech (default: -5 to 20)",
    )
    sub.add_argument(
        "--l1", type=float, default=100.0, help="segan: weight of the distance beside the critic's pull (default: 100)"
    )
    sub.add_argument(
        "--ema",
        type=float,
        default=0.999,
        help="how slowly the averaged weights follow: 0 for no average (default: 0.999)",
    )
    sub.add_argument(
        "--num_workers",
        type=int,
        default=0,
        help="processes that load data (default: 0, which is fastest up to some 1000 x real time)",
    )
    sub.add_argument(
        "--half",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compute in bfloat16 where that is faster (default)",
    )
    sub.add_argument("--seed", type=int, default=0, help="same seed, same run (default: 0)")
    sub.add_argument("--out", help="the folder of the run (default: runs/NETWORK)")

    sub = command(
        "ladder",
        "measure every way to rebuild a sound",
        "Climb the reconstruction ladder on the same clips: Griffin-Lim, vocoders, mel settings, normalisations, mel VAEs, their refinement, the "
        "codec at each bitrate, and autoencoders that keep phase. Writes OUT/ladder.csv, quality.png, spectrograms.png and audio/. Rungs whose weights are "
        "not there are named and left out.",
        "examples:\n  wavelldm ladder --rungs griffin-lim codec phase\n  wavelldm ladder my.wav --vocoder microsoft/speecht5_hifigan\n"
        "  wavelldm ladder --vae cvssp/audioldm2 --vocoder cvssp/audioldm2\n  wavelldm ladder --weights runs/vae/ladder-vae.safetensors",
    )
    sub.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="sound files or folders (default: held-out speech of the embedded corpus)",
    )
    sub.add_argument("--manifest", help="a manifest.tsv instead: its held-out speech")
    sub.add_argument("--clips", type=int, default=8, help="how many clips at most (default: 8)")
    sub.add_argument(
        "--rungs",
        nargs="+",
        metavar="NAME",
        help="all (default), or some of griffin-lim, vocoder, grid, normalisation, vae, stages, codec, phase, words",
    )
    sub.add_argument(
        "--weights", nargs="+", default=[], metavar="PATH", help="weights of your own, in place of those that ship"
    )
    sub.add_argument("--vocoder", help="a published HiFi-GAN too, by its name on the hub or as a folder")
    sub.add_argument("--vae", help="a published mel VAE too, by its name on the hub or as a folder")
    sub.add_argument("--out", default="ladder", help="the folder to write, made anew each time (default: ladder)")

    sub = command(
        "demo",
        "clean a noisy clip and show what happened",
        "Make a noisy sentence (or take yours), clean it, and write the sounds, a before/after picture and a table of metrics.",
        "examples:\n  wavelldm demo\n  wavelldm demo --input my_recording.wav --out my_demo",
    )
    sub.add_argument(
        "--input", help="a noisy recording of yours; without a clean version of it there is less to measure"
    )
    sub.add_argument("--out", default="demo", help="the folder to write, made anew each time (default: demo)")
    return top
