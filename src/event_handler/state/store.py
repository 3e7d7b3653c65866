"""The SQLite file that remembers how far the collector has answered; one process writes it.

Positions, ids of delivered events, announced recordings and dead letters of one acknowledged group go into one transaction, so a
process killed at any moment finds either all of them or none. Journal mode WAL with synchronous=NORMAL: a killed process loses
nothing; a power cut may lose the last commits, which repeats events but never skips one.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from time import time
from typing import Any

import structlog

from event_handler.errors import StateError

FILE = "state.db"
SCHEMA_VERSION = "1"
FINISHED_KEPT = 90 * 86_400.0  # seconds; no event that announces a recording is read again after so long
REMEMBERED_IDS = 2_000_000  # ids, in 8 bytes each; as many as the window of ids knows for certain
LETTERS_AT_ONCE = 10  # each may have some MiB
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (stream TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS delivered (number INTEGER PRIMARY KEY, count INTEGER NOT NULL, ids BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS recordings (
  session_id TEXT PRIMARY KEY, announced REAL NOT NULL, uploaded INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  next_try REAL NOT NULL, next_index INTEGER NOT NULL DEFAULT 0, done REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS recordings_due ON recordings (next_try) WHERE done IS NULL;
CREATE INDEX IF NOT EXISTS recordings_done ON recordings (done) WHERE done IS NOT NULL;
CREATE TABLE IF NOT EXISTS dead_letters (
  number INTEGER PRIMARY KEY, time REAL NOT NULL, sink TEXT NOT NULL, reason TEXT NOT NULL,
  type TEXT NOT NULL, id TEXT NOT NULL, session_id TEXT NOT NULL, body BLOB NOT NULL, retry INTEGER NOT NULL DEFAULT 0);
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RecordingItem:
    """A recording to fetch. Times are seconds since the epoch; `next_index` is the first index not yet delivered."""

    session_id: str
    announced: float
    uploaded: bool
    attempts: int
    next_try: float
    next_index: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that the sink will never take, or bytes that are no event, with the reason."""

    sink: str
    reason: str
    type: str
    id: str
    session_id: str
    body: bytes


@dataclass(slots=True)
class Commit:
    """What one transaction remembers."""

    positions: dict[str, str] = field(default_factory=dict)
    ids: bytes = b""
    recordings: list[RecordingItem] = field(default_factory=list)
    indexes: dict[str, int] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


