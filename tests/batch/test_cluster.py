"""A run on a Ray cluster that runs already."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from batched import answers, equal_to_the_loop, free_ports, settings, told, tree
from pyarrow import parquet

from wavelldm.batch import processes, run
from wavelldm.errors import WavelldmError


def batch(folder: Path, address: str, **environment: str) -> tuple[int, list[str]]:
    """The command, from in/ to out/, in another folder than that where the cluster was started -> its exit code, and
    what it says."""
    command = [sys.executable, "-m", "wavelldm", "batch", "in", "out", "--workers", "2", "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment})
    return done.returncode, told(done.stderr)


def test_a_run_by_rays_client_makes_the_same_bytes(head, tmp_path):
    """The tests of `ray_here` work on the same cluster without the client."""
    source, target = tree(tmp_path / "in", 4), tmp_path / "out"
    (source / "bad.wav").write_text("no sound")
    code, said = batch(tmp_path, head.clients)
    assert code == 1 and len(said) == 2 and "bad.wav" in said[0], said
    rows = {row["output"]: row["error"] for row in parquet.read_table(target / "report.parquet").to_pylist()}
    assert len(rows) == 5 and "cannot be read as sound" in rows["bad.wav"]
    (source / "bad.wav").unlink()
    equal_to_the_loop(source, target, tmp_path / "alone.wav")


ENDING = """
import logging, sys
from wavelldm.batch import run
with run.ray_ready(run.Cluster(1, address=sys.argv[1])):
    from ray.util.client import ray
    ray.worker.channel.close()
    logging.getLogger("ray.util.client.dataclient").error("Unrecoverable error in data channel.")
"""


def test_a_connection_that_ends_is_not_told_by_rays_client(head):
    """It notes that from threads of its own, after Ctrl-C too now and then; what matters is raised as well."""
    done = subprocess.run([sys.executable, "-c", ENDING, head.clients], capture_output=True, text=True, timeout=120)
    assert (done.returncode, told(done.stderr)) == (0, [])


@pytest.mark.parametrize("reason", ["RuntimeError: Starting Ray client server failed.", "psutil.ZombieProcess: it is"])
def test_a_process_of_the_cluster_that_breaks_as_it_begins_is_asked_for_again(reason, monkeypatch):
    """A cluster's first process for a client is, now and then."""
    said = f"Initialization failure from server:\nTraceback (most recent call last):\n{reason}"
    works: list[bool] = []

    def init(address, **about):
        works.append(len(works) >= broken)
        if not works[-1]:
            raise ConnectionAbortedError(said)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.setattr(run, "shut_down", lambda: None)  # the cluster of these tests goes on
    broken = run.TRIES - 1
    run.begin(run.Cluster(1, "ray://127.0.0.1:1"), {})
    assert works == [False] * broken + [True]
    works.clear()
    broken = run.TRIES
    with pytest.raises(WavelldmError, match="starts no process for us .* GRPC_ENABLE_FORK_SUPPORT=0"):
        run.begin(run.Cluster(1, "ray://127.0.0.1:1"), {})
    assert len(works) == run.TRIES


def test_a_wrong_token_is_told_in_one_sentence(head, tmp_path):
    brief = {"RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "1", "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "1"}
    tree(tmp_path / "in", 1)
    code, said = batch(tmp_path, head.clients, RAY_AUTH_TOKEN="another", **brief)
    assert code == 1 and len(said) == 1 and "check it, and its token" in said[0], said


def test_workers_that_write_elsewhere_are_told_at_once(ray_here, tmp_path, monkeypatch):
    """As on machines that share no disk: to them the name means another folder."""
    source, target = tree(tmp_path / "in", 1), str(tmp_path / "out")
    handed_out = run.handed_out
    elsewhere = {"target": str(tmp_path / "elsewhere")}
    monkeypatch.setattr(
        run, "handed_out", lambda batches, worker, cluster: handed_out(batches, worker | elsewhere, cluster)
    )
    with pytest.raises(WavelldmError, match="a folder that all machines share"):
        run.run(str(source), target, settings(source), run.Cluster(1))


def test_a_cluster_without_time_for_its_clients_says_what_to_set(head, tmp_path):
    """One more server for clients, which has no time at all to start a process for each."""
    tree(tmp_path / "in", 1)
    (port,) = free_ports(1)
    words = f"-m ray.util.client.server --mode proxy --host 127.0.0.1 --port {port} --address {head.address}"
    none = {"RAY_AUTH_MODE": "token", "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "0"}
    none["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    with open(os.devnull, "w") as nowhere:
        server = subprocess.Popen([sys.executable, *words.split()], env={**os.environ, **none}, stderr=nowhere)
    try:
        while not answers(port):
            assert server.poll() is None
            time.sleep(0.1)
        code, said = batch(tmp_path, f"ray://127.0.0.1:{port}", RAY_CLIENT_RECONNECT_GRACE_PERIOD="1")
    finally:
        left = processes.family(server.pid)
        server.kill()
        server.wait()
        processes.end(left, 0.0)
    assert code == 1 and len(said) == 1, said
    assert "start it with RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S=120" in said[0]
