"""Small trees of noisy recordings, and a worker with batches of them, for the tests of batches."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import soundfile as sf
from signals import speechlike

from wavelldm.batch import ledger, processes
from wavelldm.batch.places import Place
from wavelldm.batch.run import planned
from wavelldm.batch.sources import items_of
from wavelldm.batch.tasks import Settings
from wavelldm.batch.worker import Batch, Worker
from wavelldm.light import denoiser

SR = 16_000


def noisy(seconds, seed=0):
    rng = np.random.default_rng(seed)
    wav = np.asarray(speechlike(seconds), np.float32)
    return (wav + 0.02 * rng.standard_normal(len(wav))).astype(np.float32)


def tree(folder: Path, number: int = 3) -> Path:
    for i in range(number):
        path = folder / f"speaker{i % 2}" / f"clip{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, noisy(0.5 + 0.25 * i, i), SR, subtype="PCM_16")
    return folder


def begun(source, target, **changes) -> tuple[Worker, list[Batch], Place]:
    settings, place = Settings(**{"task": "denoise", "source": str(source), **changes}), Place(str(target))
    ledger.begin(place, settings.marks(), False)
    return Worker(str(target), settings), planned(items_of(str(source), place), settings, 1), place


def settings(source: Path) -> Settings:
    return Settings("denoise", str(source))


def equal_to_the_loop(source: Path, target: Path, alone: Path) -> None:
    """What a run made is what a plain loop over the files makes, to the byte."""
    for path in source.rglob("*.wav"):
        denoiser.load().enhance_file(path, alone, force=True, progress=False)
        assert (target / path.relative_to(source)).read_bytes() == alone.read_bytes()


def megabytes(pid: int, kind: str) -> float:
    """Memory that a process holds: RssAnon is its own, RssShmem what it shares with others, as Ray's store is."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def most_held() -> Iterator[dict[str, float]]:
    """The most memory that the driver (this process) and the store of the Ray below it hold meanwhile, in MB."""
    found, over = {"driver": 0.0, "store": 0.0}, threading.Event()
    raylets = [pid for pid in processes.family(os.getpid()) if processes.words_of(pid)[0].endswith("raylet")]

    def look() -> None:
        while not over.wait(0.05):
            found["driver"] = max(found["driver"], megabytes(os.getpid(), "RssAnon"))
            found["store"] = max(found["store"], sum(megabytes(pid, "RssShmem") for pid in raylets))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [server.getsockname()[1] for server in servers]


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def told(stderr: str) -> list[str]:
    """The lines that a command says, but for what it waits for on a slow machine."""
    return [line for line in stderr.splitlines() if not line.startswith("still waiting for")]
