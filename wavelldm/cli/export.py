"""`wavelldm export`: a denoiser as one file for other programs."""

import argparse

from ..errors import WavelldmError
from .options import add_force, command, number, show

EXAMPLES = """  wavelldm export -o studio16k.onnx                   a recording at once: wav (1, N) -> cleaned (1, N)
  wavelldm export base16k -o live.onnx --streaming     16 ms at a time, states as inputs and outputs
  wavelldm export base16k -o live.onnx --streaming --chunk 64
  wavelldm export base16k -o live.pte --streaming      the same for ExecuTorch with XNNPACK
  wavelldm export voice16k --part encoder              a codec: wav (1, N) -> codes (1, 4, T)
  wavelldm export voice16k-diffusion                   latent diffusion in one step: wav, noise -> cleaned
  wavelldm export restore16k-filler                    what fills gaps: spectra -> spectrum
  wavelldm denoise talk.wav --model live.onnx              runs what was exported"""
HOP = 16  # milliseconds


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "export",
        run_export,
        "write a denoiser as one ONNX or ExecuTorch file for phones, browsers and other programs",
        "Write a mask network as one ONNX file that takes samples and gives samples: transforms, network and filter "
        "are inside, all numbers are real. The file is then run on 10 s of noisy speech, and refused if it differs "
        "from PyTorch by more than 1e-4.",
        EXAMPLES,
    )
    sub.add_argument(
        "model",
        nargs="?",
        default="studio16k",
        help="studio16k (default), base16k, voice16k, voice16k-diffusion, restore16k-filler, restore16k-latent, or "
        "weights by their path",
    )
    sub.add_argument(
        "-o",
        "--output",
        help="the file to write (default: NAME.onnx); with --streaming, a name in .pte asks for ExecuTorch",
    )
    sub.add_argument(
        "--streaming",
        action="store_true",
        help="keep states from call to call: hop by hop as sound arrives (base16k), or in spans of 10 s (studio16k)",
    )
    sub.add_argument(
        "--chunk",
        type=number(above=0),
        default=HOP,
        metavar="MS",
        help=f"with --streaming: milliseconds of one call, a multiple of {HOP} (default: {HOP})",
    )
    sub.add_argument(
        "--int8",
        nargs="?",
        const="dynamic",
        choices=["dynamic", "static"],
        help="compute products with weights in bytes: smaller, faster, not quite the same; rounded by the range that "
        "numbers have each time (dynamic, the default), or had in calibration speech (static)",
    )
    sub.add_argument(
        "--part",
        choices=["encoder", "decoder"],
        help="of a codec: wav to codes, or codes to wav; of restore16k-latent: magnitudes to z, or z to magnitudes",
    )
    add_force(sub)


def run_export(args: argparse.Namespace) -> None:
    from pathlib import Path

    from ..export.write import export, export_codec, export_latents, weights_kind

    chunk = args.chunk / HOP
    if chunk != int(chunk):
        raise WavelldmError(f"a chunk is a multiple of {HOP} ms, not {args.chunk:g}")
    kind, name = weights_kind(args.model), Path(args.model).stem
    in_parts, at_once = kind in ("Codec", "SpeechLatent"), kind in ("LatentDiffusion", "Filler")
    if in_parts and (args.part is None or args.streaming):
        raise WavelldmError(
            f"{args.model} is exported in two files; add --part encoder or --part decoder, and nothing else"
        )
    if args.part and not in_parts:
        raise WavelldmError(
            f"--part belongs to a codec or a latent, such as voice16k or restore16k-latent; leave it out for {name}"
        )
    if at_once and args.streaming:
        raise WavelldmError(f"{name} takes a recording at once; leave --streaming out")
    if args.int8 and (at_once or kind == "SpeechLatent"):
        raise WavelldmError(f"{name} is not rounded; leave --int8 out")
    target = Path(args.output or f"{name}{f'-{args.part}' if args.part else ''}.onnx")
    if target.suffix == ".pte" and (in_parts or at_once or args.int8):
        raise WavelldmError("a .pte file holds a denoiser in floats; choose base16k, and leave --int8 out")
    if in_parts or at_once:
        if kind == "Codec":
            size, difference = export_codec(args.model, args.part, target, args.int8 is not None, args.force)
        else:
            size, difference = export_latents(args.model, target, args.part, args.force)
        facts = {"output": str(target), "bytes": size, "part": args.part, "difference": difference}
        unlike = f"{difference:.0e}"
        if kind == "Codec":
            unlike = f"{100 * difference:.2g} % of its codes" if args.part == "encoder" else f"{difference:.0f} dB"
        show(
            args,
            facts,
            f"{args.model} -> {target} ({size / 1e6:.2f} MB, {args.part or kind}; differs from PyTorch by {unlike})",
        )
        return
    if target.suffix == ".pte":
        from ..export.pte import export_pte

        report = export_pte(args.model, target, args.streaming, int(chunk), args.force)
    else:
        report = export(args.model, target, args.streaming, int(chunk), args.int8, args.force)
    facts = {
        "output": str(target),
        "bytes": report.size,
        "difference": report.difference,
        "distance": report.distance,
        **vars(report.facts),
    }
    late = f", {1000 * report.facts.latency / report.facts.sr:.0f} ms late" if report.facts.form == "stream" else ""
    show(
        args,
        facts,
        f"{report.facts.name} -> {target} ({report.size / 1e6:.2f} MB, {report.facts.form}{late}; "
        f"differs from PyTorch by {report.difference:.0e}, {report.distance:.0f} dB)",
    )
