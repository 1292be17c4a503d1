"""What is done already: one small Parquet file for each batch, written after its outputs; at the end one report.

A run that was killed at any moment finds here what need not be done again.
"""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute
from pyarrow import parquet

from ..errors import WavelldmError
from .places import OWN, Place
from .tasks import DNSMOS, PAIRED

AT_ONCE = 32  # files that are read together
REPORT = "report.parquet"
RUN, DONE, TRYING, SCRATCH = (f"{OWN}/{name}" for name in ("run.json", "done", "trying", "scratch"))
SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # of the source
        ("output", pa.string()),  # in the target
        ("seconds", pa.float64()),
        ("rate", pa.int32()),
        ("channels", pa.int32()),
        ("level", pa.float32()),  # dB of the active speech in the source, of its loudest channel
        ("dnsmos_before", pa.float32()),
        ("dnsmos_after", pa.float32()),
        ("bytes", pa.int64()),  # of the output
        ("error", pa.string()),  # one sentence, if it could not be done
        ("shard", pa.string()),  # the shard it was read from or written to
        ("finished", pa.timestamp("ms", "UTC")),
        *((name, pa.float32()) for name in (*DNSMOS, *PAIRED)),  # of the task evaluate
    ]
)


BASE = ("path", "output", "seconds", "rate", "channels", "level", "bytes", "error", "finished")  # always in the report


def write_rows(place: Place, name: str, rows: list[dict[str, Any]]) -> None:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), sink, compression="zstd")
    place.write(name, sink.getvalue().to_pybytes())


def read_rows(place: Place, name: str) -> pa.Table:
    return parquet.read_table(pa.BufferReader(place.read(name)))


def begin(place: Place, settings: dict[str, Any], force: bool) -> None:
    """Claim a target for a run with these settings; one that holds other things, or another run, is refused."""
    if not force and place.exists(RUN):
        before = json.loads(place.read(RUN))
        changed = [k for k in settings if before.get(k) != settings[k]]
        if changed:
            k = changed[0]
            raise WavelldmError(
                f"{place.address} holds a run with {k} {before.get(k)}, not {settings[k]}; name another folder, or "
                "begin anew with --force"
            )
    elif not force and next(place.listing(), None) is not None:
        raise WavelldmError(f"{place.address} holds other files; name an empty folder, or pass --force")
    if force:
        place.clear(OWN)
        place.remove(REPORT)
    place.write(RUN, json.dumps(settings, indent=1).encode())


def collect(place: Place) -> tuple[pa.Table, list[str]]:
    """All rows so far, each output once, as it came out last; and the names of the files they stand in."""
    parts = [name for name, _ in place.listing(DONE)]
    names = [REPORT] * place.exists(REPORT) + parts
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tables = [SCHEMA.empty_table(), *pool.map(lambda name: read_rows(place, name), names)]
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    table = table.sort_by([("output", "ascending"), ("finished", "descending")])
    outputs = table["output"].to_pylist()
    first = [i for i in range(len(outputs)) if i == 0 or outputs[i] != outputs[i - 1]]
    return table.take(pa.array(first, pa.int64())), parts


def finished(table: pa.Table) -> set[str]:
    """The outputs that are done; a shard with a bad file in it is not."""
    bad = pa.compute.is_valid(table["error"])
    broken = set(table.filter(bad)["shard"].to_pylist())
    good = table.filter(pa.compute.invert(bad))
    return set(good["output"].to_pylist()) | (set(good["shard"].to_pylist()) - broken - {None})


def finish(place: Place) -> pa.Table:
    """Make one report of all rows, without the columns that nothing filled, and take their files away."""
    table, parts = collect(place)
    empty = [name for name in table.column_names if name not in BASE and table[name].null_count == len(table)]
    sink = pa.BufferOutputStream()
    parquet.write_table(table.drop_columns(empty), sink, compression="zstd")
    place.write(REPORT, sink.getvalue().to_pybytes())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(place.remove, parts))
    return table


def totals(table: pa.Table) -> dict[str, Any]:
    seconds = pa.compute.sum(table["seconds"]).as_py() or 0.0
    bad = table.filter(pa.compute.is_valid(table["error"]))
    return {
        "files": len(table),
        "failed": len(bad),
        "hours": round(seconds / 3600, 4) if math.isfinite(seconds) else None,
        "errors": [{"input": r["path"], "error": r["error"]} for r in bad.slice(0, 100).to_pylist()],
    }
