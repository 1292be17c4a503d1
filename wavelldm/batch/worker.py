"""One worker: a process with one model. It takes batches of items, and leaves their outputs, then one file of the
ledger for the batch, in this order.

A batch that comes a second time, because the process that had it died, is worked on file by file, with a note of which
file it is: if the process dies on the same file again, that file is named in the report, and the others are done.
"""

import errno
import hashlib
import json
import os
import resource
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import AudioError, DataError, WavelldmError
from ..light import files, shards, tables
from . import ledger, tasks
from .places import Place
from .sources import Item
from .tasks import SUFFIX, Answer, Job, Settings

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LITTLE = 1 << 16  # bytes: a disk with less is full
TOGETHER = 64  # clips of a shard that are worked on at a time, at most


class DiskFull(WavelldmError):
    """There is no room for outputs: the run stops, as the next file would not fit either."""


@dataclass(frozen=True)
class Batch:
    """Items that one worker does at a time; a shard is a batch of its own."""

    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """Depends on what is in it alone."""
        keys = [[i.name, i.path, i.start, i.length] for i in self.items]
        return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:20]

    def to_json(self) -> str:
        return json.dumps([asdict(item) for item in self.items])

    @classmethod
    def from_json(cls, text: str) -> "Batch":
        return cls(tuple(Item(**item) for item in json.loads(text)))


def out_name(item: Item, settings: Settings) -> str:
    """The name of what an item becomes."""
    suffix = SUFFIX[settings.task]
    return str(PurePosixPath(item.name).with_suffix(suffix)) if suffix and not item.shard else item.name


