"""Downloads, against a server on this machine that breaks off, lies, forgets and corrupts."""

import errno
import hashlib
import io
import shutil
import socket
import stat
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from wavelldm.data import download
from wavelldm.errors import DataError

SOUND = np.random.default_rng(0).integers(0, 256, 600_000, dtype=np.uint8).tobytes()
TEXT = "one two three\n" * 9


def make_zip(members: dict) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return memory.getvalue()


def make_tar(members: dict, compression: str = "bz2") -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=f"w:{compression}") as archive:
        for name, content in members.items():
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return memory.getvalue()


ZIP = make_zip({"speech/": "", "speech/a.wav": SOUND, "speech/deep/b.txt": TEXT, "__MACOSX/speech/._a.wav": "x"})


class Handler(BaseHTTPRequestHandler):
    """Serves `site.body`; each request takes the next of `site.moods`, the last of which stays."""

    def do_GET(self):
        site = self.server.site
        mood = site.moods.pop(0) if len(site.moods) > 1 else site.moods[0]
        site.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if isinstance(mood, int):
            return self.send_error(mood)
        body, first = site.body, 0
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if wanted and mood != "forgetful" and condition in (None, site.etag):
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                return self.end_headers()
        shift = 1 if mood == "shifted" else 0  # another range than the one asked for
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first + shift}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Type", "text/html" if mood == "page" else "application/octet-stream")
        if mood != "silent":
            promised = len(body) - first + {"promises more": 100, "promises less": -100}.get(mood, 0)
            self.send_header("Content-Length", str(promised))
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        rest = body[first + shift :]
        self.wfile.write(rest[: len(rest) // 2] if mood == "breaks off" else rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server with one data set, 'small', and a data folder to fetch it into."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.site = SimpleNamespace(body=ZIP, etag='"1"', moods=["good"], asked=[])
    server.site.home = tmp_path / "home"
    server.site.root = tmp_path / "home" / "small"
    server.site.table = tmp_path / "sources.toml"

    def declare(body=ZIP, file="a.zip", exact=True, checksum=None, port=server.server_port, addresses=1):
        server.site.body = body
        checksum = checksum or "sha256:" + hashlib.sha256(body).hexdigest()
        urls = [f"http://127.0.0.1:{port}/{i}/{file}" for i in range(addresses)]
        server.site.table.write_text(
            f'[small]\ntitle = "t"\nhome = "http://home"\nlicence = "free"\ncredit = "c"\n[[small.archives]]\n'
            f'file = "{file}"\nurls = {urls}\n{"bytes" if exact else "about_bytes"} = {len(body)}\n'
            f'checksum = "{checksum}"\nunpacks_to = "speech"\nunpacked_bytes = 700_000\n'
        )

    server.site.declare = declare
    server.site.get = lambda: download.get("small", server.site.home, progress=False)
    declare()
    monkeypatch.setattr(download, "_toml", lambda: server.site.table)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server.site
    server.shutdown()
    server.server_close()
    thread.join()


def content(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != download.MARK
    }


WHOLE = {"speech/a.wav": SOUND, "speech/deep/b.txt": TEXT.encode()}


def test_fetches_unpacks_and_leaves_nothing_else(site):
    assert site.get() == site.root / "speech"
    assert content(site.root) == WHOLE
    assert site.asked == [("/0/a.zip", None, None)]


def test_several_archives_lie_side_by_side_and_only_what_is_missing_is_fetched(site):
    site.declare()
    table = site.table.read_text()
    second = table[table.index("[[") :].replace('"speech"', '"twin"').replace("a.zip", "b.zip")
    site.table.write_text(table + second)
    assert site.get() == site.root
    assert content(site.root) == {**WHOLE, **{name.replace("speech", "twin"): body for name, body in WHOLE.items()}}
    shutil.rmtree(site.root / "speech")
    site.asked.clear()
    site.get()
    assert [path for path, _, _ in site.asked] == ["/0/a.zip"]


def test_a_second_call_asks_nothing(site):
    site.get()
    site.asked.clear()
    start = time.perf_counter()
    assert site.get() == site.root / "speech"
    assert site.asked == [] and time.perf_counter() - start < 1


def test_the_default_folder_is_the_data_home(site, monkeypatch, tmp_path):
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "mine"))
    assert download.get("small", progress=False) == tmp_path / "mine" / "small" / "speech"
    assert content(tmp_path / "mine" / "small") == WHOLE


