"""The server: what it shows, what it refuses, and that nothing that it acknowledged is lost."""

import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pages import serving

from wavelldm.app import listen_server
from wavelldm.app.listen_server import Server, clean_name
from wavelldm.app.listen_store import NAME, Answer, Busy, Store
from wavelldm.errors import DataError, WavelldmError


@pytest.fixture
def test(make):
    return make("acr")


def ask(server, method, path, body=None, token=None, **headers):
    """Status, headers, body."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=5)
    headers = {"Content-Type": "application/json", **headers}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps(body) if isinstance(body, dict) else body
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def post(server, path, body, token=None, **headers):
    status, _, data = ask(server, "POST", path, body, token, **headers)
    return status, json.loads(data)


def answer_of(test, number=0, value=3, client=None):
    trial = [t for t in test.trials if not t.practice][number]
    return {"client": client or f"client-{number:04d}", "trial": trial.id, "item": trial.stimuli[0], "value": value}


def test_a_listener_joins_answers_and_comes_back(test):
    with serving(test) as server:
        status, facts = post(server, "/api/join", {"name": "Ada"})
        token = facts["token"]
        assert status == 200 and len(token) > 20
        assert post(server, "/api/answers", {"answers": [answer_of(test)]}, token) == (200, {"stored": ["client-0000"]})
        post(server, "/api/answers", {"answers": [answer_of(test)]}, token)  # sent twice
        post(server, "/api/answers", {"answers": [answer_of(test, value=5, client="changed-mind")]}, token)
        me = json.loads(ask(server, "GET", "/api/me", token=token)[2])
        sent = answer_of(test)
        assert me["name"] == "Ada" and me["answers"] == {sent["trial"]: {sent["item"]: 5}}
        assert server.store.counts() == (1, 2)
        assert token not in (test.folder / NAME).read_bytes().decode("latin1")


def test_the_page_its_sounds_and_nothing_else(test):
    with serving(test) as server:
        status, headers, page = ask(server, "GET", "/")
        assert (
            status == 200 and b"Listening test" in page and "default-src 'none'" in headers["Content-Security-Policy"]
        )
        assert b"SERVED = true" in ask(server, "GET", "/mode.js")[2]
        name = next(iter(test.sounds))
        whole = ask(server, "GET", f"/audio/{name}.wav")
        assert whole[0] == 200 and whole[1]["Content-Type"] == "audio/wav" and whole[2][:4] == b"RIFF"
        part = ask(server, "GET", f"/audio/{name}.wav", Range="bytes=4-9")
        assert part[0] == 206 and part[2] == whole[2][4:10] and part[1]["Content-Range"].startswith("bytes 4-9/")
        assert ask(server, "GET", f"/audio/{name}.wav", Range="bytes=-4")[2] == whole[2][-4:]
        assert ask(server, "GET", f"/audio/{name}.wav", Range="bytes=999999999-")[0] == 416
        head = ask(server, "HEAD", f"/audio/{name}.wav")
        assert head[2] == b"" and int(head[1]["Content-Length"]) == len(whole[2])
        for path in (
            "/test.json",
            "/../test.json",
            "/%2e%2e/test.json",
            f"/{NAME}",
            "/audio/",
            "/audio/../../test.json",
        ):
            assert ask(server, "GET", path)[0] == 404, path


@pytest.mark.parametrize(
    "path, body, headers, status",
    [
        ("/api/answers", b"x" * (listen_server.BODY + 1), {}, 413),
        ("/api/answers", b"{", {}, 400),
        ("/api/answers", b"[1]", {}, 400),
        ("/api/answers", b'{"answers": []}', {}, 400),
        ("/api/answers", b'{"answers": [1]}', {}, 400),
        ("/api/answers", b'{"answers": ' + b"[" * 30_000, {}, 400),
        ("/api/answers", b"{}", {"Content-Type": "text/plain"}, 415),
        ("/api/answers", b"{}", {"Content-Length": "-1"}, 411),
        ("/api/answers", b"{}", {"Transfer-Encoding": "chunked"}, 411),
        ("/api/join", b'{"name": 3}', {}, 400),
        ("/api/nothing", b"{}", {}, 404),
        ("/api/join", b"{}", {"Host": "evil.example"}, 421),
    ],
)
def test_what_does_not_belong_is_refused_with_a_sentence(test, path, body, headers, status):
    with serving(test) as server:
        token = post(server, "/api/join", {})[1]["token"]
        found, facts = post(server, path, body, token, **headers)
        assert found == status and facts["error"]
        assert post(server, "/api/answers", {"answers": [answer_of(test)]}, token)[0] == 200  # it goes on


def test_answers_of_strangers_and_wrong_answers_are_refused_and_none_of_a_batch_is_kept(test):
    with serving(test) as server:
        token = post(server, "/api/join", {})[1]["token"]
        right = answer_of(test)
        for wrong in (
            {"value": 9},
            {"trial": "x"},
            {"client": "short"},
            {"client": "a" * 65},
            {"more": 1},
            {"item": 1},
        ):
            status, facts = post(server, "/api/answers", {"answers": [right, {**right, **wrong}]}, token)
            assert status == 400 and facts["error"]
        assert post(server, "/api/answers", {"answers": [right] * 201}, token)[0] == 400
        for stranger in (None, "x", "y" * 500):
            assert post(server, "/api/answers", {"answers": [right]}, stranger)[0] == 401
        assert server.store.counts() == (0, 0)


def test_by_invitation_only_those_with_a_link_can_rate(test):
    with serving(test, open_door=False) as server:
        assert post(server, "/api/join", {})[0] == 403
        (token,) = server.store.invite(1)
        assert post(server, "/api/name", {"name": "Bo"}, token)[0] == 200
        assert post(server, "/api/answers", {"answers": [answer_of(test)]}, token)[0] == 200
        assert b"OPEN_DOOR = false" in ask(server, "GET", "/mode.js")[2]


def test_names_become_one_line_of_text():
    assert clean_name("  a\x00b\n\u202ec\t d ") == "a b c d"
    assert len(clean_name("x" * 1000)) == 80
    assert clean_name("<b>&amp;") == "<b>&amp;"  # the page shows it as it is


def test_many_listeners_at_once_lose_nothing(test):
    with serving(test) as server:

        def listener(number):
            token = post(server, "/api/join", {"name": str(number)})[1]["token"]
            for i in range(8):
                assert post(server, "/api/answers", {"answers": [answer_of(test, i)]}, token)[0] == 200
            return json.loads(ask(server, "GET", "/api/me", token=token)[2])

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(listener, range(8)))
        assert server.store.counts() == (8, 64) and all(len(me["answers"]) == 8 for me in found)
        assert len({me["seed"] for me in found}) == 8  # an order of its own for each


def test_silent_connections_do_not_keep_others_out(test, monkeypatch):
    monkeypatch.setattr(listen_server.Handler, "timeout", 0.3)
    with serving(test) as server:
        idle = [socket.create_connection(server.server_address[:2]) for _ in range(20)]
        idle[0].sendall(b"POST /api/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert ask(server, "GET", "/")[0] == 200
        time.sleep(0.6)
        assert threading.active_count() < 20
        for one in idle:
            one.close()


# --- the file of ratings


def start(test, port=0):
    """The real command in a process of its own -> process, port."""
    command = [sys.executable, "-m", "wavelldm", "listen", "serve", str(test.folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
    assert found, said + process.stdout.read()
    return process, int(found[1])


class At:
    def __init__(self, port):
        self.server_address = ("127.0.0.1", port)


def test_a_killed_server_loses_nothing_that_it_acknowledged(test):
    acknowledged, token = [], None
    for attempt in range(3):
        process, port = start(test)
        try:
            token = token or post(At(port), "/api/join", {})[1]["token"]
            for i in range(3):
                one = answer_of(test, 3 * attempt + i)
                assert post(At(port), "/api/answers", {"answers": [one]}, token)[0] == 200
                acknowledged.append(one)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    store = Store(test)
    ((_, _, trials),) = store.everything()
    store.close()
    assert trials == {a["trial"]: {a["item"]: a["value"]} for a in acknowledged} and len(trials) == 9


def test_ctrl_c_ends_it_with_a_count_and_a_port_in_use_is_a_sentence(test):
    process, port = start(test)
    second = subprocess.run(
        [sys.executable, "-m", "wavelldm", "listen", "serve", str(test.folder), "--port", str(port)],
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1 and f"port {port} is in use" in second.stderr
    post(At(port), "/api/answers", {"answers": [answer_of(test)]}, post(At(port), "/api/join", {})[1]["token"])
    process.send_signal(signal.SIGINT)
    assert "1 answers of 1 listeners are stored" in process.communicate(timeout=20)[0] and process.returncode == 0


FULL = """
import resource, sys
from wavelldm.app.listen import open_test
from wavelldm.app.listen_store import Answer, Busy, Store
store, kept = Store(open_test(sys.argv[1])), 0
token = store.invite(1)[0]
me = store.listener(token)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
trial = next(t for t in store.test.trials if not t.practice)
try:
    for i in range(10_000):
        store.add(me.id, [Answer(f"client-{i:06d}", trial.id, trial.stimuli[0], 3)])
        kept += 1
