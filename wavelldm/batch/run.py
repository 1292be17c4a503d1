"""A whole run: what is left to do, in batches of about one length, longest first; Ray Data hands them to workers.

Sound never passes through Ray: a worker reads, works and writes by itself, and Ray carries one short row for each batch
there and back. So memory does not grow with the source, and the engine costs the same for a minute as for an hour.
"""

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from ..errors import WavelldmError
from ..progress import progress_bar
from . import ledger, processes
from .places import OWN, Place
from .sources import Item, items_of
from .tasks import Settings
from .worker import Batch, Worker, out_name

SHARE = 8  # batches for each worker at least, if there are so many files, so that all end at about the same time
A_FILE = 0.5  # seconds of sound that opening and closing a file is worth
MOST_BLOCKS = 4096  # Ray keeps a note of each block; more batches share one
STORE = 100_000_000  # bytes of Ray's shared memory on one machine: only short rows pass through it
LATE = 20.0  # seconds of waiting for Ray, after which we say so
KNOCK = 5.0  # seconds in which a machine has to answer
LEAVE = 5.0  # seconds that Ray's processes have to end by themselves
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
TRIES = 3  # to start Ray: 15 s in which its own helpers have to start cannot be changed, and the second time is faster
PATIENT = {  # half a minute by default, which is too little for a slow machine, or a busy one
    "RAY_gcs_server_port_wait_time_s": "60",
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_worker_register_timeout_seconds": "180",
}
SLOW = "Proxy failed to Connect to backend"  # what a cluster says whose process for us did not start within 30 s
# ... and one whose process for us broke as it began: a fork confuses gRPC, unless GRPC_ENABLE_FORK_SUPPORT=0
BROKEN = ("Starting Ray client server failed", "ZombieProcess")
BRIEF = {"RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "5"}  # three times, instead of 5, 10 and 15 s
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
    """A worker as Ray Data calls it: a table with one batch in, a table with one row out. It goes to the folder where
    the run was started, as paths may be relative to it."""

    def __init__(self, target: str, settings: Settings, folder: str):
        with suppress(OSError):  # on another machine
            os.chdir(folder)
        self.worker = Worker(target, settings)

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.worker(Batch.from_json(text)) for text in table["batch"].to_pylist()])


@contextmanager
def quietly(what: str) -> Iterator[None]:
    """What libraries print on standard error by themselves, around Python, is thrown away; if it takes long, one
    sentence says what is waited for."""
    kept = os.dup(2)
    late = threading.Timer(LATE, lambda: os.write(kept, f"still waiting for {what}\n".encode()))
    late.daemon = True
    late.start()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        late.cancel()
        late.join()
        os.dup2(kept, 2)
        os.close(kept)


def knock(address: str) -> None:
    """Refuse an address at which no machine answers: Ray itself would try for minutes."""
    if address == "auto":  # as Ray finds it; what `ray start` noted may have ended since
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        noted = Path(folder) / "ray/ray_current_cluster"
        address = os.environ.get("RAY_ADDRESS") or (noted.read_text().strip() if noted.exists() else "")
        if not address:
            raise WavelldmError("no Ray cluster runs on this machine; give --address ray://host:10001, or leave it out")
    ports = {"ray": 10001, "": 6379}
    scheme, _, rest = address.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port or ports.get(scheme)
    except ValueError:
        host = None
    if not host or scheme not in ports:
        raise WavelldmError(f"{address} is no address of a Ray cluster; write ray://host:10001, host:6379 or auto")
    try:
        socket.create_connection((host, port), KNOCK).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise WavelldmError(f"no Ray cluster answers at {address} ({reason}); check the address, or start it") from None