def test_resumes_after_a_break_with_a_range_request(site):
    site.moods = ["breaks off", "good"]
    site.get()
    assert content(site.root) == WHOLE
    assert site.asked[1:] == [("/0/a.zip", f"bytes={len(ZIP) // 2}-", '"1"')]


def test_resumes_in_a_later_run_what_ctrl_c_left(site, monkeypatch):
    class Impatient(download.tqdm):
        def update(self, n=1):
            if n > 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(download, "CHUNK", 100_000)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "_bar", lambda *settings: Impatient(disable=True))
        site.get()
    assert content(site.root) == {"a.zip.part": ZIP[:100_000], "a.zip.part.tag": b'"1"'}
    site.get()
    assert content(site.root) == WHOLE
    assert site.asked[1] == ("/0/a.zip", "bytes=100000-", '"1"')


def test_a_file_that_changed_between_two_runs_begins_anew(site):
    site.moods = ["breaks off", 404]
    with pytest.raises(DataError):
        site.get()
    site.etag, site.moods = '"2"', ["good"]
    site.declare(make_zip({"speech/a.wav": SOUND[::-1]}))
    site.get()
    assert content(site.root) == {"speech/a.wav": SOUND[::-1]}


@pytest.mark.parametrize("mood", ["forgetful", "shifted"])
def test_a_server_that_ignores_or_mistakes_the_range_is_read_from_the_start(site, mood):
    site.moods = ["breaks off", mood, "good"]
    site.get()
    assert content(site.root) == WHOLE


def test_breaking_off_for_ever_ends_in_one_sentence_and_keeps_the_part(site):
    site.moods = ["breaks off", 503]
    with pytest.raises(DataError, match="answers 503 .* 0.3 MB of a.zip have arrived and are kept; run .* again"):
        site.get()
    assert (site.root / "a.zip.part").read_bytes() == ZIP[: len(ZIP) // 2]
    assert len(site.asked) == 1 + download.TRIES


def test_a_busy_server_is_asked_again(site):
    site.moods = [503, "good"]
    site.get()
    assert content(site.root) == WHOLE


@pytest.mark.parametrize("mood", ["promises more", "promises less"])
def test_a_length_that_is_not_the_known_one_is_refused_before_the_download(site, mood):
    site.moods = [mood]
    with pytest.raises(DataError, match=f"offers .* bytes for a.zip where {len(ZIP):,} are expected"):
        site.get()
    assert content(site.root) == {}


def test_too_long_a_promise_where_no_length_is_known_ends_whole(site):
    """The end comes early, the resume asks for more, 416 says that there is no more, the checksum that all is there."""
    site.declare(exact=False)
    site.moods = ["promises more", "good"]
    site.get()
    assert content(site.root) == WHOLE
    assert [wanted for _, wanted, _ in site.asked] == [None, f"bytes={len(ZIP)}-"]


def test_too_short_a_promise_where_no_length_is_known_is_caught_by_the_checksum(site):
    site.declare(exact=False)
    site.moods = ["promises less"]
    with pytest.raises(DataError, match="wrong checksum"):
        site.get()
    assert not (site.root / "a.zip.part").exists() and not (site.root / "speech").exists()


def test_more_bytes_than_promised_by_the_table_are_refused(site):
    site.body, site.moods = ZIP + b"more", ["silent"]
    with pytest.raises(DataError, match="sends more than"):
        site.get()


def test_no_length_at_all_is_fine(site):
    site.moods = ["silent"]
    site.get()
    assert content(site.root) == WHOLE


def test_a_corrupted_file_is_removed_and_named(site):
    site.body = ZIP[:5000] + bytes([ZIP[5000] ^ 1]) + ZIP[5001:]
    with pytest.raises(DataError, match="^127.0.0.1 sent a.zip with a wrong checksum, it was removed; run .* again"):
        site.get()
    assert content(site.root) == {}
    site.body = ZIP
    site.get()
    assert content(site.root) == WHOLE


def test_md5_is_a_checksum_too(site):
    site.declare(checksum="md5:" + hashlib.md5(ZIP).hexdigest())
    site.get()
    assert content(site.root) == WHOLE


REFUSALS = [(404, "answers 404 Not Found"), (403, "answers 403"), (416, "answers 416"), ("page", "web page")]


@pytest.mark.parametrize("mood, sentence", REFUSALS)
def test_refusals_are_one_sentence_with_the_way_out(site, mood, sentence):
    site.moods = [mood]
    way_out = "; run the command again later, or first put a.zip from"
    with pytest.raises(DataError, match=f"^127.0.0.1 .*{sentence}.*{way_out}") as caught:
        site.get()
    assert "\n" not in str(caught.value) and len(site.asked) == 1


def test_a_second_address_serves_when_the_first_does_not(site):
    site.declare(addresses=2)
    site.moods = [404, "good"]
    site.get()
    assert content(site.root) == WHOLE
    assert [path for path, _, _ in site.asked] == ["/0/a.zip", "/1/a.zip"]


def test_a_port_where_nobody_listens(site):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site.declare(port=port)
    with pytest.raises(DataError, match=r"^127.0.0.1 cannot be reached \(Connection refused\); run"):
        site.get()


def test_an_archive_put_there_by_hand_needs_no_network(site):
    site.root.mkdir(parents=True)
    (site.root / "a.zip").write_bytes(ZIP)
    site.get()
    assert content(site.root) == WHOLE and site.asked == []


def test_a_wrong_archive_put_there_by_hand_is_named_and_left_alone(site):
    site.root.mkdir(parents=True)
    (site.root / "a.zip").write_bytes(b"mine")
    with pytest.raises(DataError, match="a.zip has not the checksum"):
        site.get()
    assert content(site.root) == {"a.zip": b"mine"}


def test_the_disk_space_is_checked_before_the_first_request(site, monkeypatch):
    need = len(ZIP) + 700_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=need - 1))
    with pytest.raises(DataError, match=r"needs 0.00 GB and the disk has 0.00 GB free; make room"):
        site.get()
    assert site.asked == [] and not site.root.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=need))
    site.get()
    assert content(site.root) == WHOLE


