"""Parquet tables with a sound in each row: a column of the bytes of sound files, or, as Hugging Face's `datasets` write
it, of {bytes, path}. Read page by page in constant memory, however large the row groups are."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from ..errors import DataError
from .files import SUFFIXES
from .shards import MOST, Sample

if TYPE_CHECKING:
    import pyarrow

SOUND = ("audio", "sound", "wav", "flac", "mp3", "bytes")  # what a column of sounds is called
NAMED = ("path", "audio_filepath", "file", "file_name", "key", "__key__", "id")  # and one that names them
SPEAKER = ("speaker_id", "speaker", "client_id")
BUFFER = 1 << 20  # bytes that are read at once
FORMATS = {b"RIFF": ".wav", b"RF64": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b".snd": ".au"}
FORMATS |= {b"riff": ".w64", b"ID3": ".mp3", b"\xff\xfb": ".mp3", b"\xff\xf3": ".mp3", b"\xff\xf2": ".mp3"}


def sound_column(schema: "pyarrow.Schema") -> str | None:
    """The column that holds sounds; None if the table only names files, or holds none."""
    held = [field.name for field in schema if _is_bytes(field.type) or _has_bytes(field.type)]
    found = [name for name in SOUND if name in held]
    if found or any(name in schema.names for name in ("path", "audio_filepath")):
        return found[0] if found else None
    return held[0] if held else None


def split_name(name: str) -> tuple[str, str]:
    """talks/a.wav -> talks/a, wav; no suffix if it is not one of sounds."""
    path = PurePosixPath(name.lstrip("/"))
    known = path.suffix.lower() in SUFFIXES
    return (str(path.with_suffix("")), path.suffix[1:]) if known else (str(path), "")


def suffix_of(data: bytes) -> str:
    """What kind of sound file begins so; wav if it is none that we know."""
    return next((suffix[1:] for mark, suffix in FORMATS.items() if data.startswith(mark)), "wav")


def _is_bytes(kind: "pyarrow.DataType") -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _has_bytes(kind: "pyarrow.DataType") -> bool:
    return str(kind).startswith("struct<") and kind.get_field_index("bytes") >= 0


def schema(path: str | Path) -> "pyarrow.Schema":
    """The columns of a table."""
    return whole(lambda parquet: parquet.read_schema(path), str(path))


def whole(read: Callable[[Any], Any], what: str) -> Any:
    """read(pyarrow.parquet), with one sentence for what goes wrong in it."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError("Parquet files need the package 'pyarrow'; install it with: pip install pyarrow") from None
    try:
        return read(parquet)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{what} is no whole Parquet file ({reason}); copy it again") from None


