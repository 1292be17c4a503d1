"""`wavelldm demo`: one noisy clip with two dropouts, cleaned; sounds, a picture and a table say what happened."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WavelldmError
from .options import add_device, command, folder, show

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = ("pesq_wb", "stoi", "si_sdr", "lsd")
SNR = 10.0  # dB on active speech
LOST = ((1.1, 0.12), (4.6, 0.2))  # seconds: where a stretch is lost, how long it is
LONGEST = 60.0  # seconds taken of a recording


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "demo",
        run_demo,
        "clean a noisy clip and show what happened",
        "Make a noisy sentence (or take the first minute of a recording of yours), clean it, and write the sounds, a "
        "picture of before and after, and a table of metrics.",
        "  wavelldm demo\n  wavelldm demo --input my_recording.wav -o my_demo",
    )
    sub.add_argument(
        "--input",
        metavar="FILE",
        help="a noisy recording of yours; without a clean version of it there is less to measure",
    )
    sub.add_argument(
        "-o",
        "--output",
        type=folder,
        default="demo",
        metavar="FOLDER",
        help="the folder to write, made anew each time (default: demo)",
    )
    add_device(sub)


def run_demo(args: argparse.Namespace) -> None:
    facts = run(args.input, args.output, device=args.device)
    show(args, facts, text(facts))


def clip(sr: int = 16_000, voice: str | None = None) -> tuple["Tensor", "Tensor"]:
    """A spoken sentence and the same one in the rain -> clean, noisy (1, N). `voice`: of a person, by a name of
    `data.examples.VOICES`, instead of a synthesiser's."""
    import numpy as np
    import torch

    from ..audio import levels
    from ..data import examples, noises
    from ..data.sentences import sentence
    from ..data.voices import speak

    if voice is None:
        speech = torch.as_tensor(speak(sentence(3) + " " + sentence(4), "en-us+f4", sr=sr)).reshape(1, -1)
    else:
        speech = examples.voice(voice, sr)[0]
    speech = 0.4 * speech / speech.abs().max()
    rain = torch.from_numpy(noises.NOISES["rain"](speech.shape[-1], sr, np.random.default_rng(0))).reshape(1, -1)
    return speech, levels.mix_at_snr(speech, rain, SNR, sr)


def drop(wav: "Tensor", sr: int, lost: tuple = LOST) -> "Tensor":
    """wav (1, N) with stretches of digital silence, as after lost packets -> (1, N)."""
    wav = wav.clone()
    for start, length in lost:
        wav[:, round(start * sr) : round((start + length) * sr)] = 0
    return wav


def run(source: str | Path | None = None, out: str | Path = "demo", model: str = "best", device: str = "cpu") -> dict:
    """Write noisy, denoised (and clean) sounds and a picture to `out`; return the figures."""
    from .. import plots
    from ..audio import files
    from ..denoise import denoiser as denoisers
    from ..denoise.chain import Settings
    from ..progress import progress_bar

    out = Path(out)
    with progress_bar(total=4, unit="step", bar_format="{desc} ({n}/{total})") as steps:
        steps.set_description_str("making a noisy sentence" if source is None else f"reading {source}")
        clean, sr = None, 16_000
        if source is None:
            clean, noisy = clip(sr)
            noisy = drop(noisy, sr)
        else:
            noisy, sr = files.load(source, mono=True, seconds=LONGEST)
        steps.update()
        steps.set_description_str("cleaning it")
        denoiser = denoisers.load(model, device)
        began = time.perf_counter()
        cleaned = denoiser.enhance(noisy, sr, Settings(restore=True))  # restore: what is lost is filled
        took = time.perf_counter() - began
        versions = {"clean": clean, "noisy": noisy, "denoised": cleaned}
        versions = {name: wav for name, wav in versions.items() if wav is not None}
        steps.update()
        steps.set_description_str("drawing")
        for name, wav in versions.items():
            files.save(out / f"{name}.wav", wav, sr, force=True)
        plots.compare(versions, sr, out / "before_after.png", note=f"{denoiser.name}: {denoiser.training}")
        steps.update()
        steps.set_description_str("measuring")
        scores = measure(clean, noisy, cleaned, sr)
        steps.update()
    return {
        "model": denoiser.name,
        "training": denoiser.training,
        "folder": str(out),
        "files": [*(f"{name}.wav" for name in versions), "before_after.png"],
        "seconds": round(noisy.shape[-1] / sr, 2),
        "real_time_factor": round(took / (noisy.shape[-1] / sr), 4),
        "scores": scores,
    }


def measure(clean: "Tensor", noisy: "Tensor", cleaned: "Tensor", sr: int) -> dict[str, dict[str, float]]:
    """Scores of the noisy and of the denoised version; without a clean one only those that need none."""
    from ..metrics import scores as metrics

    scores: dict[str, dict[str, float]] = {"noisy": {}, "denoised": {}}
    for row, wav in zip(scores.values(), (noisy, cleaned)):
        if clean is not None:
            row.update({name: float(metrics.METRICS[name].function(clean, wav, sr)) for name in SHOWN})
        try:
            row["dnsmos"] = float(metrics.dnsmos(wav, sr)["OVRL"])
        except WavelldmError:  # too short or silent for it: the table then does without
            pass
    return scores


def text(facts: dict) -> str:
    names = list(facts["scores"]["noisy"])
    lines = [
        f"model: {facts['model']}: {facts['training']}",
        f"cleaned {facts['seconds']} s of sound in {facts['seconds'] * facts['real_time_factor']:.2f} s",
        "",
        " " * 10 + "".join(f"{name:>10}" for name in names),
    ]
    lines += [f"{who:<10}" + "".join(f"{row[name]:>10.2f}" for name in names) for who, row in facts["scores"].items()]
    lines += ["", f"listen and look: {', '.join(facts['folder'] + '/' + f for f in facts['files'])}"]
    return "\n".join(lines)
