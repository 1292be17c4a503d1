"""The server: what it serves, to whom, and with which headers; and the built page that is committed."""

import hashlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path

import pytest

from wavelldm.app import web_server
from wavelldm.cli import web
from wavelldm.errors import WavelldmError

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
MODELS = (
    "base16k.onnx", "base16k-mask.safetensors", "studio16k.onnx", "studio16k.safetensors",
    "voice16k-decoder.onnx", "voice16k-encoder.onnx", "voice16k.safetensors",
)  # fmt: skip
# the page loads them when somebody first wants them
LATER = ("restore16k-filler.onnx", "restore16k-filler.safetensors", "restore16k-latent.safetensors")
TALK = ("voice16k-live-decoder.onnx", "voice16k-live-encoder.onnx", "voice16k-live.safetensors")  # also later


def ask(server, path: str, method: str = "GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_the_page_is_isolated_and_may_load_nothing_from_elsewhere(server):
    answer, body = ask(server, "/")
    assert answer.status == 200 and b"<title>wavelldm" in body
    assert answer.getheader("Cross-Origin-Opener-Policy") == "same-origin"
    assert answer.getheader("Cross-Origin-Embedder-Policy") == "require-corp"
    policy = dict(part.strip().split(" ", 1) for part in answer.getheader("Content-Security-Policy").split(";"))
    assert policy.pop("default-src") == "'none'"
    allowed = {word for sources in policy.values() for word in sources.split()}
    assert allowed == {"'self'", "'none'", "'wasm-unsafe-eval'"}
    assert answer.getheader("Cache-Control") == "no-cache"


@pytest.mark.parametrize("name", ["main.js", "sw.js", "style.css", "manifest.webmanifest", "models/base16k.onnx"])
def test_a_file_comes_whole_and_once(server, name):
    answer, body = ask(server, f"/{name}")
    assert answer.status == 200 and len(body) == int(answer.getheader("Content-Length")) > 0
    head, nothing = ask(server, f"/{name}", "HEAD")
    assert head.getheader("Content-Length") == answer.getheader("Content-Length") and nothing == b""
    again, nothing = ask(server, f"/{name}", **{"If-None-Match": answer.getheader("ETag")})
    assert (again.status, nothing) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/../weights/base16k.json", "/%2e%2e/weights/base16k.json", "/models/../../errors.py", "/models/base16k.json",
     "//etc/passwd", "/models", "/models/", "/nothing.js", "/..%5cerrors.py", "/build.json/"],
)  # fmt: skip
def test_no_path_leads_out_of_what_is_served(server, path):
    answer, body = ask(server, path)
    assert answer.status == 404 and len(body) < 100


def test_other_names_for_this_machine_are_refused(server):
    assert ask(server, "/", Host="evil.example:80")[0].status == 403
    assert ask(server, "/", Host=f"localhost:{server.server_address[1]}")[0].status == 200


def test_only_this_machine_is_served(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_gives_a_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(WavelldmError, match="taken by another program"):
            web_server.Server(other.getsockname()[1])


def test_a_page_that_was_not_built_gives_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(web_server, "PAGE", tmp_path)
    with pytest.raises(WavelldmError, match="make web"):
        web_server.Server(0)


def test_the_help_names_the_port_that_is_used():
    assert web.PORT == web_server.PORT


def hashed(folder: Path, names: list[str]) -> str:
    found = hashlib.sha256()
    for name in sorted(names):
        found.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return found.hexdigest()


def test_the_committed_page_was_built_from_these_sources():
    facts = json.loads((web_server.PAGE / "build.json").read_text())
    inside = [f"src/{path.name}" for path in (WEB / "src").iterdir()]
    sources = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json", *inside]
    assert facts["sources"] == hashed(WEB, sources), "the sources have changed: run `make web`"
    assert facts["models"] == hashed(web_server.WEIGHTS, [*MODELS, *LATER, *TALK]), (
        "the graphs have changed: run `make web`"
    )
    built = [path.name for path in web_server.PAGE.iterdir() if path.name not in ("build.json", "sw.js")]
    assert facts["page"] == hashed(web_server.PAGE, built), "the page has changed: run `make web`"


def test_the_service_worker_keeps_every_file_that_the_page_needs():
    kept = set(json.loads(re.search(r"\[\"\./\".*?\]", (web_server.PAGE / "sw.js").read_text())[0]))
    page = {path.name for path in web_server.PAGE.iterdir()} - {"index.html", "build.json", "sw.js"}
    assert kept == {"./"} | page | {f"models/{name}" for name in MODELS}


def test_the_page_with_all_its_networks_is_small_in_a_wheel():
    def packed(path: Path) -> int:  # as pip packs it
        return len(zlib.compress(path.read_bytes(), 6))

    page = sum(packed(path) for path in web_server.PAGE.iterdir())
    networks = sum(packed(web_server.WEIGHTS / name) for name in (*MODELS, *LATER))
    talk = sum(packed(web_server.WEIGHTS / name) for name in TALK)
    assert page < 4e6 and page + networks < 12e6 and talk < 4e6


def test_the_list_of_packages_names_no_server():
    text = (WEB / "package-lock.json").read_text()
    assert "://" not in text and '"resolved"' not in text and '"integrity"' in text


def test_the_built_page_is_committed():
    known = subprocess.run(["git", "ls-files", "wavelldm/web"], cwd=ROOT, capture_output=True, text=True)
    if known.returncode == 0:  # not in a copy without a history
        assert {Path(line).name for line in known.stdout.split()} == {p.name for p in web_server.PAGE.iterdir()}


def test_the_command_serves_until_it_is_stopped():
    command = [sys.executable, "-m", "wavelldm", "web", "--port", "0", "--no-open"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stdout.readline().split()[0]
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert b"<title>wavelldm" in answer.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0 and process.stderr.read() == ""