def has_token() -> bool:
    """Whether Ray finds a token to show to a cluster; from 2.60 on `ray start` asks for one."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray/auth_token").exists()


@contextmanager
def ray_ready(cluster: Cluster) -> Iterator[None]:
    """Ray, started here for this machine alone (loopback, no dashboard, no statistics), or joined. If it was started
    here, it is ended afterwards, or when it does not start, with all its processes."""
    wanted = QUIET | PATIENT | (ALONE if cluster.address is None else BRIEF)
    if cluster.address is not None and has_token():
        wanted |= {"RAY_AUTH_MODE": "token"}
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
    for name in ("ray.util.client", "ray.util.client.logsclient"):  # a connection that ends; what matters is raised
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    about: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address is None:
        about |= {"num_cpus": cluster.workers, "include_dashboard": False, "object_store_memory": STORE}
        what = "Ray to start on this machine"
    else:
        knock(cluster.address)
        what = f"the Ray cluster at {cluster.address}"
    with ExitStack() as stack:
        if cluster.address is None:
            stack.enter_context(processes.fostering())
            tell = stack.enter_context(processes.guarded(ray.__path__[0]))
        try:
            with warnings.catch_warnings(), quietly(what):
                warnings.simplefilter("ignore")
                begin(cluster, about)
            if cluster.address is None:
                tell(ray._private.worker._global_node.get_session_dir_path())
            yield
        finally:
            shut_down()


def begin(cluster: Cluster, about: dict[str, Any]) -> None:
    """Start Ray, or join it. What only was too slow, or broke as it began, is tried again: that helps."""
    import ray

    slow = False
    for _ in range(TRIES):
        try:
            ray.init(cluster.address or "local", **about)
            return
        except Exception as error:  # of many kinds
            lines = (str(error).strip() or type(error).__name__).splitlines()
            reason = (lines[-1] if lines[0].endswith(":") else lines[0])[:200]
            if cluster.address is not None and not any(said in reason for said in (SLOW, *BROKEN)):
                raise WavelldmError(
                    f"there is no Ray cluster at {cluster.address} ({reason}); check it, and its token"
                ) from None
            slow |= SLOW in reason
            shut_down()
    if cluster.address is None:
        raise WavelldmError(f"Ray does not start on this machine ({reason}); try again when less runs on it")
    if not slow:
        raise WavelldmError(
            f"the Ray cluster at {cluster.address} starts no process for us ({reason}); start it with "
            "GRPC_ENABLE_FORK_SUPPORT=0 in its environment"
        )
    raise WavelldmError(
        f"the Ray cluster at {cluster.address} has too little time to make a process for us; start it with "
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S=120 in its environment"
    )


def shut_down() -> None:
    """End Ray, with all processes that it started here."""
    import ray

    with deaf():
        left = processes.of_ray(os.getpid(), ray.__path__[0])
        with suppress(Exception):
            ray.shutdown()
        left |= processes.of_ray(os.getpid(), ray.__path__[0])  # what was being started
    try:
        processes.end(left, LEAVE)
    finally:  # Ctrl-C
        processes.end(left, 0.0)
        processes.bury(left)


@contextmanager
def deaf() -> Iterator[None]:
    """Within it Ctrl-C does nothing: Ray, interrupted in its shutdown, ends the whole program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def rows_of(batches: list[Batch], target: str, settings: Settings, cluster: Cluster) -> Iterator[dict[str, Any]]:
    """One row for each batch, as workers finish them."""
    import ray

    work = batches, {"target": target, "settings": settings, "folder": os.getcwd()}, cluster
    if not ray.util.client.ray.is_connected():
        for rows in handed_out(*work):
            yield from rows
        return
    foreman = ray.remote(Foreman).options(num_cpus=0).remote(*work)
    while (rows := ray.get(foreman.rows.remote())) is not None:
        yield from rows


class Foreman:
    """Ray Data needs streams, which Ray's client (an address that begins with ray://) does not have. So it runs on the
    cluster, in a process of its own, and the client asks it for the next rows."""

    def __init__(self, *work: Any):
        self.coming = handed_out(*work)

    def rows(self) -> list[dict[str, Any]] | None:
        return next(self.coming, None)


def handed_out(batches: list[Batch], worker: dict[str, Any], cluster: Cluster) -> Iterator[list[dict[str, Any]]]:
    """Batches to workers, by Ray Data -> the rows of those that became ready together."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    count = min(len(batches), MOST_BLOCKS)
    dealt = [{"batch": batch.to_json()} for i in range(count) for batch in batches[i::count]]  # each block as long
    found = ray.data.from_items(dealt, override_num_blocks=count).map_batches(
        Actor,
        fn_constructor_kwargs=worker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=cluster.workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=cluster.gpus or None,
    )
    for table in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield table.to_pylist()


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
        stop, first = None, True
        if batches:
            with ray_ready(cluster), progress_bar(total=len(left), unit="file", desc=settings.task) as bar:
                for row in rows_of(batches, target, settings, cluster):
                    if row["stop"] is not None:
                        stop = row["stop"]
                        break
                    if first and not place.exists(f"{ledger.DONE}/{row['batch']}.parquet"):
                        raise WavelldmError(
                            f"the workers do not write to the {place.address} of this machine; name a folder that all "
                            "machines share, or an address such as s3://bucket/folder"
                        )
                    first = False
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
