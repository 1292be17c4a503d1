"""From folders of sound to batches of (noisy, clean): readers, a decoded cache, crops, and a loader that can be resumed.

A reader lists items without decoding anything; `Clips` decodes a list once; `batches` draws from it for ever. What step k
yields depends on (seed, k) alone: not on the number of workers, nor on where the run was started.
"""

import csv
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from . import audio
from .degrade import Degradation, degrade
from .errors import DataError
from .paths import data_home

VALID_SPEAKERS = ("p226", "p287")  # of VoiceBank's 28: held out of training, as is common
TEST_SPEAKERS = ("p232", "p257")
SILENT = 1e-8  # mean square (-80 dB): files below are never drawn


@dataclass(frozen=True)
class Item:
    """One file of a corpus, or a clean file with its noisy recording."""

    path: Path
    noisy: Path | None = None
    label: str = ""  # the speaker, or the kind of noise
    split: str = "train"  # or "valid", "test"
    text: str = ""


# readers -------------------------------------------------------------------------------------------------------------


def _sounds(folder) -> dict[str, Path]:
    """The sound files in a folder and below, by path without suffix."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in audio.SUFFIXES and not path.name.startswith("."):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise DataError(f"{found[stem]} and {path} share a name; keep one of them")
            found[stem] = path
    if not found:
        raise DataError(f"{folder} holds no sound files ({', '.join(audio.SUFFIXES)}); check the path")
    return found


def folder(path) -> list[Item]:
    """Every sound file in a folder and below; the label is the sub-folder it lies in."""
    return [Item(file, label=str(Path(stem).parent)) for stem, file in _sounds(path).items()]


def paired(clean, noisy) -> list[Item]:
    """Two folders with the same names in them: paired by name, never by position."""
    first, second = _sounds(clean), _sounds(noisy)
    for here, there, where in ((first, second, noisy), (second, first, clean)):
        alone = sorted(set(here) - set(there))
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise DataError(f"{here[alone[0]]}{more} has no partner in {where}; add it or remove this one")
    return [Item(first[stem], second[stem], label=str(Path(stem).parent)) for stem in first]


def voicebank(path, split: str = "train") -> list[Item]:
    """VoiceBank+DEMAND (Valentini-Botinhao, 2017): "train" and "valid" differ in speakers; "test" is the two others."""
    path = Path(path)
    part = "testset" if split == "test" else "trainset_28spk"
    items = paired(path / f"clean_{part}_wav", path / f"noisy_{part}_wav")
    items = [replace(item, label=item.path.stem.split("_")[0]) for item in items]
    if split == "test":
        return [replace(item, split="test") for item in items]
    leaked = next((item.path for item in items if item.label in TEST_SPEAKERS), None)
    if leaked:
        raise DataError(f"{leaked} is of the test speakers {' and '.join(TEST_SPEAKERS)}; take it out of the training folder")
    items = [replace(item, split="valid" if item.label in VALID_SPEAKERS else "train") for item in items]
    return _of_split(items, split, path)


def ljspeech(path, split: str = "train") -> list[Item]:
    """LJSpeech-1.1: one reader, 50 readings; the last one (LJ050) is "valid"."""
    table = Path(path) / "metadata.csv"
    if not table.exists():
        raise DataError(f"{table} is missing; name the folder that holds metadata.csv and wavs")
    items = []
    for line in table.read_text(encoding="utf-8").splitlines():
        name, *texts = line.split("|")
        wav = Path(path) / "wavs" / f"{name}.wav"
        if not wav.exists():
            raise DataError(f"{wav} is named in {table} but missing; unpack the archive again")
        items.append(Item(wav, label="LJ", split="valid" if name.startswith("LJ050") else "train", text=texts[-1]))
    return _of_split(items, split, path)


def manifest(path, kind: str, split: str = "train") -> list[Item]:
    """A table (tab-separated) with the columns path, kind, label and split; paths are relative to it."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    absent = {"path", "kind", "label", "split"} - set(rows[0] if rows else ())
    if absent:
        raise DataError(f"{path} lacks the column {', '.join(sorted(absent))}; its first line names the columns, tab-separated")
    items = [Item(path.parent / row["path"], label=row["label"], split=row["split"]) for row in rows if row["kind"] == kind]
    items = _of_split(items, split, f"{path} ({kind})")
    missing = [item.path for item in items if not item.path.exists()]
    if missing:
        raise DataError(f"{missing[0]} is named in {path} but missing ({len(missing)} in all); restore the files")
    return items


def _of_split(items, split, where) -> list[Item]:
    kept = [item for item in items if item.split == split]
    if not kept:
        raise DataError(f"{where} has no files for '{split}'; it has {sorted({item.split for item in items}) or 'none'}")
    return kept


def hold_out(items, share: float = 0.1) -> tuple[list[Item], list[Item]]:
    """Set a share aside -> (train, valid), always the same one. Whole labels (speakers) go, if there are enough of them."""
    by_label = len({item.label for item in items}) >= 1 / share
    group = {item: item.label if by_label else item.path.name for item in items}
    order = sorted(set(group.values()), key=lambda name: hashlib.sha256(name.encode()).digest())
    held = set(order[: max(1, round(share * len(order)))])
    train = [item for item in items if group[item] not in held]
    if not train:
        raise DataError("one file cannot be both trained and validated on; add more files")
    return train, [replace(item, split="valid") for item in items if group[item] in held]


