"""Readers of corpora: each lists the files of a corpus as items, without decoding anything.

`gather` chooses among them by what a user gives: folders, recorded pairs, VoiceBank+DEMAND, a manifest, or nothing.
"""

import csv
import hashlib
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..audio import files
from ..audio.files import sound_files
from ..errors import DataError
from ..light import tables
from . import voices

VALID_SPEAKERS = ("p226", "p287")  # of VoiceBank's 28: held out of training, as is common
TEST_SPEAKERS = ("p232", "p257")


@dataclass(frozen=True)
class Item:
    """One file of a corpus, or a clean file with its noisy recording."""

    path: Path
    noisy: Path | None = None
    label: str = ""  # the speaker, or the kind of noise
    split: str = "train"  # or "valid", "test"
    member: str = ""  # of a shard: the sound's name in it,
    span: tuple[int, int] = (0, 0)  # and its first byte and how many there are; of a table the first and number of rows


# --- readers


def folder(path: str | Path) -> list[Item]:
    """Every sound file in a folder and below, or every sound in its .tar and .parquet shards, or in one shard. The
    label is the folder it lies in; of a table with a column for speakers, the speaker."""
    path = Path(path)
    shards = [path] if path.is_file() else sorted(path.rglob("*"))
    tars = [shard for shard in shards if shard.suffix.lower() == ".tar"]
    tables = [shard for shard in shards if shard.suffix.lower() == ".parquet"]
    found = [item for tar in tars for item in in_shard(tar)] + [item for table in tables for item in in_table(table)]
    if found:
        return found
    return [Item(file, label=str(Path(stem).parent)) for stem, file in sound_files(path).items()]


def in_shard(path: Path) -> list[Item]:
    """The sounds in a shard, as WebDataset keeps them."""
    try:
        with tarfile.open(path) as tar:
            found = [(m.name, (m.offset_data, m.size)) for m in tar if m.isfile()]
    except tarfile.TarError as error:
        raise DataError(f"{path} is no whole tar file ({error}); copy it again") from None
    sounds = [(name, span) for name, span in found if Path(name).suffix.lower() in files.SUFFIXES]
    return [Item(path, label=str(Path(name).parent), member=name, span=span) for name, span in sounds]


def in_table(path: Path) -> list[Item]:
    """The sounds in a Parquet table; none if it holds something else."""
    if tables.sound_column(tables.schema(path)) is None:
        return []
    with tables.Table(path, str(path)) as table:
        found = list(table.listing())
    return [Item(path, label=who or str(Path(name).parent), member=name, span=(row, 1)) for row, name, who in found]


def paired(clean: str | Path, noisy: str | Path) -> list[Item]:
    """Two folders with the same names in them: paired by name, never by position."""
    first, second = sound_files(clean), sound_files(noisy)
    for here, there, where in ((first, second, noisy), (second, first, clean)):
        alone = sorted(set(here) - set(there))
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise DataError(f"{here[alone[0]]}{more} has no partner in {where}; add it or remove this one")
    return [Item(first[stem], second[stem], label=str(Path(stem).parent)) for stem in first]


def voicebank(path: str | Path, split: str = "train") -> list[Item]:
    """VoiceBank+DEMAND (Valentini-Botinhao, 2017): "train" and "valid" differ in speakers; "test" is the two others."""
    path = Path(path)
    part = "testset" if split == "test" else "trainset_28spk"
    items = paired(path / f"clean_{part}_wav", path / f"noisy_{part}_wav")
    items = [replace(item, label=item.path.stem.split("_")[0]) for item in items]
    if split == "test":
        return [replace(item, split="test") for item in items]
    leaked = next((item.path for item in items if item.label in TEST_SPEAKERS), None)
    if leaked:
        raise DataError(f"{leaked} is of a test speaker ({', '.join(TEST_SPEAKERS)}); remove it from training")
    items = [replace(item, split="valid" if item.label in VALID_SPEAKERS else "train") for item in items]
    return _of_split(items, split, path)


def folders(speech: str | Path, noise: str | Path) -> tuple[list[Item], list[Item]]:
    """Any folder of speech and any folder of noise -> speech, noise."""
    return folder(speech), folder(noise)