class Store:
    """The state of one sink in `directory` (made 0700 when missing), or in memory only (`directory` None, a dry run).

    Every method raises StateError when the state cannot be read or written (disk full, read-only); nothing is half done then.
    The constructor raises it also when another process works there, or the file is damaged and the user has not said where to begin
    (`begin_known`).
    """

    def __init__(self, directory: Path | None, copy_from: Path | None = None, *, begin_known: bool = False) -> None:
        self._lock = -1
        self._place = directory or "memory"
        try:
            if directory is not None:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = take_lock(directory / "lock")
                self._db = _open(directory / FILE, begin_known)
            else:
                self._db = sqlite3.connect(":memory:", isolation_level=None)
                if copy_from is not None and copy_from.exists():
                    with closing(sqlite3.connect(f"{copy_from.absolute().as_uri()}?mode=ro", uri=True)) as saved:
                        saved.backup(self._db)
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            reason = error.strerror if isinstance(error, OSError) else error
            raise StateError(
                f"the storage {directory or copy_from} is not usable ({reason})",
                "Point --storage to a directory that this user can write, on a disk that has room.",
            ) from None
        except StateError:
            self._unlock()
            raise
        self.remember("schema", SCHEMA_VERSION)
        self._ids = int(self._do("SELECT coalesce(sum(count), 0) FROM delivered")[0][0])

    def close(self) -> None:
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _unusable(self, error: sqlite3.Error) -> StateError:
        return StateError(
            f"the state in {self._place} cannot be read or written ({error})", "Free space on that disk, and check its permissions."
        )

    def _do(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Run one statement and return its rows."""
        try:
            return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def claim(self, cluster: str) -> None:
        """Note whose state this is. Raises StateError when it belongs to another cluster."""
        owner = self.fact("cluster")
        if owner and owner != cluster:
            raise StateError(
                f"the state belongs to the cluster {owner}, and the credentials are for {cluster}",
                "Name another --storage for this cluster, or use the credentials of the other one.",
            )
        if not owner:
            self.remember("cluster", cluster)

    def fact(self, name: str) -> str:
        rows = self._do("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def remember(self, name: str, value: str) -> None:
        self._do("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def positions(self, prefix: str) -> dict[str, str]:
        """Positions of all streams whose key starts with `prefix`."""
        return dict(self._do("SELECT stream, position FROM positions WHERE substr(stream, 1, ?) = ?", (len(prefix), prefix)))

    def forget(self, prefix: str) -> None:
        """Drop the positions of all streams whose key starts with `prefix`."""
        self._do("DELETE FROM positions WHERE substr(stream, 1, ?) = ?", (len(prefix), prefix))

    def forget_until(self, prefix: str, end: str) -> None:
        """Drop the positions of all streams whose key starts with `prefix` and is less than `end`."""
        self._do("DELETE FROM positions WHERE stream >= ? AND stream < ?", (prefix, end))

    def delivered_ids(self) -> Iterable[bytes]:
        """Packed 8-byte ids of delivered events, oldest group first."""
        for row in self._do("SELECT ids FROM delivered ORDER BY number"):
            yield row[0]

    def commit(self, group: Commit) -> None:
        """Remember a group in one transaction."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", group.facts.items())
            self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", group.positions.items())
            ids = self._ids
            if group.ids:
                self._db.execute("INSERT INTO delivered (count, ids) VALUES (?, ?)", (len(group.ids) // 8, group.ids))
                ids = self._prune(len(group.ids) // 8)
            for item in group.recordings:
                # A session seen again (its upload after its end) only comes due earlier; what was done stays done.
                self._db.execute(
                    "INSERT INTO recordings (session_id, announced, uploaded, attempts, next_try, next_index)"
                    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                    " SET uploaded = max(uploaded, excluded.uploaded), next_try = min(next_try, excluded.next_try)"
                    " WHERE excluded.uploaded > uploaded",
                    (item.session_id, item.announced, item.uploaded, item.attempts, item.next_try, item.next_index),
                )
            for session_id, index in group.indexes.items():
                self._db.execute("UPDATE recordings SET next_index = ? WHERE session_id = ?", (index, session_id))
            self._db.executemany(
                "INSERT INTO dead_letters (time, sink, reason, type, id, session_id, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(time(), d.sink, d.reason, d.type, d.id, d.session_id, d.body) for d in group.dead_letters],
            )
            self._db.execute("COMMIT")
            self._ids = ids
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._unusable(error) from None

    def _prune(self, count: int) -> int:
        """Drop the oldest groups of ids that are too many after one of `count` was added; return how many ids there are then."""
        total = self._ids + count
        while total > REMEMBERED_IDS:
            number, oldest = self._db.execute("SELECT number, count FROM delivered ORDER BY number LIMIT 1").fetchone()
            if total - oldest < REMEMBERED_IDS:
                break
            self._db.execute("DELETE FROM delivered WHERE number = ?", (number,))
            total -= oldest
        return total

    def due_recordings(self, now: float, limit: int, longest_wait: float = inf) -> list[RecordingItem]:
        """Those to ask for now. None waits longer than `longest_wait` seconds: the clock was set back where one seems to."""
        rows = self._do(
            "SELECT session_id, announced, uploaded, attempts, next_try, next_index FROM recordings"
            " WHERE done IS NULL AND (next_try <= ? OR next_try > ?) ORDER BY next_try LIMIT ?",
            (now, now + longest_wait, limit),
        )
        return [RecordingItem(s, a, bool(u), t, n, i) for s, a, u, t, n, i in rows]

    def waiting_recordings(self) -> tuple[int, int]:
        """How many recordings are not finished, and how many of them were never tried."""
        row = self._do("SELECT count(*), coalesce(sum(attempts = 0), 0) FROM recordings WHERE done IS NULL")[0]
        return row[0], row[1]

    def recording_done(self, session_id: str) -> None:
        now = time()
        self._do("UPDATE recordings SET done = ? WHERE session_id = ?", (now, session_id))
        self._do("DELETE FROM recordings WHERE done < ?", (now - FINISHED_KEPT,))

    def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        """Try again at `next_try`; `counted` when it was the recording that failed, not the whole cluster."""
        self._do("UPDATE recordings SET attempts = attempts + ?, next_try = ? WHERE session_id = ?", (counted, next_try, session_id))

    def recordings_due_now(self) -> None:
        """Do not wait any longer for the upload events of sessions that have ended."""
        self._do("UPDATE recordings SET next_try = 0 WHERE done IS NULL AND attempts = 0")

    def recording_again(self, session_id: str) -> None:
        """Ask for a recording that was given up, from now on."""
        self._do(
            "INSERT INTO recordings (session_id, announced, uploaded, next_try) VALUES (?, ?, 1, 0)"
            " ON CONFLICT DO UPDATE SET done = NULL, attempts = 0, next_try = 0",
            (session_id, time()),
        )

    def dead_letters(self) -> int:
        return int(self._do("SELECT count(*) FROM dead_letters")[0][0])

    def dead_letter_bytes(self) -> int:
        return int(self._do("SELECT coalesce(sum(length(body)), 0) FROM dead_letters")[0][0])

    def letters_to_retry(self, after: int = 0) -> list[tuple[int, DeadLetter]]:
        """The next letters, by number, that the user wants to be sent again (`dead-letter retry`), with their numbers."""
        rows = self._do(
            "SELECT number, sink, reason, type, id, session_id, body FROM dead_letters"
            " WHERE retry AND number > ? ORDER BY number LIMIT ?",
            (after, LETTERS_AT_ONCE),
        )
        return [(row[0], DeadLetter(*row[1:])) for row in rows]

    def letter_delivered(self, number: int) -> None:
        self._do("DELETE FROM dead_letters WHERE number = ?", (number,))

    def letter_refused(self, number: int, reason: str) -> None:
        self._do("UPDATE dead_letters SET retry = 0, reason = ? WHERE number = ?", (reason, number))


def _open(path: Path, begin_known: bool) -> sqlite3.Connection:
    """Open the state file and make sure that it is whole; a damaged one is set aside and never silently replaced by nothing."""
    if path.exists() and not _is_whole(path):
        _set_aside(path, "damaged")
    if not path.exists():
        damaged = sorted(path.parent.glob(f"{path.name}.damaged-*"))
        if damaged and not begin_known:
            raise StateError(
                f"the state was damaged and is set aside as {damaged[-1]}, so nobody knows what has been delivered",
                "Start with --start-time at the last event that you have; what follows it is sent, perhaps for the second time.",
            )
        if damaged:
            log.error("the state was damaged and set aside; reading begins at --start-time", file=str(damaged[-1]))
        fresh = path.with_name(f"{path.name}.new")  # renamed when it is whole: an empty file of the right name is always damage
        fresh.unlink(missing_ok=True)
        with closing(sqlite3.connect(fresh)) as made:
            fresh.chmod(0o600)
            made.executescript(_SCHEMA)
        _set_aside(path, "left")  # SQLite would play the log of a file that was moved away into the fresh one
        fresh.rename(path)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    return database


def _set_aside(path: Path, why: str) -> None:
    """Rename the state file and what belongs to it, as far as they are there, to `state.db.<why>-<time>`; the file itself last."""
    aside = path.with_name(f"{path.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    for part in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + part).rename(aside.with_name(aside.name + part))


def _is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as database:
        try:
            return path.stat().st_size > 0 and database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        except sqlite3.OperationalError:
            raise  # not readable, which says nothing about its content
        except sqlite3.DatabaseError:
            return False


def take_lock(path: Path) -> int:
    """Hold an exclusive lock on `path` for the life of the process and write our pid into it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StateError(
            f"another event handler (pid {holder}) works in {path.parent}", "Stop it, or give this one its own --storage."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