except Busy as error:
    print(kept, error)
"""


def test_a_full_disk_loses_nothing_that_was_acknowledged(test):
    run = subprocess.run([sys.executable, "-c", FULL, str(test.folder)], capture_output=True, text=True)
    kept, _, said = run.stdout.partition(" ")
    assert int(kept) > 10 and "is the disk full?" in said, run.stderr
    store = Store(test)
    assert store.counts() == (1, int(kept))
    store.close()


def test_a_locked_file_is_a_sentence_and_the_answer_is_taken_later(test):
    with serving(test) as server:
        token = post(server, "/api/join", {})[1]["token"]
        server.store._db.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(test.folder / NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        status, facts = post(server, "/api/answers", {"answers": [answer_of(test)]}, token)
        assert status == 503 and "tries again" in facts["error"]
        with pytest.raises(Busy, match="is locked by another program"):
            server.store.add(1, [Answer(**answer_of(test))])
        other.execute("ROLLBACK")
        assert post(server, "/api/answers", {"answers": [answer_of(test)]}, token)[0] == 200
        other.close()


def test_a_damaged_file_and_one_of_another_test_stay_as_they_are(test, make):
    path = test.folder / NAME
    path.write_bytes(b"no database at all, but long enough to look at it" * 50)
    before = path.read_bytes()
    with pytest.raises(DataError, match="is damaged; nothing was changed"):
        Store(test)
    assert path.read_bytes() == before
    path.unlink()
    Store(test).close()
    other = make("ab", "other")
    os.rename(path, other.folder / NAME)
    with pytest.raises(DataError, match="holds ratings of another test"):
        Store(other)


def test_a_file_damaged_in_the_middle_is_seen_at_the_start(test):
    store = Store(test)
    store.invite(500)
    store.close()
    path = test.folder / NAME
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        Store(test)


def test_addresses_that_are_not_ours_are_a_sentence(test):
    store = Store(test)
    with pytest.raises(WavelldmError, match="is no address of this computer"):
        Server(test, store, "203.0.113.7", 0)
    store.close()