def read_manifest(
    path: str | Path, split: str = "train", kinds: tuple[str, ...] = ("speech", "noise")
) -> tuple[list[Item], ...]:
    """A tab-separated table with the columns path (relative to it), kind, label and split -> one list per kind.

    Kinds are "speech", "noise" and "rir" (measured room impulse responses). Only the list of "rir" may be empty.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path")
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows, absent = list(table), sorted({"path", "kind", "label", "split"} - set(table.fieldnames or ()))
    if absent:
        raise DataError(f"{path} lacks the column {', '.join(absent)}; its first line names them, with tabs between")
    lists = []
    for kind in kinds:
        items = [Item(path.parent / r["path"], label=r["label"], split=r["split"]) for r in rows if r["kind"] == kind]
        in_split = [item for item in items if item.split == split]
        lists.append(in_split if kind == "rir" else _of_split(items, split, f"{path} ({kind})"))
    missing = [item.path for items in lists for item in items if not item.path.exists()]
    if missing:
        raise DataError(f"{missing[0]} is named in {path} but missing ({len(missing)} in all); restore the files")
    return tuple(lists)


def _of_split(items: list[Item], split: str, where: str | Path) -> list[Item]:
    kept = [item for item in items if item.split == split]
    if not kept:
        others = ", ".join(sorted({item.split for item in items})) or "none"
        raise DataError(f"{where} has no files for '{split}'; choose a split it has: {others}")
    return kept


def hold_out(items: list[Item], share: float = 0.1) -> tuple[list[Item], list[Item]]:
    """Set a share aside, always the same -> train, valid. By whole labels (speakers), if there are enough of them, else
    by whole files, else by the sounds in them."""
    ways = [[item.label for item in items], [item.path.name for item in items]]
    ways.append([item.path.name + item.member for item in items])
    names = next((way for way in ways if len(set(way)) >= 1 / share), ways[-1])
    group = dict(zip(items, names))
    order = sorted(set(group.values()), key=lambda name: hashlib.sha256(name.encode()).digest())
    held = set(order[: max(1, round(share * len(order)))])
    train = [item for item in items if group[item] not in held]
    if not train:
        raise DataError("one file cannot be both trained and validated on; add more files")
    return train, [replace(item, split="valid") for item in items if group[item] in held]


def room_responses(items: list[Item], sr: int, seconds: float = 1.0) -> Tensor:
    """Measured room impulse responses for `degrade`: (K, R), first channel, from 5 ms before the direct path on."""
    rooms = []
    for item in items:
        response = files.load(item.path, sr)[0][0]  # (N,)
        begin = max(0, int(response.abs().argmax()) - round(0.005 * sr))
        rooms.append(files.fit(response[begin:], round(seconds * sr)))
    return torch.stack(rooms)


# --- from what a user gives


@dataclass(frozen=True)
class Corpus:
    """What a network is trained and validated on."""

    speech: list[Item]  # recorded pairs if `recorded`
    noise: list[Item] | None
    valid_speech: list[Item]  # held out
    valid_noise: list[Item] | None
    recorded: bool  # the noisy files are recordings, so no noise is added
    rooms: list[Item] = field(default_factory=list)  # measured room impulse responses

    def room_responses(self, sr: int) -> Tensor | None:
        """The measured rooms at a rate (K, R), for `batches`; None if there are none."""
        return room_responses(self.rooms, sr) if self.rooms else None


def gather(
    clean: str | Path | None = None,
    noisy: str | Path | None = None,
    manifest: str | Path | None = None,
    minutes: float = 5.0,
) -> Corpus:
    """Choose the reader for: a folder of clean speech, perhaps with one of its noisy recordings under the same names; a
    manifest; a VoiceBank+DEMAND folder given as `clean`; or nothing, which stands for `minutes` of the embedded corpus.
    """
    if clean and manifest:
        raise DataError("give a folder of clean speech or a manifest, not both")
    if noisy and not clean:
        raise DataError("noisy recordings need the same recordings clean; give --clean_data_path too")
    if clean and (Path(clean) / "clean_trainset_28spk_wav").is_dir():
        return Corpus(voicebank(clean), None, voicebank(clean, "valid"), None, True)
    if clean and noisy:
        train, valid = hold_out(paired(clean, noisy))
        return Corpus(train, None, valid, None, True)
    table = manifest or voices.build_corpus(minutes=minutes)
    if clean:
        train, valid = hold_out(folder(clean))
    else:
        train, valid = _items_of(table, "train", "speech"), _items_of(table, "valid", "speech")
    noise, valid_noise = _items_of(table, "train", "noise"), _items_of(table, "valid", "noise")
    return Corpus(train, noise, valid, valid_noise, False, _items_of(table, "train", "rir"))


def _items_of(table: str | Path, split: str, kind: str) -> list[Item]:
    return read_manifest(table, split, (kind,))[0]
