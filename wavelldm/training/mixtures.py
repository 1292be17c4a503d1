"""The noisy and clean crops that the waveform denoisers learn from: clean speech of any folder, and noise at a known ratio."""

from dataclasses import replace

from ..data.clips import Clips
from ..data.corpora import Material
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..errors import DataError
from . import parallel

RECIPE = Degradation(snr=(-5.0, 20.0), level=1.0)
VALID = Degradation(snr=(0.0, 17.5), level=1.0, level_db=(-26.0, -26.0))
HELD = 24  # held-out crops of 4 s
RECORDED = Degradation(snr=None)  # pairs that were recorded stay as they are


def mixtures(
    material: Material, sr: int, seconds: float, batch: int, seed: int = 0, workers: int = 0, snr: tuple | None = None
):
    """-> a function from a step to the batches (noisy, clean) from there on, and the held-out ones.

    `snr`: other bounds in dB, on active speech, than those of the recipes; the ratio is drawn between them and met exactly.
    """
    if snr is not None and (material.recorded or snr[0] > snr[1]):
        raise DataError(
            "recorded pairs have the ratio they have; leave --snr out"
            if material.recorded
            else "--snr goes from LOW to HIGH"
        )
    recipe, valid_recipe = (RECORDED, RECORDED) if material.recorded else (RECIPE, VALID)
    if snr is not None:
        recipe, valid_recipe = (replace(r, snr=tuple(snr)) for r in (recipe, valid_recipe))
    speech, noise = parallel.in_turn(
        lambda: (Clips(material.speech, sr), None if material.recorded else Clips(material.noise, sr))
    )
    held = parallel.in_turn(
        lambda: valid_pairs(material.valid_speech, material.valid_noise, valid_recipe, sr, 4.0, 8, count=HELD)
    )
    return lambda first: batches(speech, noise, recipe, sr, seconds, batch, seed, workers, first), held
