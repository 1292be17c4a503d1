"""The processes that a process started, as Linux tells in /proc; elsewhere none are found.

As a program it is a guard: it waits until the process at the other end of its standard input has ended, however that
came about, and then ends what Ray has left behind.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Known = dict[int, int]  # the number of a process -> when it began: numbers come again, both together do not


def table() -> dict[int, tuple[int, int, str]]:
    """Every process: its parent, when it began, and its state."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            found[int(path.parent.name)] = int(fields[1]), int(fields[19]), fields[0]
    return found


def family(pid: int) -> Known:
    """The living processes that a process started, and those that these started."""
    processes, found = table(), [pid]
    for one in found:
        found += [child for child, (parent, *_) in processes.items() if parent == one]
    return {one: processes[one][1] for one in found[1:] if processes[one][2] not in "ZX"}


def alive(known: Known) -> Known:
    """Those that have not ended."""
    processes = table()
    return {
        pid: began
        for pid, began in known.items()
        if pid in processes and processes[pid][1] == began and processes[pid][2] not in "ZX"
    }


def words_of(pid: int) -> list[str]:
    """The command that a process was started with."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def end(known: Known, patience: float) -> None:
    """Wait until all have ended; those that have not after `patience` seconds are killed."""
    deadline = time.monotonic() + patience
    while left := alive(known):
        if time.monotonic() > deadline:
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def bury(known: Known) -> None:
    """Those of our children that have ended leave the table of processes, too."""
    for pid in known:
        with suppress(OSError):
            os.waitpid(pid, os.WNOHANG)


SET, GET = 36, 37  # PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER


@contextmanager
def fostering() -> Iterator[None]:
    """Within it a process below us whose parent ends becomes our child, and not that of the first process, so that
    `family` still finds it."""
    if sys.platform != "linux":
        yield
        return
    import ctypes

    library, before = ctypes.CDLL(None), ctypes.c_int()
    library.prctl(GET, ctypes.byref(before), 0, 0, 0)
    library.prctl(SET, 1, 0, 0, 0)
    try:
        yield
    finally:
        library.prctl(SET, before.value, 0, 0, 0)


def files_of(pid: int) -> Iterator[str]:
    """The files and sockets that a process has open."""
    with suppress(OSError):
        for link in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(link)


def is_of_ray(pid: int, programs: str) -> bool:
    """A process with one of Ray's programs, which lie in this folder, or with one of Ray's titles."""
    return any(programs in word or word.startswith("ray::") for word in words_of(pid))


def of_session(folder: str, programs: str) -> Known:
    """Ray's servers, workers and helpers that have a file of its session open."""
    return {
        pid: began
        for pid, (_, began, _) in table().items()
        if is_of_ray(pid, programs) and any(name.startswith(f"{folder}/") for name in files_of(pid))
    }


def of_ray(ours: int, programs: str) -> Known:
    """The processes of the Ray that a process started: its children that are Ray's, and all below them."""
    parents = table()
    found: Known = {}
    for pid in family(ours):
        if parents.get(pid, (0,))[0] == ours and is_of_ray(pid, programs):
            found |= {pid: parents[pid][1]} | family(pid)
    return found


@contextmanager
def guarded(programs: str) -> Iterator[Callable[[str], None]]:
    """If this process is killed within it, the Ray that it started ends too: some of Ray's helpers would need a minute
    to see that they are alone, and now and then one never does. Gives what is to be told the folder of Ray's session,
    as soon as that is known."""
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    guard = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PROGRAMS": programs},  # in its command they would make it look like one of Ray's
    )

    def tell(folder: str) -> None:
        with suppress(OSError):
            guard.stdin.write(f"{folder}\n".encode())
            guard.stdin.flush()

    try:
        yield tell
    finally:
        guard.communicate()


def session_of(known: Known) -> str:
    """The folder of Ray's session, as one of its programs was told it; empty if none was yet."""
    words = (word for pid in known for word in words_of(pid))
    return next((word.partition("=")[2] for word in words if word.startswith(("--session_dir=", "--session-dir="))), "")


def guard(ours: int, programs: str) -> None:
    """Until Ray has started, look who belongs to it; then wait for the end of standard input. What started in the last
    moments has files of the session open, and is found, too."""
    seen: Known = {}
    folder = ""
    while not select.select([0], [], [], 0.1)[0]:
        seen |= of_ray(ours, programs)
        folder = folder or session_of(seen)
    folder = sys.stdin.readline().strip() or folder
    sys.stdin.read()
    began = time.monotonic()
    while time.monotonic() < began + 30.0:  # then it gives up: some cannot be ended
        for pid in alive(seen):
            seen |= family(pid)
        seen |= of_session(folder, programs) if folder else {}
        if not alive(seen):
            return
        if time.monotonic() > began + 3.0:
            end(seen, 0.0)
        time.sleep(0.1)


if __name__ == "__main__":
    guard(int(sys.argv[1]), os.environ["PROGRAMS"])
