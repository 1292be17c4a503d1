"""An address where there is no Ray cluster ends in one sentence, soon."""

import os
import socket
import subprocess
import sys
import time

import pytest
from batched import tree

from wavelldm.batch import run
from wavelldm.errors import WavelldmError


@pytest.mark.parametrize(
    "address, words",
    [
        ("ray://127.0.0.1:1", "no Ray cluster answers at ray://127.0.0.1:1 (Connection refused)"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        ("ray://no-such-host.invalid", "no Ray cluster answers at ray://no-such-host.invalid"),
        ("http://127.0.0.1:10001", "is no address of a Ray cluster"),
        ("ray://", "is no address of a Ray cluster"),
        ("ray://127.0.0.1:port", "is no address of a Ray cluster"),
    ],
)
def test_an_address_where_nothing_answers_is_refused_at_once(address, words):
    began = time.monotonic()
    with pytest.raises(WavelldmError) as caught:
        run.knock(address)
    assert words in str(caught.value) and time.monotonic() - began < 2 * run.KNOCK


def test_a_cluster_that_has_ended_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(WavelldmError, match="no Ray cluster runs on this machine"):
        run.knock("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(WavelldmError, match="no Ray cluster answers at 127.0.0.1:1"):
        run.knock("auto")


def test_what_answers_but_is_no_ray_is_told_in_one_sentence(tmp_path):
    """Something listens there and never says a word. Python has imported Ray before, which takes its time."""
    source = tree(tmp_path / "in", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ray://127.0.0.1:{silent.getsockname()[1]}"
        words = ["batch", str(source), str(tmp_path / "out"), "--workers", "1", "--address", address]
        script = "import ray.data, sys, time; from wavelldm.cli.main import main; began = time.monotonic()\n"
        script += f"code = main({words!r}); print(time.monotonic() - began); sys.exit(code)"
        quiet = {**os.environ, **run.QUIET, **run.BRIEF}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=quiet)
    assert done.returncode != 0 and float(done.stdout) < 30
    assert len(done.stderr.splitlines()) == 1 and f"there is no Ray cluster at {address}" in done.stderr


def test_a_long_wait_is_told(monkeypatch, capfd):
    monkeypatch.setattr(run, "LATE", 0.05)
    with run.quietly("the moon"):
        os.write(2, b"noise of libraries\n")
        time.sleep(0.3)
    assert capfd.readouterr().err == "still waiting for the moon\n"
