"""Noisy and clean crops to train denoisers on: speech and noise mixed at a known ratio, or recorded pairs."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..data.clips import Clips
from ..data.corpora import Corpus
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..errors import DataError
from . import parallel

RECIPE = Degradation(snr=(-5.0, 20.0), level=1.0)
VALID = Degradation(snr=(0.0, 17.5), level=1.0, level_db=(-26.0, -26.0))
RECORDED = Degradation(snr=None)  # pairs that were recorded stay as they are
HELD_OUT = 24  # held-out crops of VALID_SECONDS
VALID_SECONDS, VALID_BATCH = 4.0, 8


def mixtures(
    corpus: Corpus,
    sr: int,
    seconds: float,
    batch: int,
    seed: int = 0,
    workers: int = 0,
    snr: tuple[float, float] | None = None,
    recipe: Degradation = RECIPE,
    valid_recipe: Degradation = VALID,
    held_out: int = HELD_OUT,
    hissy: float = 0.0,
    varied: float = 0.0,
    even: bool = False,
) -> tuple[Callable[[int], Iterator], list]:
    """-> a function from a step to the batches (noisy, clean) from there on, our share of them, and held-out batches.

    `snr`: other bounds in dB, on active speech, than those of the recipes; the ratio is drawn between them and met
    exactly. `hissy`: share of the recordings that is left out of training, those with the loudest pauses: what hisses
    in them would count as speech. `varied`: share of the speech at another speed and through another microphone.
    `even`: voices with much speech are drawn less often (`Clips.draw_from`).
    """
    if snr is not None and (corpus.recorded or snr[0] > snr[1]):
        raise DataError(
            "recorded pairs have the ratio they have; leave --snr out"
            if corpus.recorded
            else "--snr goes from LOW to HIGH"
        )
    if corpus.recorded:
        recipe, valid_recipe = RECORDED, RECORDED
    if snr is not None:
        recipe, valid_recipe = (replace(r, snr=tuple(snr)) for r in (recipe, valid_recipe))
    rooms = corpus.room_responses(sr) if recipe.reverb else None

    def decode() -> tuple[Clips, Clips | None, list]:
        speech, noise = Clips(corpus.speech, sr), None if corpus.recorded else Clips(corpus.noise, sr)
        held = corpus.valid_speech, corpus.valid_noise
        return speech, noise, valid_pairs(*held, valid_recipe, sr, VALID_SECONDS, VALID_BATCH, count=held_out)

    speech, noise, valid = parallel.in_turn(decode)
    chosen = np.ones(len(speech), bool)
    if hissy:
        floors = speech.floors()
        chosen = floors > np.quantile(floors, hissy)
    speech.draw_from(chosen, even)
    place = parallel.place()
    return lambda first: batches(
        speech, noise, recipe, sr, seconds, batch, seed, workers, first, rooms, place, varied
    ), valid
