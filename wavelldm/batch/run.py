"""A whole run: what is left to do, in batches of about one length, longest first; Ray Data hands them to workers.

Sound never passes through Ray: a worker reads, works and writes by itself, and Ray carries one short row for each batch
there and back. So memory does not grow with the source, and the engine costs the same for a minute as for an hour.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import WavelldmError
from ..progress import progress_bar
from . import ledger
from .places import OWN, Place
from .sources import Item, items_of
from .tasks import Settings
from .worker import Batch, Worker, out_name

SHARE = 8  # batches for each worker at least, if there are so many files, so that all end at about the same time
A_FILE = 0.5  # seconds of sound that opening and closing a file is worth
MOST_BLOCKS = 4096  # Ray keeps a note of each block; more batches share one
STORE = 100_000_000  # bytes of Ray's shared memory on one machine: only short rows pass through it
TRIES = 3  # to start Ray
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}

ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's own name for: all processes listen on the loopback alone


@dataclass(frozen=True)
class Cluster:
    """Who does the work: processes of this machine, or a Ray cluster that runs already."""

    workers: int = 1
    address: str | None = None
    gpus: float = 0.0  # for each worker


def planned(items: list[Item], settings: Settings, workers: int) -> list[Batch]:
    """Items in batches of about `batch_seconds`, longest first; fewer seconds where there would be too few for so
    many workers (0: then never)."""
    whole = sum(item.seconds + A_FILE for item in items)
    most = min(settings.batch_seconds, whole / (SHARE * workers)) if workers else settings.batch_seconds
    batches: list[Batch] = []
    batch: list[Item] = []
    have = 0.0
    for item in sorted(items, key=lambda item: (-item.seconds, item.name)):
        if batch and (item.shard or have + item.seconds + A_FILE > most):
            batches.append(Batch(tuple(batch)))
            batch, have = [], 0.0
        batch.append(item)
        have += item.seconds + A_FILE
        if item.shard:
            batches.append(Batch(tuple(batch)))
            batch, have = [], 0.0
    return [*batches, Batch(tuple(batch))] if batch else batches


class Actor:
    """A worker as Ray Data calls it: a table with one batch in, a table with one row out."""

    def __init__(self, target: str, settings: Settings):
        self.worker = Worker(target, settings)

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.worker(Batch.from_json(text)) for text in table["batch"].to_pylist()])


@contextmanager
def no_native_messages() -> Iterator[None]:
    """What libraries print on standard error by themselves, around Python, is thrown away."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def ray_ready(cluster: Cluster) -> Iterator[None]:
    """Ray, started here for this machine alone (loopback, no dashboard, no statistics), or joined. Ended afterwards, if
    it was started here."""
    wanted = QUIET | (ALONE if cluster.address is None else {})
    os.environ.update({name: value for name, value in wanted.items() if name not in os.environ})
    try:
        import ray
        import ray.data
    except ImportError:
        raise WavelldmError("this needs Ray; install it with: pip install 'wavelldm[batch]'") from None
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    about: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address is None:
        about |= {"num_cpus": cluster.workers, "include_dashboard": False, "object_store_memory": STORE}
    with warnings.catch_warnings(), no_native_messages():
        warnings.simplefilter("ignore")
        for attempt in range(TRIES):
            try:
                ray.init(cluster.address or "local", **about)
                break
            except Exception as error:  # of many kinds; on a busy machine its half a minute may not be enough
                with suppress(Exception):
                    ray.shutdown()
                if cluster.address is not None or attempt == TRIES - 1:
                    reason = str(error).splitlines()[0][:200]
                    what = f"is not at {cluster.address}" if cluster.address else "does not start on this machine"
                    raise WavelldmError(f"Ray {what} ({reason}); check the address, or that it runs") from None
    try:
        yield
    finally:
        with suppress(Exception):
            ray.shutdown()


def rows_of(batches: list[Batch], target: str, settings: Settings, cluster: Cluster) -> Iterator[dict[str, Any]]:
    """One row for each batch, as workers finish them."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    size = -(-len(batches) // MOST_BLOCKS)
    texts = [batch.to_json() for batch in batches]
    blocks = [pa.table({"batch": texts[i :: -(-len(texts) // size)]}) for i in range(-(-len(texts) // size))]
    found = ray.data.from_arrow(blocks).map_batches(
        Actor,
        fn_constructor_kwargs={"target": target, "settings": settings},
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=cluster.workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=cluster.gpus or None,
    )
    for table in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from table.to_pylist()


@contextmanager
def alone_in(place: Place) -> Iterator[None]:
    """A second run into the same folder of this machine is refused while the first one goes on."""
    if not place.local:
        yield
        return
    import fcntl

    folder = place.path(OWN)
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WavelldmError(f"another run is writing to {place.address}; wait until it ends") from None
        yield


def run(
    source: str,
    target: str,
    settings: Settings,
    cluster: Cluster,
    force: bool = False,
    seen: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Do all that is left to do of a source -> totals of the report. `seen` is told each row as it comes."""
    place = Place(target)
    items = items_of(source, place)
    ledger.begin(place, settings.marks(), force)
    with alone_in(place):
        place.clear(ledger.SCRATCH)
        place.clear(ledger.TRYING)
        done = ledger.finished(ledger.collect(place)[0])
        left = [item for item in items if out_name(item, settings) not in done]
        batches = planned(left, settings, cluster.workers)
        stop = None
        if batches:
            with ray_ready(cluster), progress_bar(total=len(left), unit="file", desc=settings.task) as bar:
                for row in rows_of(batches, target, settings, cluster):
                    if row["stop"] is not None:
                        stop = row["stop"]
                        break
                    bar.update(row["files"])
                    if seen is not None:
                        seen(row)
        if stop is not None:
            raise WavelldmError(stop)
        table = ledger.finish(place)
        place.clear(ledger.SCRATCH)
        return {"report": place.path(ledger.REPORT), "skipped": len(items) - len(left), **ledger.totals(table)}


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
