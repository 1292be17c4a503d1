"""From folders of sound to batches of (noisy, clean): readers of corpora, and a loader that can be resumed at any step.

A reader lists items without decoding anything; `batches` decodes them once (see `clips`) and draws from them for
ever. What step k yields depends on (seed, k) alone: not on the number of workers, nor on where the run was started.
"""

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..audio import files
from ..audio.files import sound_files
from ..errors import DataError
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
    text: str = ""


# readers --------------------------------------------------------------------------------------------------------------


def folder(path) -> list[Item]:
    """Every sound file in a folder and below; the label is the sub-folder it lies in."""
    return [Item(file, label=str(Path(stem).parent)) for stem, file in sound_files(path).items()]


def paired(clean, noisy) -> list[Item]:
    """Two folders with the same names in them: paired by name, never by position."""
    first, second = sound_files(clean), sound_files(noisy)
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
        raise DataError(f"{leaked} is of a test speaker ({', '.join(TEST_SPEAKERS)}); remove it from training")
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


def folders(speech, noise) -> tuple[list[Item], list[Item]]:
    """Any folder of speech and any folder of noise -> speech, noise."""
    return folder(speech), folder(noise)


def read_manifest(path, split: str = "train", kinds: tuple = ("speech", "noise")) -> tuple[list[Item], ...]:
    """A tab-separated table with the columns path (relative to it), kind, label and split -> one list per kind."""
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
        lists.append(_of_split(items, split, f"{path} ({kind})"))
    missing = [item.path for items in lists for item in items if not item.path.exists()]
    if missing:
        raise DataError(f"{missing[0]} is named in {path} but missing ({len(missing)} in all); restore the files")
    return tuple(lists)


def _of_split(items, split, where) -> list[Item]:
    kept = [item for item in items if item.split == split]
    if not kept:
        others = ", ".join(sorted({item.split for item in items})) or "none"
        raise DataError(f"{where} has no files for '{split}'; choose a split it has: {others}")
    return kept


def hold_out(items, share: float = 0.1) -> tuple[list[Item], list[Item]]:
    """Set a share aside, always the same -> train, valid. Whole labels (speakers) go, if there are enough of them."""
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
        response = files.load(item.path, sr)[0][0]  # (N,)
        begin = max(0, int(response.abs().argmax()) - round(0.005 * sr))
        rooms.append(files.fit(response[begin:], round(seconds * sr)))
    return torch.stack(rooms)


@dataclass(frozen=True)
class Material:
    speech: list  # items to train on; recorded pairs if `recorded`
    noise: list | None
    valid_speech: list  # items held out
    valid_noise: list | None
    recorded: bool  # the noisy twins are recordings, so no noise is to be added


def gather(clean=None, noisy=None, manifest=None, minutes: float = 5.0) -> Material:
    """Folders of clean speech (and of its noisy recordings, under the same names), a manifest, a VoiceBank+DEMAND folder
    given as `clean`, or nothing: the embedded corpus."""
    if clean and manifest:
        raise DataError("give a folder of clean speech or a manifest, not both")
    if noisy and not clean:
        raise DataError("noisy recordings need their clean twins; give --clean_data_path too")
    if clean and (Path(clean) / "clean_trainset_28spk_wav").is_dir():
        return Material(voicebank(clean), None, voicebank(clean, "valid"), None, True)
    if clean and noisy:
        train, valid = hold_out(paired(clean, noisy))
        return Material(train, None, valid, None, True)
    table = manifest or voices.build_corpus(minutes=minutes)
    noises = [read_manifest(table, split, ("noise",))[0] for split in ("train", "valid")]
    if clean:
        train, valid = hold_out(folder(clean))
    else:
        train, valid = (read_manifest(table, split, ("speech",))[0] for split in ("train", "valid"))
    return Material(train, noises[0], valid, noises[1], False)
