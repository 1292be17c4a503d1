"""Two recordings in, a noisy one and what any program made of it, a refined one out: `wavelldm refine`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import files
from ..denoise import denoiser
from ..errors import AudioError, WavelldmError
from ..metrics import alignment
from ..progress import progress_bar
from .prior import OVERLAP, PIECE, SpeechPrior, starts

LONGEST_DELAY = 0.2  # seconds by which a program may answer late
LENGTH = 0.1  # seconds by which it may give back less or more
LOOKED_AT = 30  # seconds, the loudest, from which delay and level are taken
ALIKE = 0.2  # least correlation at which they mean something
PAPER, PAPER_PLUS = (
    (0.9, 0.9, None),
    (0.4, 0.6, 0.0),
)  # eta_a, eta_b, eta_c of Diffiner and Diffiner+ (arXiv 2210.17287, section 4)


@dataclass(frozen=True)
class Choices:
    """What a user may choose. eta_a None: DDPM's own step; eta_c None: Diffiner, else Diffiner+."""

    steps: int = 30
    eta_a: float | None = PAPER[0]
    eta_b: float = PAPER[1]
    eta_c: float | None = PAPER[2]
    seed: int = 0


def loudest(wav: Tensor, size: int) -> slice:
    """Where the loudest `size` samples of wav (N,) lie, to a tenth of that."""
    step = max(1, size // 10)
    power = torch.nn.functional.pad(wav.square(), (0, -len(wav) % step)).unflatten(0, (-1, step)).sum(1)
    total = power.cumsum(0)
    sums = total[9:] - torch.nn.functional.pad(total, (1, 0))[: max(0, len(total) - 9)]
    first = int(sums.argmax()) * step if len(sums) else 0
    return slice(first, first + size)


def match(noisy: Tensor, cleaned: Tensor, sr: int) -> tuple[Tensor, list[str]]:
    """The cleaned recording (C, N) as early and as loud as the noisy one, and what was done to it, in words.

    Its level is right if what it took away has nothing in common with what it left: then <noisy, cleaned> = <cleaned, cleaned>.
    """
    notes, n = [], noisy.shape[-1]
    if len(noisy) != len(cleaned):
        raise AudioError(
            f"the noisy recording has {len(noisy)} channels and the enhanced one {len(cleaned)}; both must be alike"
        )
    if abs(short := n - cleaned.shape[-1]) > LENGTH * sr:
        raise AudioError(
            f"the noisy recording lasts {n / sr:.2f} s and the enhanced one {cleaned.shape[-1] / sr:.2f} s; both must be of the same sound, to {LENGTH:g} s"
        )
    if short:
        notes.append(
            f"the enhanced recording was {abs(short)} samples too {'short' if short > 0 else 'long'} at its end"
        )
        cleaned = files.fit(cleaned, n)
    if not (noisy.any() and cleaned.any()):
        raise AudioError("one of the two recordings is silent; there is nothing to refine")
    where = loudest(cleaned.mean(0), LOOKED_AT * sr)
    y, x = (wav.mean(0)[where].double().numpy() for wav in (noisy, cleaned))
    if not (y.any() and x.any()):
        return cleaned, [*notes, "the channels cancel each other, so neither delay nor level was looked at"]
    late = alignment.align(y, x, round(LONGEST_DELAY * sr), subsample=True)
    late = round(late, 1)
    y, x = alignment.undelay(y, x, late) if late else (y, x)
    alike = float(y @ x / max(np.sqrt((y @ y) * (x @ x)), 1e-20))
    if alike < ALIKE:
        return cleaned, [
            *notes,
            f"the enhanced waveform does not follow the noisy one (correlation {alike:.2f}): delay and level were left alone",
        ]
    if late:
        notes.append(f"the enhanced recording was {abs(late):g} samples too {'late' if late > 0 else 'early'}")
        whole = round(late)
        shifted = [
            torch.from_numpy(alignment.undelay(a.numpy(), b.numpy(), late)[1]).float() if b.any() and a.any() else b
            for a, b in zip(noisy, cleaned)
        ]
        moved = noisy.clone()  # what lies beyond its ends stays as it was
        for row, part in zip(moved, shifted):
            row[max(0, -whole) : max(0, -whole) + len(part)] = part
        cleaned = moved
    gain = float(y @ x / (x @ x))
    if abs(20 * np.log10(gain)) > 0.5:
        notes.append(
            f"the enhanced recording was {abs(20 * np.log10(gain)):.1f} dB too {'quiet' if gain > 1 else 'loud'}"
        )
        cleaned = gain * cleaned
    return cleaned, notes


def refine(
    prior: SpeechPrior, noisy: Tensor, cleaned: Tensor, sr: int, choices: Choices = Choices(), progress: bool = False
) -> Tensor:
    """noisy, cleaned (C, N) at any rate -> refined (C, N). What lies above the prior's band stays as the first denoiser left it."""
    own = prior.config.sr
    y, x = (files.resample(wav, sr, own) for wav in (noisy, cleaned))
    hop = prior.config.hop
    pieces = len(starts(y.shape[-1], PIECE * hop, OVERLAP * hop))
    with progress_bar(show=progress, total=pieces * len(y) * choices.steps, desc="refining", unit="step") as bar:
        refined = prior.refine_wav(
            y, x, choices.steps, choices.eta_a, choices.eta_b, choices.eta_c, choices.seed, lambda *_: bar.update()
        )
    if sr == own:
        return refined
    return cleaned + files.fit(files.resample(refined - x, own, sr), cleaned.shape[-1])


def refine_file(
    noisy,
    enhanced,
    target,
    prior: SpeechPrior,
    choices: Choices = Choices(),
    first: str | None = None,
    force: bool = False,
    progress: bool = True,
) -> dict:
    """Refine `enhanced` (a file), or what our denoiser `first` makes of `noisy`, and write it as the same kind of file as `noisy`."""
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
    files.save(target, refine(prior, wav, cleaned, sr, choices, progress), sr, like=facts, force=force)
    return {
        "noisy": str(noisy),
        "enhanced": first or str(enhanced),
        "output": str(target),
        "seconds": round(facts.seconds, 3),
        "notes": notes,
    }