def room_responses(items, sr: int, seconds: float = 1.0) -> Tensor:
    """Measured room responses for `degrade`: (K, R), first channel, from 5 ms before the direct path on."""
    rooms = []
    for item in items:
        response = audio.load(item.path, sr)[0][0]  # (N,)
        begin = max(0, int(response.abs().argmax()) - round(0.005 * sr))
        rooms.append(audio.fit(response[begin:], round(seconds * sr)))
    return torch.stack(rooms)


# the decoded cache -----------------------------------------------------------------------------------------------------


def _decode(item: Item, sr: int) -> np.ndarray:
    """int16 (C, N): one row, or clean and noisy. Peaks past full scale turn all rows down alike."""
    rows = [audio.load(path, sr, mono=True)[0] for path in (item.path, item.noisy) if path is not None]
    if abs(rows[0].shape[-1] - rows[-1].shape[-1]) > 0.01 * sr:
        raise DataError(f"{item.path} and {item.noisy} differ in length by more than 10 ms; they are not the same utterance")
    wav = torch.cat([audio.fit(row, rows[0].shape[-1]) for row in rows])  # (C, N)
    wav = wav / wav.abs().max().clamp(min=1.0)
    return (wav * 32768).round().clamp(max=32767).to(torch.int16).numpy()


class Clips:
    """A list of items, decoded once into one int16 file that is mapped into memory: cutting a crop then costs nothing.

    The file lies in the cache under a name made from the paths, sizes and dates of the sources and the rate.
    """

    def __init__(self, items, sr: int, cache=None):
        self.items, self.sr = list(items), sr
        if not self.items:
            raise DataError("there are no files to read; name a folder or manifest that holds some")
        if len({item.noisy is None for item in self.items}) > 1:
            raise DataError("recorded pairs and single files do not mix in one list; load them one after the other")
        self.channels = 1 if self.items[0].noisy is None else 2
        sources = [p for item in self.items for p in (item.path, item.noisy) if p is not None]
        try:
            marks = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in sources]
        except FileNotFoundError as error:
            raise DataError(f"{error.filename} is missing; restore it or list the folder again") from None
        name = hashlib.sha256(json.dumps([1, sr, self.channels, marks]).encode()).hexdigest()[:20]
        self.path = Path(cache or data_home() / "cache") / f"{name}.i16"
        index = self.path.with_suffix(".json")
        if not (index.exists() and self.path.exists()):
            self._build(index)
        table = json.loads(index.read_text())
        self.lengths, self.power = np.array(table["lengths"]), np.array(table["power"])
        self.starts = np.concatenate([[0], np.cumsum(self.lengths * self.channels)])
        # every second is as likely as any other, but no recording counts for more than a minute
        weight = np.where(self.power > SILENT, np.minimum(self.lengths, 60 * sr), 0)
        if not weight.any():
            raise DataError(f"all {len(self)} files from {self.items[0].path} on are silent; check the recordings")
        self._odds = np.cumsum(weight) / weight.sum()
        self._samples = None

    def _build(self, index: Path) -> None:
        lengths, power = [], []
        with audio.writing(self.path, force=True) as part, open(part, "wb") as file:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                decoded = pool.map(_decode, self.items, [self.sr] * len(self.items))
                for rows in tqdm(decoded, "decoding", len(self.items), unit="file", delay=2, leave=False):
                    file.write(rows.tobytes())
                    lengths.append(rows.shape[1])
                    power.append(float(np.mean((rows[0] / 32768.0) ** 2)))
        with audio.writing(index, force=True) as part:
            part.write_text(json.dumps({"lengths": lengths, "power": power}))

    def __len__(self) -> int:
        return len(self.items)

    def __getstate__(self):  # a worker maps the file itself
        return {**self.__dict__, "_samples": None}

    @property
    def seconds(self) -> float:
        return float(self.lengths.sum()) / self.sr

    def rows(self, i: int) -> np.ndarray:
        """Item i, undivided: int16 (C, N)."""
        if self._samples is None:
            self._samples = np.memmap(self.path, np.int16, "r")
        return self._samples[self.starts[i] : self.starts[i + 1]].reshape(self.channels, -1)

    def draw(self, rng: np.random.Generator) -> int:
        return int(np.searchsorted(self._odds, rng.random(), side="right"))

    def _piece(self, i: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """At most n samples of item i that are not a pause: of eight places the first loud enough, else the loudest."""
        rows = self.rows(i)
        best, loudest = None, -1.0
        for _ in range(8):
            start = int(rng.integers(0, max(0, rows.shape[1] - n) + 1))
            piece = rows[:, start : start + n].astype(np.float32) / 32768  # (C, <= n)
            power = float(np.mean(piece[0] ** 2))
            if power > loudest:
                best, loudest = piece, power
            if power >= 0.1 * self.power[i]:
                break
        return best

    def crop(self, n: int, rng: np.random.Generator, first: int | None = None, loop: bool = False) -> Tensor:
        """n samples, float32 (C, n). After a short item comes another one (loop: itself again), faded over 5 ms."""
        i = self.draw(rng) if first is None else first
        pieces = [self._piece(i, n, rng)]
        if pieces[0].shape[1] < n:
            fade = np.linspace(0, 1, max(2, round(0.005 * self.sr)), dtype=np.float32)
            while True:
                piece = pieces[-1]
                ramp = fade[: piece.shape[1]]
                piece[:, : len(ramp)] *= ramp
                piece[:, piece.shape[1] - len(ramp) :] *= ramp[::-1]
                if sum(p.shape[1] for p in pieces) >= n:
                    break
                pieces.append(self._piece(i if loop else self.draw(rng), n, rng))
        joined = np.concatenate(pieces, axis=1)
        start = int(rng.integers(0, joined.shape[1] - n + 1))
        return torch.from_numpy(np.ascontiguousarray(joined[:, start : start + n]))
