"""The server of the browser app: it gives the built page and the graphs to this machine alone.

What it serves is a fixed list of files, so no path leads elsewhere. The page is isolated (COOP and COEP), which shared
memory between its threads needs, and may load nothing from other places (CSP).
"""

import hashlib
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import WavelldmError

PAGE = Path(__file__).parent.parent / "web"
WEIGHTS = Path(__file__).parent.parent / "weights"
PORT = 8642
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".gz": "application/gzip",
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
}
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # keep it, but ask whether it has changed
}


def served() -> dict[str, Path]:
    """Path of the address -> file, of all that is served."""
    if not (PAGE / "index.html").is_file():
        raise WavelldmError("the browser app has not been built; run: make web")
    files = {f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in KINDS}
    files |= {f"/models/{path.name}": path for path in WEIGHTS.iterdir() if path.suffix in (".onnx", ".safetensors")}
    return files | {"/": PAGE / "index.html", "/favicon.ico": PAGE / "icon-192.png"}


@lru_cache(maxsize=64)
def content(path: Path, changed: int) -> tuple[bytes, str]:
    """The bytes of a file and a name for them. `changed`: when it was written."""
    data = path.read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:32]}"'


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the files of the list."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "wavelldm", ""
    server: "Server"

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in ("localhost", "127.0.0.1"):  # a name that somebody else points to this machine
            return self.send(HTTPStatus.FORBIDDEN, b"Open this page as localhost.\n", ".html", with_body)
        path = self.server.files.get(unquote(urlsplit(self.path).path))
        if path is None:
            return self.send(HTTPStatus.NOT_FOUND, b"There is no such page here.\n", ".html", with_body)
        data, tag = content(path, path.stat().st_mtime_ns)
        if self.headers.get("If-None-Match") == tag:
            return self.send(HTTPStatus.NOT_MODIFIED, b"", path.suffix, False, tag)
        self.send(HTTPStatus.OK, data, path.suffix, with_body, tag)

    def send(self, status: HTTPStatus, data: bytes, suffix: str, with_body: bool, tag: str = "") -> None:
        self.send_response(status)
        headers = HEADERS | {"Content-Type": KINDS[suffix], "Content-Length": str(len(data))}
        if status == HTTPStatus.NOT_MODIFIED:
            del headers["Content-Length"]
        for name, value in (headers | ({"ETag": tag} if tag else {})).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a terminal is no place for a list of requests."""


class Server(ThreadingHTTPServer):
    """On loopback alone. `port` 0: any that is free."""

    daemon_threads = True

    def __init__(self, port: int = PORT):
        self.files = served()
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError:
            raise WavelldmError(
                f"port {port} is taken by another program; choose another: --port 0 finds one"
            ) from None

    @property
    def address(self) -> str:
        return f"http://localhost:{self.server_address[1]}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle of an answer is no fault."""