def test_what_has_arrived_needs_no_room_again(site, monkeypatch):
    site.moods = ["breaks off", 404]
    with pytest.raises(DataError):
        site.get()
    site.moods = ["good"]
    need = len(ZIP) - len(ZIP) // 2 + 700_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=need))
    site.get()
    assert content(site.root) == WHOLE


def test_room_is_the_peak_over_several_archives(tmp_path, monkeypatch):
    """Two archives of 10 and 30 bytes that unpack to 20 and 35: 20 kept, then 30 + 35 beside them."""
    archives = [{"file": "a", "bytes": 10, "unpacked_bytes": 20}, {"file": "b", "bytes": 30, "unpacked_bytes": 35}]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=85))
    download._check_room(tmp_path, archives)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=84))
    with pytest.raises(DataError):
        download._check_room(tmp_path, archives)


def test_a_disk_that_fills_up_is_one_sentence_and_the_download_is_kept(site, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    sentence = r"cannot be written \(the disk is full\); make room"
    with monkeypatch.context() as patch, pytest.raises(DataError, match=sentence):
        patch.setattr(shutil, "copyfileobj", full)
        site.get()
    assert content(site.root) == {"a.zip": ZIP}
    site.asked.clear()
    site.get()
    assert content(site.root) == WHOLE and site.asked == []


def test_a_disk_that_fills_up_during_the_download_is_not_taken_for_a_bad_network(site, monkeypatch):
    def full(path, mode="r"):
        if mode == "wb":
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode)

    monkeypatch.setattr(download, "open", full, raising=False)
    with pytest.raises(DataError, match="the disk is full"):
        site.get()
    assert len(site.asked) == 1


