"""What is to be done: the sound files of a folder, the rows of a manifest, or shards, on this machine or elsewhere."""

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import DataError
from ..light import tables
from ..light.files import SUFFIXES
from .places import OWN, Place, opened

BYTES_A_SECOND = {".wav": 32_000, ".aiff": 32_000, ".aif": 32_000, ".w64": 32_000, ".au": 32_000, ".flac": 16_000}
OTHERWISE = 8_000  # bytes a second of the other formats; a guess, for the order and the size of batches alone
MANIFESTS = (".tsv", ".jsonl", ".json", ".parquet")
AT_ONCE = 32  # tables whose columns are looked at together


@dataclass(frozen=True)
class Item:
    """One file to work on, or a part of one, or a shard with many."""

    name: str  # of what is written, in the target
    root: str  # the address of the place it lies in
    path: str  # its name there
    seconds: float  # if a manifest tells, else guessed from its size
    start: float = 0.0  # seconds into the file
    length: float | None = None  # seconds, for a part of a file
    shard: bool = False


def items_of(source: str, target: Place) -> list[Item]:
    """Everything in a source, in order of names; no two would be written to the same file."""
    source, mark, query = source.partition("?") if "://" in source else (source, "", "")
    address, _, wanted = source.rpartition("/") if "*" in source else (source, "", "*")
    if "*" in address:
        raise DataError(f"'{source}' has a * in the name of a folder; use it in the last part alone")
    place = Place((address or ".") + mark + query)
    suffix = PurePosixPath(source).suffix.lower()
    if suffix in (*MANIFESTS, ".tar") and "*" not in source:
        folder, _, name = source.rpartition("/")
        place = Place((folder or ".") + mark + query)
        if not place.exists(name):
            raise DataError(f"{source} does not exist; check the path")
        shard = suffix == ".tar" or (suffix == ".parquet" and holds_sounds(place, name))
        found = [shard_of(place, name, 0)] if shard else list(of_manifest(place, name))
    else:
        found = list(of_folder(place, wanted, target))
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{source} holds no sound files ({kinds}) and no .tar or .parquet shards; check the path")
    seen: dict[str, str] = {}
    for item in found:
        if seen.setdefault(item.name, item.path) != item.path:
            raise DataError(f"{seen[item.name]} and {item.path} would both become {item.name}; rename one of them")
    return list({item.name: item for item in found}.values())


def of_folder(place: Place, wanted: str, target: Place) -> Iterator[Item]:
    """Sound files and shards in a folder and below; what a run wrote itself is not among them."""
    inside = target.root + "/" if target.files.equals(place.files) else None
    found = []
    for name, size in place.listing():
        path, suffix = PurePosixPath(name), PurePosixPath(name).suffix.lower()
        if not path.match(wanted) or OWN in path.parts or (inside and place.path(name).startswith(inside)):
            continue
        if suffix in (*SUFFIXES, ".tar", ".parquet"):
            found.append((name, suffix, size))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        look = [name for name, suffix, _ in found if suffix == ".parquet"]
        held = dict(zip(look, pool.map(lambda name: holds_sounds(place, name), look)))
    for name, suffix, size in found:
        if suffix in SUFFIXES:
            yield Item(name, place.address, name, size / BYTES_A_SECOND.get(suffix, OTHERWISE))
        elif suffix == ".tar" or held[name] is not False:  # the report names one that is broken
            yield shard_of(place, name, size)


def holds_sounds(place: Place, name: str) -> bool | None:
    """Whether a Parquet file is a shard of sounds; None if it cannot be read."""
    from pyarrow import ArrowException, parquet

    try:
        with place.reading(name, anywhere=True) as stream:
            return tables.sound_column(parquet.read_schema(stream)) is not None
    except (ArrowException, OSError):
        return None


def shard_of(place: Place, name: str, size: int) -> Item:
    return Item(name, place.address, name, size / BYTES_A_SECOND[".wav"], shard=True)


# --- manifests


def of_manifest(place: Place, name: str) -> Iterator[Item]:
    """TSV with a column `path`; JSONL as NeMo (`audio_filepath`) or Lhotse (recordings, cuts) write it; Parquet with
    `path` or `audio_filepath`. A row may say `offset` and `duration` in seconds: then that part alone is meant."""
    rows, address = list(rows_of(place, name)), f"{place.address}/{name}"
    entries = [entry(row, f"{address}, row {i + 1}") for i, row in enumerate(rows)]
    places = [split_address(path, place) for path, *_ in entries]
    shared = common_folder([full for *_, full in places])
    for (_, start, seconds, part, label), (root, path, full) in zip(entries, places):
        out = PurePosixPath(full[len(shared) :])
        if part:
            mark = label or f"{out.stem}-{round(1000 * start):09d}"
            out = out.with_name(mark.replace("/", "_") + out.suffix)
        yield Item(str(out), root, path, seconds or 10.0, start, seconds if part else None)


def rows_of(place: Place, name: str) -> Iterator[dict[str, Any]]:
    data, suffix = place.read(name), PurePosixPath(name).suffix.lower()
    where = f"{place.address}/{name}"
    if suffix == ".parquet":
        from pyarrow import ArrowException, parquet

        try:
            yield from parquet.read_table(io.BytesIO(data)).to_pylist()
        except ArrowException as error:
            raise DataError(f"{where} is no Parquet file ({str(error).splitlines()[0]}); write it again") from None
    elif suffix == ".tsv":
        yield from csv.DictReader(io.StringIO(data.decode()), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        for number, line in enumerate(data.decode().splitlines(), 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    raise DataError(f"{where} has no JSON object on line {number}; write one on each line") from None


def entry(row: dict[str, Any], where: str) -> tuple[str, float, float, bool, str]:
    """(path, start, seconds, whether it is a part, its own name) of a row."""
    recording = row.get("recording", row)
    sources = recording.get("sources") if isinstance(recording, dict) else None
    path = sources[0].get("source") if sources else row.get("path") or row.get("audio_filepath")
    if not path:
        raise DataError(f"{where} names no file; give it a column path, or audio_filepath, or sources as Lhotse does")
    try:
        start = float(row.get("offset") or row.get("start") or 0)
        seconds = float(row.get("duration") or row.get("seconds") or 0)
    except (TypeError, ValueError):
        raise DataError(f"{where} has an offset or duration that is no number; correct it") from None
    part = "offset" in row or "start" in row
    return (
        str(path),
        start,
        seconds,
        part and bool(row.get("offset") or row.get("start") or "recording" in row),
        (str(row.get("id") or "") if part else ""),
    )


def split_address(path: str, beside: Place) -> tuple[str, str, str]:
    """What a manifest calls a file -> (address of its place, its name there, where it lies as a whole)."""
    if "://" not in path:
        if path.startswith("/"):
            return "/", path[1:], path
        return beside.address, path, beside.path(path)
    parts = urlsplit(path)
    query = f"?{parts.query}" if parts.query else ""
    if parts.scheme == "file":
        return "/", unquote(parts.path)[1:], parts.path
    root, name = f"{parts.scheme}://{parts.netloc}{query}", unquote(parts.path).lstrip("/")
    return root, name, f"{opened(root)[1]}/{name}"


def common_folder(paths: list[str]) -> str:
    """The longest folder, with its /, that all paths begin with."""
    if not paths:
        return ""
    low, high = min(paths), max(paths)
    same = next((i for i, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))
    return low[: low.rfind("/", 0, same) + 1]