class Worker:
    """`worker(batch)` does a batch and gives one row about it."""

    def __init__(self, target: str, settings: Settings):
        self.target, self.settings, self.problem = Place(target), settings, None
        try:
            self.task = tasks.make(settings)
        except Exception as error:  # it would be the same in every worker, again and again
            self.problem = sentence(error)

    def __call__(self, batch: Batch) -> dict[str, Any]:
        row = {
            "batch": batch.name,
            "files": 0,
            "failed": 0,
            "seconds": 0.0,
            "busy": 0.0,
            "cpu": 0.0,
            "stop": self.problem,
        }
        row |= {"pid": os.getpid(), "megabytes": 0.0}
        if self.problem is not None:
            return row
        began, used = time.perf_counter(), time.process_time()
        try:
            rows = self.do(batch)
        except DiskFull as error:
            return row | {"stop": str(error)}
        row["files"], row["failed"] = len(rows), sum(r["error"] is not None for r in rows)
        row["seconds"] = sum(r.get("seconds") or 0.0 for r in rows)
        row["busy"], row["cpu"] = time.perf_counter() - began, time.process_time() - used
        row["megabytes"] = peak_megabytes()
        return row

    def do(self, batch: Batch) -> list[dict[str, Any]]:
        """The rows of a batch: of all that is in it, done or not."""
        done, note = f"{ledger.DONE}/{batch.name}.parquet", f"{ledger.TRYING}/{batch.name}.json"
        try:
            if self.target.exists(done):  # the process died after all was done
                return ledger.read_rows(self.target, done).to_pylist()
            tried = json.loads(self.target.read(note)) if self.target.exists(note) else None
            rows = list(self.attempt(batch, note, tried))
            now = datetime.now(timezone.utc)
            ledger.write_rows(self.target, done, [{**row, "finished": now} for row in rows])
            self.target.remove(note)
            return rows
        except OSError as error:
            if full(error, self.target):
                raise DiskFull(no_room(self.target)) from None
            raise

    def attempt(self, batch: Batch, note: str, tried: dict | None) -> Iterator[dict[str, Any]]:
        state = {"pid": os.getpid(), "at": None, "deaths": {}}
        if tried is not None:
            state["deaths"] = tried["deaths"]
            if tried["at"] is not None:
                state["deaths"][tried["at"]] = state["deaths"].get(tried["at"], 0) + 1
        self.target.write(note, json.dumps(state).encode())

        def begins(name: str) -> bool:
            """Note the file that comes next; False if processes died of it already."""
            if tried is None:
                return True
            state["at"] = name
            self.target.write(note, json.dumps(state).encode())
            return not state["deaths"].get(name)

        with self.target.scratch() as scratch:
            if batch.items[0].shard:
                yield from self.shard(batch.items[0], scratch, begins, careful=tried is not None)
            else:
                yield from self.files(batch, scratch, begins, careful=tried is not None)

    # --- files

    def files(self, batch: Batch, scratch: Path, begins: Any, careful: bool) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            tar, shard = None, None
            if self.settings.shards:
                shard = f"shards/{batch.name}.tar"
                tar = stack.enter_context(tarfile.open(scratch / "shard.tar", "w"))
            rows = []
            for group in [[item] for item in batch.items] if careful else [list(batch.items)]:
                if careful and not begins(group[0].name):
                    rows.append(self.row(group[0], died(), None))
                    continue
                for item, answer, made in self.made(group, scratch):
                    row = self.row(item, answer, made)
                    if made is not None and row["error"] is None and tar is not None:
                        key, suffix = shards.key_and_suffix(row["output"])
                        shards.add(tar, (key, {suffix: made.read_bytes()}))
                        row["shard"] = shard
                        made.unlink()
                    elif made is not None and row["error"] is None:
                        self.target.put(made, row["output"])
                    rows.append(row)
            if tar is not None:
                tar.close()
                if any(row["error"] is None for row in rows):
                    sync(scratch / "shard.tar")
                    self.target.put(scratch / "shard.tar", shard)
            yield from rows

    def made(self, items: Sequence[Item], scratch: Path) -> Iterator[tuple[Item, Answer, Path | None]]:
        """Each item with the answer of the task, and the finished file, if the task makes one."""
        jobs: list[Job] = []
        problems: dict[int, Exception] = {}
        for i, item in enumerate(items):
            folder = scratch / str(i)
            folder.mkdir(parents=True, exist_ok=True)
            name = PurePosixPath(out_name(item, self.settings)).name
            try:
                source = self.fetched(item, folder)
            except Exception as error:
                problems[i], source = error, folder / "missing"
            jobs.append((source, folder / f"out-{name}"[-200:], item.name))
        answers = self.task([job for i, job in enumerate(jobs) if i not in problems])
        for i, (item, (_, made, _)) in enumerate(zip(items, jobs)):
            answer = problems[i] if i in problems else next(answers)
            self.check(answer)
            yield item, answer, made if SUFFIX[self.settings.task] != "" else None
            shutil.rmtree(scratch / str(i), ignore_errors=True)

    def fetched(self, item: Item, folder: Path) -> Path:
        """The file of an item on this machine: where it is, or a copy; of a part of a file its own samples."""
        place = Place(item.root)
        path = Path(place.path(item.path)) if place.local else folder / f"in{PurePosixPath(item.path).suffix}"
        if not place.local:
            with place.reading(item.path) as stream, open(path, "wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
        if item.length is None and item.start == 0:
            return path
        info = files.info(path)
        wav, sr = files.load(path, item.start, item.length)
        part = folder / f"part{path.suffix}"
        files.save_blocks(part, [wav], sr, like=info)
        return part

    def check(self, answer: Answer) -> None:
        """Stop where the next file would fare no better."""
        if isinstance(answer, Exception) and full(answer, self.target):
            raise DiskFull(no_room(self.target))

    def row(self, item: Item, answer: Answer, made: Path | None) -> dict[str, Any]:
        """What the report says of an item."""
        place = Place(item.root)
        row = {"path": place.path(item.path), "output": out_name(item, self.settings), "shard": None, "error": None}
        if isinstance(answer, Exception):
            return row | {"error": sentence(answer)}
        return row | answer | {"bytes": tasks.bytes_of([made] if made else [])}

    # --- shards

    def shard(self, item: Item, scratch: Path, begins: Any, careful: bool) -> Iterator[dict[str, Any]]:
        """A shard with its sounds worked on; all else stays as it is. Bad samples are left out of it."""
        place, rows = Place(item.root), []
        made, what, suffix = scratch / "shard", place.path(item.path), SUFFIX[self.settings.task]
        table = PurePosixPath(item.path).suffix.lower() == ".parquet"
        kind = partial(tables.Table, plain=suffix is not None) if table else shards.Tar
        try:
            with place.reading(item.path, anywhere=table) as stream, kind(stream, what, made) as shard:
                for group in shard.groups(1 if careful else TOGETHER):
                    rows += self.samples(item, group, scratch, shard, begins, careful)
        except (DataError, OSError) as error:
            if full(error, self.target):
                raise DiskFull(no_room(self.target)) from None
            rows.append(self.row(item, error, None) | {"shard": item.name})
        if not rows:
            rows.append(self.row(item, AudioError(f"{item.path} holds no sound files"), None) | {"shard": item.name})
        if suffix != "" and any(row["error"] is None for row in rows):
            sync(made)
            self.target.put(made, item.name)
        yield from rows

    def samples(
        self, item: Item, group: list[shards.Sample], scratch: Path, shard: Any, begins: Any, careful: bool
    ) -> list[dict[str, Any]]:
        inside = scratch / "samples"
        inside.mkdir(exist_ok=True)
        its, rows, kept, ready = [], [], {}, {}
        for i, (key, parts) in enumerate(group):
            sound = next((s for s in parts if "." + s.lower() in files.SUFFIXES), None)
            if sound is None:
                ready[i] = key, parts
                continue
            name = f"{i}.{sound}"
            (inside / name).write_bytes(parts[sound])
            one = Item(f"{key}.{sound}", str(inside), name, item.seconds)
            its.append(one)
            kept[one.name] = i, key, {s: d for s, d in parts.items() if s != sound}
        if careful and its and not begins(its[0].name):
            rows += [self.of_shard(item, one, died(), None) for one in its]
            its = []
        for one, answer, made in self.made(its, scratch / "work"):
            row = self.of_shard(item, one, answer, made)
            rows.append(row)
            if row["error"] is None and made is not None:
                i, key, parts = kept[one.name]
                suffix = PurePosixPath(out_name(one, self.settings)).suffix[1:]
                ready[i] = key, {suffix: made.read_bytes(), **parts}
        if SUFFIX[self.settings.task] != "":
            shard.add(ready)
        shutil.rmtree(inside, ignore_errors=True)
        return rows

    def of_shard(self, item: Item, one: Item, answer: Answer, made: Path | None) -> dict[str, Any]:
        path, output = f"{Place(item.root).path(item.path)}/{one.name}", f"{item.name}/{out_name(one, self.settings)}"
        row = self.row(one, answer, made) | {"path": path, "output": output, "shard": item.name}
        if row["error"] is not None:  # the name of a temporary file says nothing to anybody
            row["error"] = row["error"].replace(str(Path(one.root) / one.path), path)
        return row


def sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def died() -> WavelldmError:
    return AudioError("the worker's process died twice while it worked on this file; look at it by itself")


def sentence(error: Exception) -> str:
    if isinstance(error, WavelldmError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"this needs the package '{error.name}'; install it on every machine"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def full(error: BaseException | None, target: Place) -> bool:
    """Whether an error comes from a full disk; libsndfile only says that something went wrong."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if isinstance(error, AudioError) and "could not be written" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return target.local and shutil.disk_usage(target.root).free < LITTLE


def no_room(target: Place) -> str:
    return f"the disk of {target.address} is full; make room, and the same command goes on"


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)
