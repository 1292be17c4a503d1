import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from batched import tree
from pyarrow import parquet

from wavelldm.batch import ledger, run
from wavelldm.batch.places import Place
from wavelldm.batch.tasks import Settings
from wavelldm.light import denoiser

LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def family(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def listening(pids: list[int]) -> list[str]:
    """The addresses, as /proc writes them, at which processes wait for connections."""
    sockets = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(os.readlink(path))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1].rpartition(":")[0])
    return found


def settings(source: Path) -> Settings:
    return Settings("denoise", str(source))


def equal_to_the_loop(source: Path, target: Path, alone: Path) -> None:
    for path in source.rglob("*.wav"):
        denoiser.load().enhance_file(path, alone, force=True, progress=False)
        assert (target / path.relative_to(source)).read_bytes() == alone.read_bytes()


def test_ray_listens_on_the_loopback_alone(ray_here):
    found = listening(family(os.getpid()))
    assert len(found) >= 3 and set(found) <= set(LOOPBACK)


def test_a_killed_worker_costs_nothing(ray_here, tmp_path):
    source, place, killed = tree(tmp_path / "in", 6), Place(str(tmp_path / "out")), []

    def kill() -> None:
        while not killed:
            for name, _ in place.listing(ledger.TRYING):
                try:
                    pid = json.loads(place.read(name))["pid"]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
                except (OSError, ValueError):
                    continue
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    rows: list[dict] = []
    result = run.run(str(source), str(tmp_path / "out"), settings(source), run.Cluster(2), seen=rows.append)
    assert killed and (result["files"], result["failed"]) == (6, 0)
    assert killed[0] not in {row["pid"] for row in rows if row["files"] and row["pid"] in family(os.getpid())}
    equal_to_the_loop(source, tmp_path / "out", tmp_path / "alone.wav")
    again = run.run(str(source), str(tmp_path / "out"), settings(source), run.Cluster(2))
    assert again["skipped"] == 6 and again["files"] == 6


def test_a_killed_run_goes_on_with_the_same_command(ray_here, tmp_path):
    """The driver is killed as soon as a batch is done; nothing of its Ray stays behind."""
    source, target = tree(tmp_path / "in", 8), tmp_path / "out"
    (source / "bad.wav").write_text("no sound")
    command = [sys.executable, "-m", "wavelldm", "batch", str(source), str(target), "--workers", "1"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 400  # a second Ray starts, beside that of the tests
    while not list(target.glob("_batch/done/*.parquet")):
        if driver.poll() is not None or time.monotonic() > deadline:
            driver.kill()
            pytest.fail(f"nothing was done: {driver.communicate()}")
        time.sleep(0.02)
    left = family(driver.pid)
    driver.kill()
    driver.communicate()
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < deadline, "processes of Ray stay behind"
        time.sleep(0.1)
    place = Place(str(target))
    done = {name: (target / name).stat().st_mtime_ns for name in ledger.finished(ledger.collect(place)[0])}
    result = run.run(str(source), str(target), settings(source), run.Cluster(1))
    assert (result["files"], result["failed"], result["skipped"]) == (9, 1, len(done))
    assert result["errors"][0]["input"].endswith("bad.wav")
    assert {name: (target / name).stat().st_mtime_ns for name in done} == done, "what was done is not done again"
    outputs = parquet.read_table(target / "report.parquet")["output"].to_pylist()
    assert len(outputs) == len(set(outputs)) == 9
    (source / "bad.wav").unlink()
    equal_to_the_loop(source, target, tmp_path / "alone.wav")
