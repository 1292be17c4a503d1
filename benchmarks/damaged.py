"""Held-out speech, damaged in every way that restoration is asked about; what was lost is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from denoise import OTHERS, SECONDS, SR
from torch import Tensor

from wavelldm.data import corpora, degrade, loader, voices
from wavelldm.data.clips import Clips
from wavelldm.data.degrade import Degradation

LEVEL = dict(level=1.0, level_db=(-32.0, -20.0))
PACKET = 0.02  # seconds
QUIET = Degradation(noise=0.0, **LEVEL)
GENERAL = ("pesq_wb", "estoi", "stoi", "lsd", "visqol", "dnsmos_ovrl")
GAPS, BAND = (*GENERAL, "plcmos"), ("pesq_wb", "estoi", "lsd", "lsd_band", "visqol", "dnsmos_ovrl")
CLIPPED = ("pesq_wb", "estoi", "si_sdr", "visqol")


@dataclass(frozen=True)
class Clip:
    """A damaged recording and the truth about it."""

    task: str
    number: int  # of the recording: the same in all tasks
    speaker: str
    damaged: Tensor  # (1, N)
    clean: Tensor  # (1, N)
    gaps: Tensor | None = None  # (1, N), True where samples are lost
    cutoff: float | None = None  # Hz above which nothing is left
    clipped: Tensor | None = None  # (1, N), True where samples are at the ceiling


@dataclass(frozen=True)
class Task:
    """What is done to clean speech: a recipe of the library (noise, room, level), then a damage of which all is
    known."""

    caption: str
    recipe: Degradation = QUIET
    damage: Callable = lambda wav, generator: (wav, {})  # (1, N) -> (1, N), fields of a Clip
    scores: tuple = GENERAL
    noisy: bool = False
    times: int = 1  # as many clips as the others


def gaps(wav: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
    """One to seven gaps of 50 to 450 ms, as in the recipes of the library."""
    damaged, lost = degrade.dropouts(wav[None], SR, generator, QUIET.dropout_count, QUIET.dropout_seconds)
    return damaged[0], {"gaps": lost[0]}


def packets(wav: Tensor, generator: torch.Generator, share: float = 0.1) -> tuple[Tensor, dict]:
    """Packets of 20 ms are lost, one to three in a row, until `share` of them are; runs do not touch."""
    size = round(PACKET * SR)
    count = wav.shape[-1] // size
    lost = torch.zeros(count + 2, dtype=torch.bool)  # one more at either end: never lost
    left = round(share * count)
    while left:
        length = min(left, int(torch.randint(1, 4, (), generator=generator)))
        start = int(torch.randint(1, count - length + 2, (), generator=generator))
        if not lost[start - 1 : start + length + 1].any():
            lost[start : start + length] = True
            left -= length
    mask = torch.zeros_like(wav, dtype=torch.bool)
    mask[:, : count * size] = lost[1:-1].repeat_interleave(size)
    return wav.masked_fill(mask, 0.0), {"gaps": mask}


def narrow(wav: Tensor, generator: torch.Generator, hz: tuple = (4_000.0, 4_000.0)) -> tuple[Tensor, dict]:
    """Nothing is left above a cutoff."""
    cutoff = hz[0] + (hz[1] - hz[0]) * torch.rand(1, generator=generator)
    return degrade.band_limit(wav[None], SR, cutoff)[0], {"cutoff": float(cutoff)}


def clipping(share: float) -> Callable:
    """The loudest `share` of all samples is cut flat."""

    def damage(wav: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        ceiling = torch.quantile(wav.abs(), 1 - share)
        return wav.clamp(-ceiling, ceiling), {"clipped": wav.abs() >= ceiling}

    return damage


def cuts_and_band(wav: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
    wav, band = narrow(wav, generator, (4_000.0, 8_000.0))
    wav, lost = gaps(wav, generator)
    return wav, {**band, **lost}


NOISY = "with noise at 17.5 dB"
TASKS = {
    "gaps": Task("One to seven gaps of 50 to 450 ms in clean speech.", QUIET, gaps, GAPS),
    "gaps, noise": Task(
        f"The same {NOISY}.", replace(OTHERS["dropouts"], dropout=0.0, **LEVEL), gaps, GAPS, noisy=True
    ),
    "packets": Task(
        "Packets of 20 ms, lost one to three in a row, a tenth of them in all; clean speech.", QUIET, packets, GAPS
    ),
    "band": Task("Clean speech with nothing above 4 kHz.", QUIET, narrow, BAND),
    "band, noise": Task(
        f"The same {NOISY}.", replace(OTHERS["a band of 4 kHz"], band=0.0, **LEVEL), narrow, BAND, noisy=True
    ),
    **{
        f"clipping, {share} %": Task(
            f"The loudest {share} % of the samples of clean speech cut flat.", QUIET, clipping(share / 100), CLIPPED
        )
        for share in (3, 10, 20)
    },
    "overload": Task(
        f"Speech {NOISY}, the ceiling 3 to 15 dB under the peak, half of them cut flat, half bent (tanh).",
        replace(OTHERS["overload"], **LEVEL),
        scores=CLIPPED,
        noisy=True,
    ),
    "room": Task(
        "A room of 0.15 to 0.9 s with noise at 12.5 dB; the target keeps the first 50 ms of the echoes.",
        replace(OTHERS["a room"], **LEVEL),
        noisy=True,
    ),
    "cuts and band": Task(
        "The damages of arXiv 2508.21153 together: noise at 2.5 to 17.5 dB, nothing above a cutoff of 4 to 8 kHz, one "
        "to seven gaps of 50 to 450 ms. Published there, on other recordings (VoiceBank+DEMAND): LSD 0.48 to 0.60, "
        "WB-PESQ 1.62 to 1.71, STOI 76 to 78. How that LSD is computed was not found in its code; ours is in bels.",
        Degradation(snr=(2.5, 17.5), **LEVEL),
        cuts_and_band,
        ("lsd", "pesq_wb", "stoi", "estoi", "dnsmos_ovrl", "plcmos"),
        noisy=True,
    ),
    "nothing": Task(
        "Clean speech with its whole band: there is nothing to repair.", scores=("pesq_wb", "estoi"), times=3
    ),
}


def speech_and_noise(manifest: str | None, count: int) -> tuple[Clips, Clips]:
    """Held-out recordings: one of each speaker first, long enough where there are such, and all held-out noises."""
    speech, noise = (
        corpora.read_manifest(manifest or voices.build_corpus(), "valid", (kind,))[0] for kind in ("speech", "noise")
    )
    speech = [speech[i] for i in np.random.default_rng(0).permutation(len(speech))]
    lengths, seen, order = Clips(speech, SR).lengths, {}, []
    for place, (item, length) in enumerate(zip(speech, lengths)):
        turn = seen[item.label] = seen.get(item.label, -1) + (length >= SECONDS * SR)
        order.append((length < SECONDS * SR, turn, place))
    return Clips([speech[place] for *_, place in sorted(order)[:count]], SR), Clips(noise, SR)


def clips(manifest: str | None, count: int, tasks: list) -> list[Clip]:
    """`count` clips for each of these tasks, always the same."""
    found = []
    most = count * max(TASKS[name].times for name in tasks)
    speech, noise = speech_and_noise(manifest, most)
    for name in tasks:
        task, generator = TASKS[name], torch.Generator().manual_seed(1)
        pairs = loader.valid_pairs(speech, noise, task.recipe, SR, SECONDS, 1, count * task.times)
        for i, (damaged, clean) in enumerate(pairs):
            damaged, known = task.damage(damaged[0], generator)
            speaker = speech.items[i % len(speech)].label
            found.append(Clip(name, i, speaker, damaged, clean[0], **known))
    return found
