"""Where ratings are kept: one SQLite file beside the key, in WAL mode, each rating on the disk before it is
acknowledged."""

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import DataError, WavelldmError
from .listen import ListeningTest

NAME = "ratings.db"
MOST_LISTENERS = 10_000
MOST_ANSWERS = 20_000  # of one listener
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS listeners (
  id INTEGER PRIMARY KEY, token TEXT UNIQUE NOT NULL, name TEXT NOT NULL, seed INTEGER NOT NULL, joined REAL);
CREATE TABLE IF NOT EXISTS answers (
  id INTEGER PRIMARY KEY, listener INTEGER NOT NULL REFERENCES listeners(id), client TEXT NOT NULL,
  trial TEXT NOT NULL, item TEXT NOT NULL, value TEXT NOT NULL, at REAL NOT NULL, UNIQUE (listener, client));
"""


class Busy(WavelldmError):
    """The ratings cannot be written now; nothing of what was acknowledged is lost."""


@dataclass(frozen=True)
class Answer:
    """`client`: a name that the listener's page made for it, so that the same answer sent twice counts once."""

    client: str
    trial: str
    item: str
    value: int | str


@dataclass(frozen=True)
class Listener:
    id: int
    name: str
    seed: int
    joined: bool


def hashed(token: str) -> str:
    """Who reads the file cannot rate in a listener's name."""
    return hashlib.sha256(token.encode()).hexdigest()


class Store:
    """The ratings of one test. Every method may be called from any thread."""

    def __init__(self, test: ListeningTest, wait: float = 5.0, write: bool = True):
        self.test, self.path = test, test.folder / NAME
        self._lock = threading.Lock()
        if not write and not self.path.exists():
            raise DataError(f"{test.folder} has no ratings yet; serve the test, or name files that listeners sent back")
        try:
            self._db = sqlite3.connect(self.path, timeout=wait, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # in WAL mode less would lose the last ratings with the power
            if self._db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check")
            self._db.executescript(SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO facts VALUES ('test', ?)", (test.id,))
            (owner,) = self._db.execute("SELECT value FROM facts WHERE name = 'test'").fetchone()
        except sqlite3.OperationalError as error:
            raise self._busy(error) from None
        except sqlite3.DatabaseError:
            raise DataError(
                f"{self.path} is damaged; nothing was changed: put back a copy, or move it away to start anew"
            ) from None
        if owner != test.id:
            self.close()
            raise DataError(f"{self.path} holds ratings of another test; move it to the folder of that test")

    def _busy(self, error: sqlite3.Error) -> Busy:
        text = str(error)
        if "lock" in text or "busy" in text:
            return Busy(f"{self.path} is locked by another program; end it and try again")
        if "full" in text or "disk I/O" in text:
            return Busy(f"{self.path} could not be written; is the disk full?")
        if "readonly" in text or "unable to open" in text:
            return Busy(f"{self.path} cannot be written to; check its permissions")
        return Busy(f"{self.path} could not be used ({text}); try again")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; on the disk when it ends."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise self._busy(error) from None

    def invite(self, number: int) -> list[str]:
        """Tokens for so many listeners, who need not exist yet."""
        tokens = [secrets.token_urlsafe(16) for _ in range(number)]
        with self._transaction() as db:
            rows = [(hashed(token), "", secrets.randbelow(2**31)) for token in tokens]
            db.executemany("INSERT INTO listeners (token, name, seed) VALUES (?, ?, ?)", rows)
        return tokens

    def join(self, name: str) -> str:
        """A token for somebody who came by."""
        with self._transaction() as db:
            if db.execute("SELECT COUNT(*) FROM listeners").fetchone()[0] >= MOST_LISTENERS:
                raise DataError("this test has as many listeners as it takes")
            token = secrets.token_urlsafe(16)
            row = (hashed(token), name, secrets.randbelow(2**31), time.time())
            db.execute("INSERT INTO listeners (token, name, seed, joined) VALUES (?, ?, ?, ?)", row)
        return token

    def listener(self, token: str) -> Listener | None:
        with self._lock:
            try:
                row = self._db.execute(
                    "SELECT id, name, seed, joined FROM listeners WHERE token = ?", (hashed(token),)
                ).fetchone()
            except sqlite3.OperationalError as error:
                raise self._busy(error) from None
        return None if row is None else Listener(row[0], row[1], row[2], row[3] is not None)

    def rename(self, listener: int, name: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE listeners SET name = ?, joined = ? WHERE id = ?", (name, time.time(), listener))

    def add(self, listener: int, answers: Iterable[Answer]) -> None:
        """Store answers; those already there stay. When this returns they are on the disk."""
        now = time.time()
        rows = [(listener, a.client, a.trial, a.item, json.dumps(a.value), now) for a in answers]
        with self._transaction() as db:
            held = db.execute("SELECT COUNT(*) FROM answers WHERE listener = ?", (listener,)).fetchone()[0]
            if held + len(rows) > MOST_ANSWERS:
                raise DataError("this listener has given more answers than the test takes")
            db.executemany(
                "INSERT OR IGNORE INTO answers (listener, client, trial, item, value, at) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )

    def answers(self, listener: int) -> dict[str, dict[str, int | str]]:
        """{trial: {item: the last value}} of one listener."""
        found = self.everything(listener)
        return found[0][2] if found else {}

    def everything(self, only: int | None = None) -> list[tuple[str, str, dict]]:
        """(listener, name, {trial: {item: the last value}}) of all who have answered, or of one of them."""
        with self._lock:
            try:
                names = dict(self._db.execute("SELECT id, name FROM listeners"))
                rows = self._db.execute(
                    "SELECT listener, trial, item, value FROM answers WHERE ? IS NULL OR listener = ? ORDER BY id",
                    (only, only),
                ).fetchall()
            except sqlite3.OperationalError as error:
                raise self._busy(error) from None
        found: dict[int, dict] = {}
        for listener, trial, item, value in rows:
            found.setdefault(listener, {}).setdefault(trial, {})[item] = json.loads(value)
        return [(f"listener {i}", names.get(i, ""), trials) for i, trials in found.items()]

    def counts(self) -> tuple[int, int]:
        """Listeners who have answered, and their answers."""
        with self._lock:
            return self._db.execute("SELECT COUNT(DISTINCT listener), COUNT(*) FROM answers").fetchone()

    def close(self) -> None:
        with self._lock:
            self._db.close()