def test_an_interrupted_unpacking_leaves_no_half_folder_and_is_made_good(site, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfileobj", stop)
        site.get()
    assert content(site.root) == {"a.zip": ZIP}
    killed = site.root / ".speech.unpacking" / "speech"  # what a killed run would leave
    killed.mkdir(parents=True)
    (killed / "half.wav").write_bytes(b"half")
    site.get()
    assert content(site.root) == WHOLE and sorted(p.name for p in site.root.iterdir()) == ["speech"]


def test_a_folder_of_ones_own_is_not_touched(site):
    (site.root / "speech").mkdir(parents=True)
    (site.root / "speech" / "mine.wav").write_bytes(b"mine")
    with pytest.raises(DataError, match="already there"):
        site.get()
    assert content(site.root) == {"speech/mine.wav": b"mine"} and site.asked == []


def test_loose_files_get_the_folder_they_lack(site):
    site.declare(make_zip({"log.txt": TEXT, "readme.txt": TEXT}))
    site.get()
    assert sorted(content(site.root)) == ["speech/log.txt", "speech/readme.txt"]


@pytest.mark.parametrize("compression", ["gz", "bz2"])
def test_tar_archives(site, compression):
    body = make_tar({"LJ/wavs/a.wav": SOUND, "LJ/b.txt": TEXT.encode()}, compression)
    site.declare(body, file=f"a.tar.{compression}")
    site.get()
    assert content(site.root) == {"speech/wavs/a.wav": SOUND, "speech/b.txt": TEXT.encode()}


def link(name, kind, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def zip_link():
    entry = zipfile.ZipInfo("speech/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


EVIL = {
    "zip up": ("a.zip", lambda out: make_zip({"speech/a.wav": SOUND, "../evil": "x"})),
    "zip up inside": ("a.zip", lambda out: make_zip({"speech/../../evil": "x"})),
    "zip absolute": ("a.zip", lambda out: make_zip({f"{out}/evil": "x"})),
    "zip backslash": ("a.zip", lambda out: make_zip({"..\\evil": "x"})),
    "zip drive": ("a.zip", lambda out: make_zip({"C:evil": "x"})),
    "zip symlink": ("a.zip", lambda out: make_zip({zip_link(): str(out), "speech/link/evil": "x"})),
    "tar up": ("a.tar.bz2", lambda out: make_tar({"speech/a.wav": SOUND, "../evil": b"x"})),
    "tar absolute": ("a.tar.bz2", lambda out: make_tar({f"{out}/evil": b"x"})),
    "tar symlink": ("a.tar.bz2", lambda out: make_tar({link("s", tarfile.SYMTYPE, str(out)): b"", "s/evil": b"x"})),
    "tar hard link": ("a.tar.bz2", lambda out: make_tar({link("s/link", tarfile.LNKTYPE, f"{out}/secret"): b""})),
    "tar device": ("a.tar.bz2", lambda out: make_tar({link("s/null", tarfile.CHRTYPE, ""): b""})),
    "tar fifo": ("a.tar.bz2", lambda out: make_tar({link("s/pipe", tarfile.FIFOTYPE, ""): b""})),
}


@pytest.mark.parametrize("case", EVIL)
def test_an_archive_cannot_reach_out_of_its_folder(site, tmp_path, case):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    file, build = EVIL[case]
    site.declare(build(outside), file=file)
    with pytest.raises(DataError, match="leads out of its folder|link or device") as caught:
        site.get()
    assert "do not trust" in str(caught.value)
    assert [p.name for p in outside.iterdir()] == ["secret"] and not list(tmp_path.rglob("*evil*"))
    assert [p.name for p in site.root.iterdir()] == [file]


DAMAGED = [("a.zip", ZIP[:-50]), ("a.tar.bz2", make_tar({"a": SOUND})[:-5000]), ("a.tar.gz", b"no tar")]


@pytest.mark.parametrize("file, body", DAMAGED)
def test_an_archive_that_is_damaged_at_its_home_is_named(site, file, body):
    site.declare(body, file=file)
    with pytest.raises(DataError, match=f"{file} cannot be unpacked"):
        site.get()
    assert not (site.root / "speech").exists()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DataError, match="no data set 'vctk' .* voicebank-demand, ljspeech, librispeech-dev-clean"):
        download.get("vctk")


def test_the_table_of_sources_is_well_formed():
    table = {source["name"]: source for source in download.sources()}
    assert set(table) == {"voicebank-demand", "ljspeech", "librispeech-dev-clean"}
    for source in table.values():
        assert source["licence"] and source["title"] and source["credit"] and source["home"].startswith("https://")
        assert source["size"] > 1e8 and source["unpacked"] >= source["size"]
        assert len({archive["unpacks_to"] for archive in source["archives"]}) == len(source["archives"])
        for archive in source["archives"]:
            assert archive["urls"] and all(url.startswith("https://") for url in archive["urls"])
            assert ("bytes" in archive) != ("about_bytes" in archive)
            assert archive["file"].endswith((".zip", ".tar.gz", ".tar.bz2"))
            algorithm, digest = archive["checksum"].split(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[algorithm] and int(digest, 16)
            assert "/" not in archive["unpacks_to"] and "/" not in archive["file"]
