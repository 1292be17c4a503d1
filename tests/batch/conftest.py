import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from batched import answers, free_ports

from wavelldm.batch import processes, run


@pytest.fixture(scope="session", autouse=True)
def quick_ray(tmp_path_factory):
    """Ray's processes import jsonschema, which takes a grammar along if Jupyter has brought it: 1.4 s of computing in
    each, three quarters of their start. Nothing here needs it. And all clusters have a token of their own."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "rfc3987_syntax.py").write_text("raise ImportError\n")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setitem(sys.modules, "rfc3987_syntax", None)
        patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        yield


@dataclass(frozen=True)
class Head:
    """A Ray cluster of one machine."""

    address: str
    clients: str  # the address for Ray's client


@pytest.fixture(scope="session")
def head(quick_ray):
    """One cluster for all tests, as starting it takes longer than they do. It is started as its user would. On a busy
    machine that fails now and then, as Ray's helpers have 15 s to start."""
    for left in reversed(range(run.TRIES)):
        folder = Path(tempfile.mkdtemp(prefix="ray"))  # names of sockets have to be short
        ports = free_ports(2)
        process = started(ports, folder)
        try:
            while not all(answers(port) for port in ports) and process.poll() is None:
                time.sleep(0.1)
            assert process.poll() is None or left, (folder / "said").read_text()
            if process.poll() is None:
                yield Head(f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}")
                return
        finally:
            family = processes.family(process.pid)
            process.kill()
            process.wait()
            processes.end(family, 0.0)
            shutil.rmtree(folder)


def started(ports: list[int], folder: Path) -> subprocess.Popen:
    words = f"start --head --block --node-ip-address 127.0.0.1 --port {ports[0]} --ray-client-server-port {ports[1]}"
    words += f" --num-cpus 2 --object-store-memory 80000000 --include-dashboard false --temp-dir {folder}"
    patient = {**run.PATIENT, "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    with open(folder / "said", "w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words.split()],
            stdout=said,
            stderr=said,
            env={**os.environ, **run.QUIET, **patient},
        )


@pytest.fixture(scope="session")
def ray_here(head):
    """Runs of this process go to that cluster."""
    with run.ray_ready(run.Cluster(2, head.address)):
        yield
