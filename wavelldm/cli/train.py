"""`wavelldm train`: train a network."""

import argparse

from .options import command, show


def add(commands) -> None:
    sub = command(
        commands,
        "train",
        run_train,
        "train a network",
        "Train a network on folders of clean speech (with noisy recordings under the same names, if you have them), on a manifest, or, "
        "with no data given, on the embedded corpus. First the codec, then the diffusion over its latents, then the mask network that "
        "the diffusion guides; the prior of clean speech, SEGAN and the waveform denoiser stand alone. Ctrl-C saves; the same command goes on where it stopped. OUT gets the weights, checkpoints, "
        "log.csv and TensorBoard logs. Several GPUs: torchrun --nproc-per-node N -m wavelldm train ...",
        "  wavelldm train codec --preset tiny --steps 300\n"
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
    sub.add_argument("-o", "--output", help="the folder of the run (default: runs/NETWORK)")


def run_train(args) -> None:
    from .. import config, weights
    from ..codec.model import Codec
    from ..data import corpora
    from ..diffusion.latent import LatentDiffusion
    from ..training import codec as train_codec
    from ..training import diffusion as train_diffusion
    from ..training import ladder as train_ladder
    from ..training import loop, mask, presets, segan, waveform
    from ..training import prior as train_prior

    ladder = args.network in train_ladder.KINDS
    preset = config.override(
        presets.preset(
            args.preset or ("ladder" if ladder else "voice16k" if args.network in ("codec", "diffusion") else "base16k")
        ),
        args.set,
    )
    heard = corpora.gather(args.clean_data_path, args.noisy_data_path, args.manifest)
    seconds = (
        args.seconds
        or {
            "codec": 1.0,
            "diffusion": 1.5,
            "mask": 2.0,
            "prior": 1.024,
            "segan": 1.024,
            "waveform": 1.0,
            **train_ladder.SECONDS,
        }[args.network]
    )
    folder = args.output or f"runs/{args.network}"
    sr = getattr(getattr(preset, args.network), "sr", None) or (preset.vae.mel.sr if ladder else preset.codec.sr)
    steps = args.steps or train_codec.steps_for(args.epochs, heard, sr, args.batch_size, seconds)
    lr = args.lr or {"segan": segan.LR, "waveform": waveform.LR}.get(args.network, 1e-3)
    plan = loop.Plan(
        steps, lr, min(500, steps // 10), final=0.02 if args.use_scheduler else 1.0, ema=args.ema, seed=args.seed
    )
    common = {"batch": args.batch_size, "seconds": seconds}
    if args.network == "codec":
        result = train_codec.run(
            preset, heard, plan, folder, **common, critic_width=args.critics, cutting=args.add_random_cutting, start=args.start,
            workers=args.num_workers, half=args.half,
        )  # fmt: skip
    elif args.network == "segan":
        plan = segan.schedule(plan)
        result = segan.run(
            preset,
            heard,
            plan,
            folder,
            **common,
            l1=args.l1,
            snr=args.snr,
            start=args.start,
            workers=args.num_workers,
            half=args.half,
        )
    elif args.network == "waveform":
        plan = waveform.schedule(plan) if args.use_scheduler else plan
        result = waveform.run(
            preset,
            heard,
            plan,
            folder,
            **common,
            snr=args.snr,
            start=args.start,
            workers=args.num_workers,
            half=args.half,
        )
    elif ladder:
        result = train_ladder.run(
            args.network, preset, heard, plan, folder, **common, vae=args.vae, codec=args.codec, start=args.start
        )
    elif args.network == "prior":
        result = train_prior.run(
            preset, heard, plan, folder, **common, start=args.start, workers=args.num_workers, half=args.half
        )
    elif args.network == "diffusion":
        codec = weights.load(args.codec, Codec)
        result = train_diffusion.run(
            preset, codec, heard, plan, folder, **common, hours=args.hours, cutting=args.add_random_cutting,
            decoded=args.decoded, start=args.start, half=args.half,
        )  # fmt: skip
    else:
        diffusion = weights.load(args.diffusion, LatentDiffusion) if args.diffusion else None
        codec = weights.load(args.codec, Codec) if diffusion else None
        result = mask.run(
            preset,
            heard,
            plan,
            folder,
            **common,
            codec=codec,
            diffusion=diffusion,
            start=args.start,
            workers=args.num_workers,
        )
    state = "stopped; the same command goes on" if result["stopped"] else "done"
    best = "not validated yet" if result["best"] is None else f"best score {result['best']:.4f}"
    show(args, result, f"{state}: step {result['step']} of {steps}, {best}, in {folder}")