class Table:
    """A table that is read in groups of rows, each a sample with one part; and written again, with other sounds."""

    def __init__(self, source: IO[bytes] | Path, what: str, target: Path | None = None, plain: bool = False):
        """`what`: its name, for messages. `plain`: what is written are no sounds, whatever the table says of itself."""
        self.what, self.target, self.writer, self.seen = what, target, None, set()
        self.file = whole(lambda parquet: parquet.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False), what)
        self.schema = self.file.schema_arrow
        self.column = sound_column(self.schema)
        if self.column is None:
            raise DataError(f"{what} has no column of sounds; call one 'audio', with the bytes of sound files in it")
        kind = self.schema.field(self.column).type
        self.nested = not _is_bytes(kind)
        self.leaf = f"{self.column}.bytes" if self.nested else self.column
        self.named = self.nested and kind.get_field_index("path") >= 0
        if plain:
            self.schema = self.schema.remove_metadata()

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.writer is not None:
            self.writer.close()

    def _batches(self, size: int, columns: list[str] | None = None) -> Iterator[tuple[int, "pyarrow.RecordBatch"]]:
        """(number of its first row, batch)"""
        found, first = self.file.iter_batches(size, columns=columns, use_threads=False), 0
        while (batch := whole(lambda _: next(found, None), self.what)) is not None:
            yield first, batch
            first += batch.num_rows

    def _sounds(self, batch: "pyarrow.RecordBatch") -> list[bytes | None]:
        column = batch.column(self.column)
        return (column.field("bytes") if self.nested else column).to_pylist()

    def _names(self, batch: "pyarrow.RecordBatch", first: int) -> list[tuple[str, str]]:
        """(name, suffix if it is told) of each row: its path, what else names it, or its number."""
        told = next((batch.column(name) for name in NAMED if name in batch.schema.names), None)
        if self.named:
            told = batch.column(self.column).field("path")
        names = [None] * batch.num_rows if told is None else told.to_pylist()
        found = []
        for row, name in enumerate(names, first):
            name, suffix = split_name(str(name)) if name else (f"{row:08d}", "")
            if name in self.seen:
                name = f"{name}-{row:08d}"
            self.seen.add(name)
            found.append((name, suffix))
        return found

    def groups(self, size: int) -> Iterator[list[Sample]]:
        """Samples (name, {suffix: bytes}), `size` at a time or fewer large ones; a row without a sound has no part."""
        self.rows, group, held = [], [], 0  # of the group: all but the bytes
        for first, row in self._batches(1):
            ((name, suffix),), (data,), (cell,) = self._names(row, first), self._sounds(row), self._cells(row)
            self.rows.append((row.drop_columns([self.column]), cell))
            group.append((name, {} if data is None else {suffix or suffix_of(data): data}))
            held += len(data or b"")
            if len(group) == size or held > MOST:
                yield group
                self.rows, group, held = [], [], 0
        if group:
            yield group

    def _cells(self, batch: "pyarrow.RecordBatch") -> list[dict[str, Any] | None]:
        """What a cell of {bytes, path} holds beside the bytes."""
        column = batch.column(self.column)
        if not self.nested:
            return [None] * len(column)
        names = [field.name for field in column.type if field.name != "bytes"]
        parts = zip(column.is_valid().to_pylist(), *(column.field(name).to_pylist() for name in names))
        return [dict(zip(names, values)) if there else None for there, *values in parts]

    def add(self, ready: dict[int, Sample]) -> None:
        """Write rows of the group that was read last: those whose number is in `ready`, with these sounds."""
        import pyarrow
        from pyarrow import parquet

        kept = sorted(ready)
        if not kept:
            return
        rows = pyarrow.Table.from_batches([self.rows[i][0] for i in kept])
        cells = [self._cell(self.rows[i][1], ready[i][1]) for i in kept]
        sounds = pyarrow.array(cells, self.schema.field(self.column).type)
        columns = [sounds if name == self.column else rows.column(name) for name in self.schema.names]
        if self.writer is None:
            small = {"use_dictionary": False, "write_batch_size": 1}  # pages of one sound, so that reading is flat too
            self.writer = parquet.ParquetWriter(self.target, self.schema, compression="zstd", **small)
        self.writer.write_table(pyarrow.Table.from_arrays(columns, schema=self.schema))

    def _cell(self, cell: dict[str, Any] | None, part: dict[str, bytes]) -> dict[str, Any] | bytes | None:
        suffix, data = next(iter(part.items()), ("", None))
        if not self.nested:
            return data
        if cell is not None and cell.get("path") and data is not None:
            cell = cell | {"path": str(PurePosixPath(cell["path"]).with_suffix(f".{suffix}"))}
        return None if cell is None else cell | {"bytes": data}

    def listing(self) -> Iterator[tuple[int, str, str]]:
        """(row, name, speaker) of every row with a sound, without reading the sounds."""
        who = next((name for name in SPEAKER if name in self.schema.names), None)
        about = [name for name in (*NAMED, who) if name in self.schema.names]
        there = self._there()
        for first, batch in self._batches(1024, [*about, f"{self.column}.path"] if self.named else about):
            speakers = batch.column(who).to_pylist() if who else [None] * batch.num_rows
            for row, (name, suffix), speaker in zip(count(first), self._names(batch, first), speakers):
                if there is None or there[row]:
                    yield row, f"{name}.{suffix or 'wav'}", str(speaker or "")

    def _there(self) -> list[bool] | None:
        """Whether each row has a sound; None if all have one, as the table's statistics may tell."""
        facts = self.file.metadata
        for group in map(facts.row_group, range(facts.num_row_groups)):
            column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == self.leaf)
            if column.statistics is None or column.statistics.null_count != 0:
                batches = self._batches(16, [self.leaf])
                return [data is not None for _, batch in batches for data in self._sounds(batch)]
        return None

    def sounds(self, rows: Sequence[int]) -> Iterator[bytes]:
        """The sounds in these rows, which are in order."""
        wanted = iter(rows)
        row = next(wanted, None)
        for first, batch in self._batches(16, [self.leaf]):
            found = None
            while row is not None and row < first + batch.num_rows:
                found = self._sounds(batch) if found is None else found
                yield found[row - first]
                row = next(wanted, None)
            if row is None:
                return
