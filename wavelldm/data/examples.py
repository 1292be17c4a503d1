"""Sounds to try things on, which need no download: voices of eight people, and made-up music.

The voices are held out: no network that ships here has learnt from them. Licence and credits: `people/README.md`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import files
from ..errors import DataError

PEOPLE = Path(__file__).parent / "people"


@dataclass(frozen=True)
class Voice:
    """A reader of LibriSpeech: the number there, the median pitch in Hz, and the seconds of the recording."""

    name: str
    pitch: int
    seconds: float


VOICES = {
    voice.name: voice
    for voice in (
        Voice("1183", 257, 6.16),
        Voice("7278", 125, 8.27),
        Voice("39", 197, 10.92),
        Voice("2159", 108, 12.11),
        Voice("4640", 186, 8.24),
        Voice("6454", 102, 12.98),
        Voice("1363", 190, 5.26),
        Voice("1455", 81, 7.69),
    )
}


def voice(name: str = "1183", sr: int = 16_000) -> tuple[Tensor, int]:
    """The voice of a person, by a name of VOICES -> wav (1, N), its rate."""
    if name not in VOICES:
        raise DataError(f"there is no voice '{name}'; choose one of: {', '.join(VOICES)}")
    return files.load(PEOPLE / f"{name}.opus", sr=sr, mono=True)


def music(seconds: float = 10.0, seed: int = 0, sr: int = 16_000) -> tuple[Tensor, int]:
    """Made-up music, chords on plucked strings and a melody over them -> wav (1, N), its rate. Nobody played it."""
    if seconds < 2:
        raise DataError(f"the music lasts at least 2 seconds, not {seconds:g}; choose more")
    rng, wav = np.random.default_rng(seed), np.zeros(round(seconds * sr))
    t = np.arange(sr) / sr
    for i, start in enumerate(np.arange(0, seconds - 1, 0.25)):
        root = 130.8 * 2 ** (rng.choice([0, 5, 7, 9]) / 12)
        notes = [root * 2 ** (j / 12) for j in (0, 4, 7)] if i % 4 == 0 else []
        for hertz in [*notes, 2 * root * 2 ** (rng.choice([0, 2, 4, 7, 9, 12]) / 12)]:
            part = sum(np.sin(2 * np.pi * h * hertz * t) * np.exp(-(2 + h) * t) / h for h in range(1, 8))
            wav[round(start * sr) :][:sr] += part * np.minimum(1, t / 0.005)
    return torch.from_numpy(0.1 * wav / wav.std()).float()[None], sr
