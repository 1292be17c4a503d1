"""Sounds with captions, as log-mels that are made once: the synthesised scenes, recordings with a label for each, and
folders with a CSV of captions."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import files
from ..audio.mel import MELS, LogMel
from ..data import scenes
from ..data.corpora import read_manifest
from ..data.labels import said
from ..errors import DataError
from ..paths import data_home
from ..progress import progress_bar

MEL = MELS["audioldm2"]
RECIPE = 2  # raise it whenever the same seed gives other scenes
SECONDS = (4.0, 4.0, 4.0, 2.0, 4.0, 7.0)  # lengths of scenes, in turn
PAIRS = ("with", "then", "with", "with", "then")  # relations of scenes with two events, in turn
AT_ONCE = 64  # log-mels that are computed in one batch
PARTS = 4  # of a long recording


@dataclass
class Captioned:
    """Log-mels by length {frames: (n, 64, frames)}, in half precision, and for each what a caption is made from."""

    mels: dict[int, Tensor] = field(default_factory=dict)
    about: dict[int, list] = field(default_factory=dict)  # a Scene, or a list of captions, for each
    new: bool = False  # scenes are captioned in phrasings that are held out

    def __len__(self) -> int:
        return sum(map(len, self.mels.values()))

    def words(self, frames: int, index: int, generator: np.random.Generator) -> str:
        """A caption of the sound number `index` of that length; another one each time, where there are several."""
        about = self.about[frames][index]
        if isinstance(about, scenes.Scene):
            return scenes.caption(about, generator, self.new)
        return about[generator.integers(len(about))]

    def batches(self, size: int, seed: int, first: int = 0) -> Iterator[tuple[Tensor, list[str], list]]:
        """Endless batches of one length each: log-mels (B, 64, F), captions, what they are; from step `first` on."""
        lengths = sorted(self.mels)
        share = np.array([len(self.mels[f]) for f in lengths], float)
        step = first
        while True:
            generator = np.random.default_rng([seed, step])
            frames = lengths[generator.choice(len(lengths), p=share / share.sum())]
            which = generator.integers(0, len(self.mels[frames]), size)
            words = [self.words(frames, int(i), generator) for i in which]
            yield self.mels[frames][which].float(), words, [self.about[frames][i] for i in which]
            step += 1

    def in_order(self, size: int) -> Iterator[tuple[Tensor, list[str], list]]:
        """Everything once, in batches of one length each; the captions are the same each time."""
        for frames in sorted(self.mels):
            for i in range(0, len(self.mels[frames]), size):
                which = range(i, min(i + size, len(self.mels[frames])))
                words = [self.words(frames, k, np.random.default_rng([7, frames, k])) for k in which]
                yield self.mels[frames][i : i + size].float(), words, self.about[frames][i : i + size]


def collect(pairs: Iterator[tuple[np.ndarray, object]], new: bool = False) -> Captioned:
    """(samples at 16 kHz, what they are) -> their log-mels by length."""
    found, log_mel, waiting = Captioned(new=new), LogMel(MEL), {}
    parts: dict[int, list] = {}

    def flush(n: int) -> None:
        wavs = torch.from_numpy(np.stack(waiting.pop(n)))[:, None]  # (B, 1, N)
        parts.setdefault(n // MEL.hop, []).append(log_mel(wavs, MEL.sr)[..., : n // MEL.hop].half())

    for wav, about in pairs:
        n = len(wav) // MEL.hop * MEL.hop
        waiting.setdefault(n, []).append(wav[:n])
        found.about.setdefault(n // MEL.hop, []).append(about)
        if len(waiting[n]) == AT_ONCE:
            flush(n)
    for n in list(waiting):
        flush(n)
    found.mels = {frames: torch.cat(rows) for frames, rows in parts.items()}
    return found


def synthesised(
    count: int, seed: int, new: bool = False, seconds: tuple = SECONDS, relations: tuple = (None,)
) -> Captioned:
    """So many scenes of a seed. They are kept in the data folder, as making them takes longer than learning them.
    `relations`: of their events, in turn; None leaves it to chance."""
    lengths = "-".join(f"{s:g}" for s in seconds)
    only = "" if relations == (None,) else "".join(f"{r or 'any'}-" for r in relations)
    path = data_home() / f"scenes-{count}-seed{seed}-{'new-' * new}{only}{lengths}s-v{RECIPE}.pt"
    abouts: dict[int, list] = {}
    for i in range(count):
        generator = np.random.default_rng([seed, i, int(new)])
        frames = round(seconds[i % len(seconds)] * MEL.sr) // MEL.hop
        abouts.setdefault(frames, []).append(scenes.draw(generator, new, relations[i % len(relations)]))
    if path.is_file():
        return Captioned(torch.load(path, weights_only=True), abouts, new)

    def pairs() -> Iterator:
        for i in progress_bar(range(count), desc="scenes", unit="scene"):
            wav, _, scene = scenes.example(seed, i, new, seconds[i % len(seconds)], relations[i % len(relations)])
            yield wav, scene

    found = collect(pairs(), new)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(path, force=True) as part:
        torch.save(found.mels, part)
    return found


def labelled(manifest: str | Path, split: str = "train", seconds: float = SECONDS[0]) -> Captioned:
    """The noises of a manifest whose labels say what one hears (data/labels.py), cut to `seconds`, several parts of
    the long ones. Each has the captions that scenes with one event have."""
    n = round(seconds * MEL.sr)

    def pairs() -> Iterator:
        for item in progress_bar(read_manifest(manifest, split, ("noise",))[0], desc="labelled sounds", unit="file"):
            words = said(item.label)
            if not words:
                continue
            wav = files.load(item.path, MEL.sr)[0].mean(0).numpy()
            heard = np.flatnonzero(np.abs(wav) > 1e-3 * np.abs(wav).max())  # short ones are filled up with zeros
            wav = wav[heard[0] : heard[-1] + 1] if len(heard) else wav
            for start in range(0, max(1, min(len(wav) - n // 2, PARTS * n)), n):
                part = wav[start : start + n]
                yield np.pad(part, (0, n - len(part))), [pattern.format(a=words) for pattern in scenes.SINGLE]

    return collect(pairs())


def joined(a: Captioned, b: Captioned) -> Captioned:
    """Both, as one; which phrasings scenes have is as in the first."""
    mels = {f: torch.cat([x.mels[f] for x in (a, b) if f in x.mels]) for f in {*a.mels, *b.mels}}
    about = {f: [row for x in (a, b) for row in x.about.get(f, [])] for f in mels}
    return Captioned(mels, about, a.new)


def folder(path: str | Path, seconds: float = 10.0) -> Captioned:
    """A folder of sounds with a CSV, as AudioCaps (`youtube_id`, `caption`) and Clotho (`file_name`, `caption_1` to
    `caption_5`) have it. Sounds are repeated or cut to `seconds`."""
    root = Path(path)
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        raise DataError(f"{root} must hold one CSV file of captions, not {len(tables)}; see docs/training.md")
    sounds, n = files.sound_files(root), round(seconds * MEL.sr)
    by_name = {Path(name).name: place for name, place in sounds.items()}
    rows: dict[Path, list[str]] = {}
    with open(tables[0], newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        fields = reader.fieldnames or []
        key = next((f for f in ("file_name", "youtube_id", "audio", "file") if f in fields), None)
        captions = [f for f in fields if f.startswith("caption")]
        if key is None or not captions:
            raise DataError(f"{tables[0]} needs a column file_name or youtube_id, and one whose name begins caption")
        for row in reader:
            place = by_name.get(Path(row[key]).stem) or by_name.get(row[key])
            if place is not None:
                rows.setdefault(place, []).extend(row[c].strip() for c in captions if (row[c] or "").strip())
    rows = {place: words for place, words in rows.items() if words}
    if not rows:
        raise DataError(f"none of the names in {tables[0]} belongs to a sound in {root}; put the sounds beside it")

    def pairs() -> Iterator:
        for place, words in progress_bar(rows.items(), desc="captioned sounds", unit="file"):
            wav, _ = files.load(place, MEL.sr)
            yield np.resize(wav.mean(0).numpy(), n), words

    return collect(pairs())
