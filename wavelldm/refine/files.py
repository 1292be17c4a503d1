"""`wavelldm refine`: a noisy recording and what any program made of it go in, a refined one comes out.

Read from the top: `refine_file` loads both, `match` makes the second as early and as loud as the first, `refine` lets
the prior work at its own rate.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import files
from ..audio.blocks import window_count
from ..denoise import denoiser
from ..errors import AudioError, WavelldmError
from ..metrics import alignment
from ..progress import progress_bar
from .prior import OVERLAP, PIECE, SpeechPrior

MAX_DELAY = 0.2  # seconds by which a program may answer late
MAX_DIFFERENCE = 0.1  # seconds by which it may give back less or more
EXAMINED = 30  # seconds, the loudest, from which delay and level are taken
MIN_CORRELATION = 0.2  # of both waveforms, from which on delay and level mean something
MIN_GAIN_DB = 0.5  # a smaller error of the level is not corrected
PAPER = (0.9, 0.9, None)  # eta_a, eta_b, eta_c of Diffiner (arXiv 2210.17287, section 4)
PAPER_PLUS = (0.4, 0.6, 0.0)  # of Diffiner+


@dataclass(frozen=True)
class Choices:
    """What a user may choose. eta_a None: DDPM's own step; eta_c None: Diffiner, else Diffiner+."""

    steps: int = 30
    eta_a: float | None = PAPER[0]
    eta_b: float = PAPER[1]
    eta_c: float | None = PAPER[2]
    seed: int = 0


def refine_file(
    noisy: str | Path,
    enhanced: str | Path | None,
    target: str | Path,
    prior: SpeechPrior,
    choices: Choices = Choices(),
    first: str | None = None,
    force: bool = False,
    progress: bool = True,
) -> dict:
    """Refine `enhanced` (a file), or what our denoiser `first` makes of `noisy`; write a file of the same kind."""
    if (enhanced is None) == (first is None):
        raise WavelldmError(
            "name the enhanced recording, or with --first the denoiser that is to make it; one of the two"
        )
    if Path(target).exists() and not force:
        raise AudioError(f"{target} exists; choose another name or pass --force to overwrite it")
    facts, (wav, sr) = files.info(noisy), files.load(noisy)
    if first is not None:
        cleaned, notes = denoiser.load(first).enhance(wav, sr), []
    else:
        cleaned, rate = files.load(enhanced)
        if rate != sr:
            raise AudioError(f"{noisy} has {sr} Hz and {enhanced} {rate} Hz; convert one to the rate of the other")
        cleaned, notes = match(wav, cleaned, sr)
    refined = refine(prior, wav, cleaned, sr, choices, progress)
    files.save(target, refined, sr, like=facts, force=force)
    return {
        "noisy": str(noisy),
        "enhanced": first or str(enhanced),
        "output": str(target),
        "seconds": round(wav.shape[-1] / sr, 3),
        "notes": notes,
    }


def refine(
    prior: SpeechPrior, noisy: Tensor, cleaned: Tensor, sr: int, choices: Choices = Choices(), progress: bool = False
) -> Tensor:
    """noisy, cleaned (C, N) at any rate -> refined (C, N). What lies above the prior's band stays as in `cleaned`."""
    c, own = choices, prior.config.sr
    y, x = (files.resample(wav, sr, own) for wav in (noisy, cleaned))
    pieces = window_count(y.shape[-1], PIECE * prior.config.hop, OVERLAP * prior.config.hop)
    with progress_bar(show=progress, total=pieces * len(y) * c.steps, desc="refining", unit="step") as bar:
        refined = prior.refine_wav(y, x, c.steps, c.eta_a, c.eta_b, c.eta_c, c.seed, lambda *_: bar.update())
    if sr == own:
        return refined
    return cleaned + files.fit(files.resample(refined - x, own, sr), cleaned.shape[-1])


