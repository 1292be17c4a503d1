"""Small trees of noisy recordings, and a worker with batches of them, for the tests of batches."""

from pathlib import Path

import numpy as np
import soundfile as sf
from signals import speechlike

from wavelldm.batch import ledger
from wavelldm.batch.places import Place
from wavelldm.batch.run import planned
from wavelldm.batch.sources import items_of
from wavelldm.batch.tasks import Settings
from wavelldm.batch.worker import Batch, Worker

SR = 16_000


def noisy(seconds, seed=0):
    rng = np.random.default_rng(seed)
    wav = np.asarray(speechlike(seconds), np.float32)
    return (wav + 0.02 * rng.standard_normal(len(wav))).astype(np.float32)


def tree(folder: Path, number: int = 3) -> Path:
    for i in range(number):
        path = folder / f"speaker{i % 2}" / f"clip{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, noisy(0.5 + 0.25 * i, i), SR, subtype="PCM_16")
    return folder


def begun(source, target, **changes) -> tuple[Worker, list[Batch], Place]:
    settings, place = Settings(**{"task": "denoise", "source": str(source), **changes}), Place(str(target))
    ledger.begin(place, settings.marks(), False)
    return Worker(str(target), settings), planned(items_of(str(source), place), settings, 1), place
