"""The command line: `wavelldm COMMAND`. Each command is one short function; heavy imports wait until it runs."""

import json
import sys
from pathlib import Path

from ..errors import WavelldmError
from .manual import parser


def say(args, facts: dict, text: str) -> None:
    """One result, for a person or (--json) for a machine."""
    print(json.dumps(facts, indent=2) if args.json else text)


def run_info(args) -> None:
    from . import info

    facts = info.facts()
    say(args, facts, info.text(facts))


def run_data(args) -> None:
    from ..data import download, voices
    from ..paths import data_home

    if args.action == "list":
        rows = download.sources()
        lines = [f"{r['name']:<24} {r['size'] / 1e9:6.2f} GB  {r['licence']}" for r in rows]
        lines += [f"{'embedded':<24} {'':>6}     built here from espeak-ng voices and procedural noises"]
        say(args, {"folder": str(data_home()), "sources": rows}, "\n".join([*lines, f"data lives in {data_home()}"]))
    elif args.name == "embedded":
        manifest = voices.build_corpus(args.folder, minutes=args.minutes)
        say(args, {"manifest": str(manifest)}, f"the embedded corpus is ready: {manifest}")
    elif args.name:
        folder = download.get(args.name, args.folder)
        say(args, {"folder": str(folder)}, f"{args.name} is ready: {folder}")
    else:
        raise WavelldmError("name what to get: `wavelldm data list` shows what there is")


def run_mix(args) -> None:
    from ..data import corpora, pairs, voices

    if args.manifest:
        items = corpora.read_manifest(args.manifest, split=args.split)
    elif args.speech and args.noise:
        items = corpora.folders(args.speech, args.noise)
    elif args.speech or args.noise:
        raise WavelldmError("give both --speech and --noise, or --manifest, or none of them for the embedded corpus")
    else:
        items = corpora.read_manifest(voices.build_corpus(minutes=args.minutes), split=args.split)
    table = pairs.write_pairs(*items, args.out, snrs=args.snr, count=args.count, seed=args.seed, force=args.force)
    say(args, {"pairs": str(table), "count": args.count}, f"{args.count} pairs are in {args.out}, described in {table}")


def run_evaluate(args) -> None:
    from ..metrics import folders

    metrics = args.metrics.split(",") if args.metrics else None
    result = folders.evaluate(
        args.clean, args.enhanced, args.noisy, metrics=metrics, align=args.align, workers=args.workers
    )
    if args.csv:
        folders.to_csv(result, args.csv, force=args.force)
    print(folders.to_json(result) if args.json else folders.to_table(result, per_file=args.per_file))
    if result.failed:
        whole = len(result.rows) + len(result.failed)
        raise WavelldmError(f"{len(result.failed)} of {whole} clips could not be scored: {result.failed[0].reason}")


def run_denoise(args) -> None:
    import torch

    from ..denoise import chain, denoiser
    from . import streams

    torch.set_num_threads(1)  # the networks are so small that more threads would mostly wait for each other
    settings = chain.Settings(args.steps, args.sampler, args.strength, args.keep_background, args.seed, args.restore)
    if "-" in args.input:
        if len(args.input) > 1:
            raise WavelldmError("standard input (-) comes alone; name the files in a second command")
        return streams.denoise(
            denoiser.load(args.model), settings, sys.stdin.buffer, sys.stdout.buffer, args.output, args.force
        )
    model = denoiser.load(args.model)
    jobs = denoiser.jobs(args.input, args.output)
    done = []
    for source, target in jobs:
        facts = model.enhance_file(source, target, force=args.force, settings=settings, live=args.stream)
        done.append(
            {"input": str(source), "output": str(target), "seconds": round(facts.seconds, 3), "model": model.name}
        )
        if not args.json:
            print(f"{source} -> {target} ({facts.seconds:.1f} s of sound, model {model.name})")
    if args.json:
        print(json.dumps(done, indent=2))


def run_refine(args) -> None:
    from .. import weights
    from ..refine import files
    from ..refine.prior import SpeechPrior

    defaults = files.PAPER_PLUS if args.plus else files.PAPER
    eta_a, eta_b, eta_c = (
        default if given is None else given for given, default in zip((args.eta_a, args.eta_b, args.eta_c), defaults)
    )
    choices = files.Choices(args.steps, None if eta_a == "none" else eta_a, eta_b, eta_c, args.seed)
    target = args.output or Path(args.noisy).with_suffix(f".refined{Path(args.noisy).suffix}")
    prior = weights.load(args.prior, SpeechPrior)
    facts = files.refine_file(
        args.noisy, args.enhanced, target, prior, choices, args.first, args.force, progress=not args.json
    )
    say(
        args,
        facts,
        "\n".join(
            [*facts["notes"], f"{args.noisy} -> {target} ({facts['seconds']:.1f} s of sound, {args.steps} steps)"]
        ),
    )


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
    folder = args.out or f"runs/{args.network}"
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
    say(args, result, f"{state}: step {result['step']} of {steps}, {best}, in {folder}")


def run_compress(args) -> None:
    from .. import weights
    from ..codec import compress
    from ..codec.model import Codec

    target = args.output or Path(args.input).with_suffix(".wll")
    result = compress.compress_file(
        args.input, target, weights.load(args.model, Codec), args.codebooks, force=args.force, steps=args.search
    )
    say(
        args,
        {"input": args.input, "output": str(target), **result.facts()},
        f"{args.input} -> {target} ({result.text()})",
    )


def run_decompress(args) -> None:
    from .. import weights
    from ..codec import compress
    from ..codec.model import Codec

    target = args.output or Path(args.input).with_suffix(".decoded.wav")
    codec = weights.load(args.model, Codec) if args.model else None
    result = compress.decompress_file(args.input, target, codec, force=args.force)
    say(
        args,
        {"input": args.input, "output": str(target), **result.facts()},
        f"{args.input} -> {target} ({result.text()})",
    )
    if not result.complete:
        raise WavelldmError(
            f"{args.input} is cut short and {target} holds only what was there; copy it again to have the rest"
        )


def run_ladder(args) -> None:
    from ..ladder import report

    facts = report.run(
        args.files,
        args.manifest,
        args.out,
        args.rungs,
        args.weights,
        args.vocoder,
        args.vae,
        args.clips,
        progress=not args.json,
    )
    say(args, facts, report.text(facts))


def run_demo(args) -> None:
    from . import demo

    facts = demo.run(args.input, args.out)
    say(args, facts, demo.text(facts))


RUNS = {name.removeprefix("run_"): function for name, function in list(globals().items()) if name.startswith("run_")}


def main(argv: list[str] | None = None) -> int:
    top = parser(RUNS)
    args = top.parse_args(argv)
    if args.command is None:
        top.print_help()
        return 0
    try:
        args.run(args)
        return 0
    except WavelldmError as error:
        if args.debug:
            raise
        print(f"wavelldm {args.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if args.debug:
            raise
        hint = f"this needs the package '{error.name}'; install it with: pip install 'wavelldm[metrics]'"
        print(f"wavelldm {args.command}: {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `wavelldm ... | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        if args.debug:
            raise
        print(
            f"wavelldm {args.command}: {type(error).__name__}: {error} (run with --debug for the whole story)",
            file=sys.stderr,
        )
        return 3


if __name__ == "__main__":
    sys.exit(main())
