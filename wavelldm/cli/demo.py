"""`wavelldm demo`: one noisy clip with two dropouts, cleaned; the sounds, a before/after picture and a table say what happened."""

import time
from pathlib import Path

import torch

from .. import plots
from ..audio import files
from ..denoise import denoiser as enhance
from ..denoise.chain import Settings
from ..errors import WavelldmError
from ..metrics import scores as metrics

SHOWN = ("pesq_wb", "stoi", "si_sdr", "lsd")
SNR = 10.0  # dB on active speech
LOST = ((1.1, 0.12), (4.6, 0.2))  # seconds: where a stretch is lost, how long it is


def clip(sr: int = 16_000):
    """A spoken sentence and the same one in the rain -> clean, noisy (1, N)."""
    import numpy as np

    from ..audio import levels
    from ..data import noises
    from ..data.sentences import sentence
    from ..data.voices import speak

    speech = torch.as_tensor(speak(sentence(3) + " " + sentence(4), "en-us+f4", sr=sr)).reshape(1, -1)
    speech = 0.4 * speech / speech.abs().max()
    rain = torch.from_numpy(noises.NOISES["rain"](speech.shape[-1], sr, np.random.default_rng(0))).reshape(1, -1)
    return speech, levels.mix_at_snr(speech, rain, SNR, sr)


def drop(wav, sr: int, lost=LOST):
    """wav (1, N) with stretches of digital silence, as after lost packets -> (1, N)."""
    wav = wav.clone()
    for start, length in lost:
        wav[:, round(start * sr) : round((start + length) * sr)] = 0
    return wav


def run(source=None, out="demo", model: str = "best") -> dict:
    """Write noisy, denoised (and clean) sounds and a picture to `out`; return the figures."""
    out = Path(out)
    if source is None:
        sr = 16_000
        clean, noisy = clip(sr)
        noisy = drop(noisy, sr)
    else:
        clean, (noisy, sr) = None, files.load(source, mono=True, seconds=60.0)
    denoiser = enhance.load(model)
    began = time.perf_counter()
    cleaned = denoiser.enhance(
        noisy, sr, Settings(restore=True)
    )  # the mask takes the noise, the diffusion fills what is lost
    took = time.perf_counter() - began
    versions = {"clean": clean, "noisy": noisy, "denoised": cleaned}
    versions = {name: wav for name, wav in versions.items() if wav is not None}
    for name, wav in versions.items():
        files.save(out / f"{name}.wav", wav, sr, force=True)
    plots.compare(versions, sr, out / "before_after.png", note=f"{denoiser.name}: {denoiser.training}")
    scores = {}
    if clean is not None:
        for name in ("noisy", "denoised"):
            scores[name] = {m: float(metrics.METRICS[m].function(clean, versions[name], sr)) for m in SHOWN}
    for name in ("noisy", "denoised"):
        try:
            scores.setdefault(name, {})["dnsmos"] = float(metrics.dnsmos(versions[name], sr)["OVRL"])
        except WavelldmError:  # too short or silent for it: the table then does without
            pass
    return {
        "model": denoiser.name,
        "training": denoiser.training,
        "folder": str(out),
        "files": [*(f"{name}.wav" for name in versions), "before_after.png"],
        "seconds": round(noisy.shape[-1] / sr, 2),
        "real_time_factor": round(took / (noisy.shape[-1] / sr), 4),
        "scores": scores,
    }


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
