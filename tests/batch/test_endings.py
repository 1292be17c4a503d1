"""However a run ends, no process of it is left, and the same command goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from batched import equal_to_the_loop, settings, told, tree
from pyarrow import parquet

from wavelldm.batch import ledger, processes, run
from wavelldm.batch.places import Place

SOME = 30.0  # seconds after which nothing may be left
SOON = 60.0  # seconds in which a run that was asked to stop has ended
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


@contextmanager
def started(
    source: Path, target: Path, *options: str, **environment: str
) -> Iterator[tuple[subprocess.Popen, processes.Known]]:
    """The command with one worker in a process of its own, and all processes that are ever seen below it."""
    command = [sys.executable, "-m", "wavelldm", "batch", str(source), str(target), "--workers", "1", *options]
    seen, over = {}, threading.Event()
    driver = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in a background shell it is ignored
    )

    def look() -> None:
        while not over.wait(0.1):
            seen.update(processes.family(driver.pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield driver, seen
    finally:
        over.set()
        watcher.join()
        driver.kill()
        driver.communicate()
        processes.end(seen, 0.0)


def wait_for(what: Callable[[], object], driver: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.02)


def nothing_is_left(seen: processes.Known) -> None:
    deadline = time.monotonic() + SOME
    while left := processes.alive(seen):
        assert time.monotonic() < deadline, {pid: processes.words_of(pid) for pid in left}
        time.sleep(0.1)


def listening(pids: processes.Known) -> list[str]:
    """The addresses, as /proc writes them, at which processes wait for connections."""
    sockets = {name for pid in pids for name in processes.files_of(pid)}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1].rpartition(":")[0])
    return found


@pytest.mark.parametrize(
    "signals, where",
    [([signal.SIGKILL], "here"), ([signal.SIGINT] * 2, "here"), ([signal.SIGINT], "cluster")],
    ids=["kill", "twice", "cluster"],
)
def test_a_run_that_ends_while_it_works_goes_on_with_the_same_command(head, ray_here, tmp_path, signals, where):
    """As soon as a batch is done. A Ray that the run started itself listens on the loopback alone."""
    source, target = tree(tmp_path / "in", 8), tmp_path / "out"
    (source / "bad.wav").write_text("no sound")
    options = [] if where == "here" else ["--address", head.clients]
    with started(source, target, *options) as (driver, seen):
        wait_for(lambda: list(target.glob("_batch/trying/*.json")), driver)
        found = listening(processes.family(driver.pid))
        wait_for(lambda: list(target.glob("_batch/done/*.parquet")), driver)
        for number in signals:
            driver.send_signal(number)
            time.sleep(0.2)
        _, said = driver.communicate(timeout=SOON)
        if where == "here":
            assert len(seen) >= 3 and len(found) >= 3 and set(found) <= set(LOOPBACK)
        if signals[0] == signal.SIGINT:
            assert (driver.returncode, told(said)) == (130, ["stopped"])
        nothing_is_left(seen)
    place = Place(str(target))
    done = {name: (target / name).stat().st_mtime_ns for name in ledger.finished(ledger.collect(place)[0])}
    there = {path: path.read_bytes() for path in target.glob("speaker*/*.wav")}
    result = run.run(str(source), str(target), settings(source), run.Cluster(1))
    assert (result["files"], result["failed"], result["skipped"]) == (9, 1, len(done)) and 0 < len(done) < 8
    assert result["errors"][0]["input"].endswith("bad.wav")
    assert {name: (target / name).stat().st_mtime_ns for name in done} == done, "what was done is not done again"
    assert {path: path.read_bytes() for path in there} == there, "what was there was whole"
    outputs = parquet.read_table(target / "report.parquet")["output"].to_pylist()
    assert len(outputs) == len(set(outputs)) == 9
    (source / "bad.wav").unlink()
    equal_to_the_loop(source, target, tmp_path / "alone.wav")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_while_ray_starts_leaves_nothing(tmp_path, number):
    with started(tree(tmp_path / "in", 1), tmp_path / "out") as (driver, seen):
        wait_for(lambda: any("raylet" in word for pid in list(seen) for word in processes.words_of(pid)[:1]), driver)
        driver.send_signal(number)
        driver.communicate()
        assert driver.returncode != 0
        nothing_is_left(seen)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to another process")
def test_orphans_are_found_only_where_they_are_fostered():
    def orphan() -> int:
        shell = subprocess.run(["sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True)
        return int(shell.stdout)

    away = orphan()
    with processes.fostering():
        near = orphan()
        found = processes.family(os.getpid())
        assert near in found and away not in found
        processes.end({near: found[near]}, 0.0)
        deadline = time.monotonic() + SOME
        while near in processes.table():  # first it ends, then it leaves the table
            processes.bury({near: found[near]})
            assert time.monotonic() < deadline
    os.kill(away, signal.SIGKILL)


def test_a_start_that_fails_is_one_sentence_and_leaves_nothing(tmp_path):
    """Ray is given no time at all."""
    no_time = {"RAY_gcs_server_port_wait_time_s": "0"}
    with started(tree(tmp_path / "in", 1), tmp_path / "out", **no_time) as (driver, seen):
        _, said = driver.communicate(timeout=300)
        assert driver.returncode != 0 and seen
        (line,) = told(said)
        assert "Ray does not start on this machine" in line
        nothing_is_left(seen)
