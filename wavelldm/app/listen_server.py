"""The server of a listening test: the page and its sounds, and three small addresses that take JSON.

Standard library only. It answers on this computer unless told otherwise, reads bodies of bounded size, shows only files
of the test, and acknowledges an answer after it is on the disk.

    POST api/join     {"name": "..."}                     -> {"token": "..."}
    GET  api/me       (Authorization: Bearer TOKEN)       -> {"name", "seed", "answers": {trial: {item: value}}}
    POST api/name     {"name": "..."}                     -> {}
    POST api/answers  {"answers": [{client, trial, item, value}, ...]}  -> {"stored": [client, ...]}
"""

import errno
import ipaddress
import json
import logging
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..errors import DataError, WavelldmError
from .listen import ListeningTest, public_files
from .listen_store import Answer, Busy, Listener, Store

BODY = 64 * 1024  # bytes
AT_ONCE = 64  # connections; a browser opens about six
QUIET = 30.0  # seconds after which a silent connection is closed
NAME_LENGTH, BATCH = 80, 200
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".wav": "audio/wav"}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self'; "
POLICY += "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
CLIENT = re.compile(r"[\w-]{8,64}")

logger = logging.getLogger("wavelldm")


class Refused(Exception):
    """An answer with an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def clean_name(value: object) -> str:
    """A listener's own name: one line, no control characters. The page shows it as text, never as HTML."""
    if not isinstance(value, str):
        raise Refused(400, "a name is text")
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())[:NAME_LENGTH]


class Server(ThreadingHTTPServer):
    """`serve_forever` runs it; `store` holds the ratings."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self, test: ListeningTest, store: Store, host: str = "127.0.0.1", port: int = 8000, open_door: bool = True
    ):
        self.test, self.store, self.open_door = test, store, open_door
        self.files = public_files(test)
        self.slots = threading.BoundedSemaphore(AT_ONCE)
        self.local = is_loopback(host)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise WavelldmError(_why(error, host, port)) from None

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_bind(self) -> None:
        """Without the look-up of a name that HTTPServer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.slots.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        logger.debug("a connection ended early", exc_info=True)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by another program; choose another with --port, or --port 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user; choose one above 1023"
    return f"'{host}' is no address of this computer ({error.strerror}); use 127.0.0.1, or 0.0.0.0 for all"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "wavelldm", ""
    timeout = QUIET
    server: Server

    def log_message(self, *args: object) -> None:
        """Tokens and names do not go into logs."""

    # --- answers

    def _send(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        own = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        for name, value in (own | (more or {})).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, facts: dict, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(facts).encode())

    def _answer(self, work: Callable[[], None]) -> None:
        """Every mistake becomes a status and one sentence."""
        try:
            self._check_host()
            work()
        except Refused as error:
            if error.status in (408, 411, 413):  # the body was not read: what follows would be taken for a request
                self.close_connection = True
            self._json({"error": error.sentence}, error.status)
        except Busy as error:
            logger.warning("%s", error)
            self._json({"error": "the server cannot store ratings now; your page keeps them and tries again"}, 503)
        except DataError as error:
            self._json({"error": str(error)}, 409)
        except TimeoutError:
            self.close_connection = True
        except OSError:
            raise
        except Exception:
            logger.exception("a fault of the server")
            self.close_connection = True
            self._json({"error": "a fault of the server"}, 500)

    def _check_host(self) -> None:
        """A page of somebody else, whose name was made to point here (DNS rebinding), has another Host."""
        if not self.server.local:
            return
        host = self.headers.get("Host", "")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if not is_loopback(name):
            raise Refused(421, "this server answers to this computer's own name only")

    # --- requests

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    @property
    def _place(self) -> str:
        return self.path.partition("?")[0].partition("#")[0].removeprefix("/")

    def _get(self) -> None:
        place = self._place or "index.html"
        if place == "api/me":
            me = self._me()
            answers = self.server.store.answers(me.id)
            self._json({"name": me.name, "seed": me.seed, "joined": me.joined, "answers": answers})
        elif place == "mode.js":
            text = f"window.SERVED = true;\nwindow.OPEN_DOOR = {json.dumps(self.server.open_door)};\n"
            self._send(200, TYPES[".js"], text.encode())
        elif place in self.server.files:
            self._file(self.server.files[place])
        else:
            raise Refused(404, "there is nothing here")

    def _file(self, path: Path) -> None:
        kind = TYPES[path.suffix] + ("; charset=utf-8" if path.suffix != ".wav" else "")
        try:
            data = path.read_bytes()
        except OSError:
            raise Refused(404, "this file of the test cannot be read") from None
        more = {"Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or asked[1] == asked[2] == "":
            return self._send(200, kind, data, more)
        size = len(data)
        first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first > last:
            return self._send(416, kind, b"", {"Content-Range": f"bytes */{size}"})
        self._send(206, kind, data[first : last + 1], more | {"Content-Range": f"bytes {first}-{last}/{size}"})

    def _me(self) -> Listener:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        found = self.server.store.listener(token) if scheme == "Bearer" and 0 < len(token) <= 64 else None
        if found is None:
            raise Refused(401, "this link is not known to the test; ask for another")
        return found

    def _body(self) -> dict:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or "Transfer-Encoding" in self.headers:
            raise Refused(411, "say the length of the body")
        if int(length) > BODY:
            raise Refused(413, f"a body has up to {BODY} bytes")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise Refused(408, "the body is shorter than it says")
        if self.headers.get_content_type() != "application/json":  # another site's form cannot send this
            raise Refused(415, "send JSON")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Refused(400, "the body is no JSON object")
        return found

    def _post(self) -> None:
        body, place = self._body(), self._place
        if place == "api/join":
            if not self.server.open_door:
                raise Refused(403, "this test is by invitation; open the link that you were given")
            self._json({"token": self.server.store.join(clean_name(body.get("name", "")))})
        elif place == "api/name":
            self.server.store.rename(self._me().id, clean_name(body.get("name", "")))
            self._json({})
        elif place == "api/answers":
            me, answers = self._me(), self._answers(body.get("answers"))
            self.server.store.add(me.id, answers)
            self._json({"stored": [a.client for a in answers]})
        else:
            raise Refused(404, "there is nothing here")

    def _answers(self, given: object) -> list[Answer]:
        if not isinstance(given, list) or not 0 < len(given) <= BATCH:
            raise Refused(400, f"send a list of 1 to {BATCH} answers")
        found = []
        for one in given:
            if not isinstance(one, dict) or set(one) != {"client", "trial", "item", "value"}:
                raise Refused(400, "an answer has client, trial, item and value")
            if not isinstance(one["client"], str) or not CLIENT.fullmatch(one["client"]):
                raise Refused(400, "the name of an answer has 8 to 64 letters and digits")
            if reason := self.server.test.refuse(one["trial"], one["item"], one["value"]):
                raise Refused(400, reason)
            found.append(Answer(**one))
        return found


def serve(
    test: ListeningTest, host: str = "127.0.0.1", port: int = 8000, invite: int = 0, say: Callable[[str], None] = print
) -> tuple[int, int]:
    """Serve until Ctrl-C -> listeners and answers in the file."""
    store = Store(test)
    try:
        with Server(test, store, host, port, open_door=not invite) as server:
            if not is_loopback(host):
                say("this test can be reached from other computers, and what is sent is not encrypted")
            for token in store.invite(invite):
                say(f"{server.url}#{token}")
            if not invite:
                say(server.url)
            say(f"ratings go to {store.path}; Ctrl-C ends it")
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                pass
        return store.counts()
    finally:
        store.close()