# --- as early and as loud as the noisy recording


def match(noisy: Tensor, cleaned: Tensor, sr: int) -> tuple[Tensor, list[str]]:
    """The cleaned recording (C, N) as long, as early and as loud as the noisy one, and what was done to it, in words.

    Its level is right if what it took away has nothing in common with what it left: then <noisy, cleaned> equals
    <cleaned, cleaned>.
    """
    cleaned, notes = _as_long(noisy, cleaned, sr)
    if not (noisy.any() and cleaned.any()):
        raise AudioError("one of the two recordings is silent; there is nothing to refine")
    where = loudest(cleaned.mean(0), EXAMINED * sr)
    y, x = (wav.mean(0)[where].double().numpy() for wav in (noisy, cleaned))
    if not (y.any() and x.any()):
        return cleaned, [*notes, "the channels cancel each other, so neither delay nor level was looked at"]
    late = round(alignment.align(y, x, round(MAX_DELAY * sr), subsample=True), 1)
    y, x = alignment.undelay(y, x, late) if late else (y, x)
    correlation = float(y @ x / max(np.sqrt((y @ y) * (x @ x)), 1e-20))
    if correlation < MIN_CORRELATION:
        found = f"the enhanced waveform does not follow the noisy one (correlation {correlation:.2f})"
        return cleaned, [*notes, f"{found}: delay and level were left alone"]
    if late:
        notes.append(f"the enhanced recording was {abs(late):g} samples too {'late' if late > 0 else 'early'}")
        cleaned = _earlier(noisy, cleaned, late)
    gain = float(y @ x / (x @ x))
    decibels = 20 * np.log10(gain)
    if abs(decibels) > MIN_GAIN_DB:
        notes.append(f"the enhanced recording was {abs(decibels):.1f} dB too {'quiet' if gain > 1 else 'loud'}")
        cleaned = gain * cleaned
    return cleaned, notes


def _as_long(noisy: Tensor, cleaned: Tensor, sr: int) -> tuple[Tensor, list[str]]:
    if len(noisy) != len(cleaned):
        raise AudioError(
            f"the noisy recording has {len(noisy)} channels and the enhanced one {len(cleaned)}; both must be alike"
        )
    short = noisy.shape[-1] - cleaned.shape[-1]
    if abs(short) > MAX_DIFFERENCE * sr:
        raise AudioError(
            f"the noisy recording lasts {noisy.shape[-1] / sr:.2f} s and the enhanced one "
            f"{cleaned.shape[-1] / sr:.2f} s; both must be of the same sound, to {MAX_DIFFERENCE:g} s"
        )
    if not short:
        return cleaned, []
    note = f"the enhanced recording was {abs(short)} samples too {'short' if short > 0 else 'long'} at its end"
    return files.fit(cleaned, noisy.shape[-1]), [note]


def loudest(wav: Tensor, size: int) -> slice:
    """Where the loudest `size` samples of wav (N,) lie, to a tenth of that."""
    step = max(1, size // 10)
    power = torch.nn.functional.pad(wav.square(), (0, -len(wav) % step)).unflatten(0, (-1, step)).sum(1)
    total = power.cumsum(0)
    sums = total[9:] - torch.nn.functional.pad(total, (1, 0))[: max(0, len(total) - 9)]
    first = int(sums.argmax()) * step if len(sums) else 0
    return slice(first, first + size)


def _earlier(noisy: Tensor, cleaned: Tensor, late: float) -> Tensor:
    """Move each channel by `late` samples; what lies beyond its ends is the noisy recording's."""
    moved, first = noisy.clone(), max(0, -round(late))
    for row, a, b in zip(moved, noisy, cleaned):
        part = b
        if a.any() and b.any():
            part = torch.from_numpy(alignment.undelay(a.numpy(), b.numpy(), late)[1]).float()
        row[first : first + len(part)] = part[: len(row) - first]
    return moved
