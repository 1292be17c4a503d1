"""A list of files decoded once into one memory-mapped int16 file, from which crops are cut at no cost."""

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import files
from ..errors import AudioError, DataError
from ..light import tables
from ..paths import data_home
from ..progress import progress_bar
from .corpora import Item

SILENT = 1e-8  # mean square (-80 dB): files below are never drawn


def _decode(item: Item, sr: int, data: bytes | None = None) -> np.ndarray:
    """int16 (C, N): one row, or clean and noisy. If a peak exceeds full scale, all rows are scaled down alike. `data`:
    the file, of a sound in a shard."""
    if data is not None:
        with tempfile.NamedTemporaryFile(suffix=Path(item.member).suffix) as file:
            file.write(data)
            file.flush()
            try:
                return _whole([files.load(file.name, sr, mono=True)[0]])
            except AudioError as error:
                raise AudioError(str(error).replace(file.name, f"{item.path}/{item.member}")) from None
    rows = [files.load(path, sr, mono=True)[0] for path in (item.path, item.noisy) if path is not None]
    if abs(rows[0].shape[-1] - rows[-1].shape[-1]) > 0.01 * sr:
        raise DataError(f"{item.path} and {item.noisy} differ in length by over 10 ms; they are not the same utterance")
    return _whole(rows)


def _read(items: list[Item]) -> Iterator[bytes | None]:
    """The bytes of each item that lies in a shard; None of one that is a file."""
    for path, group in groupby(items, lambda item: item.path):
        group = list(group)
        if not group[0].member:
            yield from (None for _ in group)
        elif path.suffix.lower() == ".parquet":
            with tables.Table(path, str(path)) as table:
                yield from table.sounds([item.span[0] for item in group])
        else:
            with open(path, "rb") as shard:
                for item in group:
                    shard.seek(item.span[0])
                    yield shard.read(item.span[1])


def _decoded(items: list[Item], sr: int) -> Iterator[np.ndarray]:
    """All items decoded, in order, by some threads; few are read ahead."""
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future] = deque()
        for item, data in zip(items, _read(items)):
            ahead.append(pool.submit(_decode, item, sr, data))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _whole(rows: list[Tensor]) -> np.ndarray:
    wav = torch.cat([files.fit(row, rows[0].shape[-1]) for row in rows])  # (C, N)
    wav = wav / wav.abs().max().clamp(min=1.0)
    return (wav * 32768).round().clamp(max=32767).to(torch.int16).numpy()


class Clips:
    """Items (each with a `path`, and a `noisy` path or None), decoded once, at one rate.

    The decoded file is kept in `cache` (a folder; by default one in the data folder) under a name made from the rate
    and the paths, sizes and dates of the sources: if one of them changes it is built again. It can be deleted at any
    time.
    """

    def __init__(self, items: Iterable[Item], sr: int, cache: str | Path | None = None):
        self.items, self.sr = list(items), sr
        if not self.items:
            raise DataError("there are no files to read; name a folder or manifest that holds some")
        if len({item.noisy is None for item in self.items}) > 1:
            raise DataError("recorded pairs and single files do not mix in one list; load them one after the other")
        self.channels = 1 if self.items[0].noisy is None else 2
        sources = [(p, item.member) for item in self.items for p in (item.path, item.noisy) if p is not None]
        try:
            facts = {p: (str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p, _ in sources}
            marks = [(*facts[p], member) if member else facts[p] for p, member in sources]
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
        if not len(self.audible):
            raise DataError(f"all {len(self)} files from {self.items[0].path} on are silent; check the recordings")
        self._samples = None
        self.draw_from(self.power > SILENT)

    def draw_from(self, chosen: np.ndarray, even: bool = False) -> None:
        """Let crops come from these items alone, a truth value for each. Every second is equally likely, but no
        recording counts for more than a minute. `even`: a voice (label) with four times the speech is drawn only twice
        as often.
        """
        odds = np.where(chosen & (self.power > SILENT), np.minimum(self.lengths, 60 * self.sr), 0)
        if even:
            _, voice = np.unique([item.label for item in self.items], return_inverse=True)
            whole = np.bincount(voice, odds)[voice]  # of the voice of each item
            odds = (1000 * odds / np.sqrt(whole.clip(min=1))).astype(np.int64)
        self._odds = np.cumsum(odds)
        if self._odds[-1] == 0:
            raise DataError("no recording is left to draw from; choose more of them")

    def floors(self) -> np.ndarray:
        """How far the pauses of each item lie under its speech, in dB (items,): the quietest tenth of all frames of
        32 ms against the loudest half. Digital silence does not count; without a pause the number is small."""
        size, found = round(0.032 * self.sr), np.zeros(len(self))
        for i in range(len(self)):
            row = self.rows(i)[0]
            frames = row[: len(row) // size * size].reshape(-1, size).astype(np.float32) / 32768
            power = np.sort(np.square(frames).mean(1))
            power = power[power > SILENT / 100]
            if len(power) >= 10:
                found[i] = 10 * np.log10(power[len(power) // 2 :].mean() / power[: len(power) // 10].mean())
        return found

    def _build(self, index: Path) -> None:
        lengths, power = [], []
        with files.writing(self.path, force=True) as part, open(part, "wb") as file:
            decoded = _decoded(self.items, self.sr)
            for rows in progress_bar(decoded, desc="decoding", total=len(self), unit="file"):
                file.write(rows.tobytes())
                lengths.append(rows.shape[1])
                power.append(float(np.mean((rows[0] / 32768.0) ** 2)))
        with files.writing(index, force=True) as part:
            part.write_text(json.dumps({"lengths": lengths, "power": power}))

    def __len__(self) -> int:
        return len(self.items)

    def __getstate__(self) -> dict:  # a worker process maps the file itself
        return {**self.__dict__, "_samples": None}

    @property
    def seconds(self) -> float:
        """Total length of all items."""
        return float(self.lengths.sum()) / self.sr

    @property
    def audible(self) -> np.ndarray:
        """Indices of the items that are not silent throughout."""
        return np.flatnonzero(self.power > SILENT)

    def rows(self, i: int) -> np.ndarray:
        """All of item i: int16 (C, N)."""
        if self._samples is None:
            self._samples = np.memmap(self.path, np.int16, "r")
        return self._samples[self.starts[i] : self.starts[i + 1]].reshape(self.channels, -1)

    def draw(self, rng: np.random.Generator) -> int:
        """A random item, weighted by its length."""
        return int(np.searchsorted(self._odds, rng.integers(self._odds[-1]), side="right"))

    def _piece(self, i: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """At most n samples of item i, not from a pause: the first of eight random places that is loud enough, else
        the loudest.
        """
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
        """n samples, float32 (C, n). A short item is followed by another one (loop: by itself), with fades of 5 ms."""
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
