"""The SQLite file that remembers how far the collector has answered; one process writes it.

Positions, ids of delivered events, pending recordings and dead letters of one acknowledged group go into one
transaction, so a process killed at any moment finds either all of them or none. Journal mode WAL with
synchronous=NORMAL: a killed process loses nothing; a power cut may lose the last commits, which repeats events but
never skips one. All SQL runs on one thread of the store's own, so that a slow disk holds up nothing else.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial, wraps
from math import inf
from pathlib import Path
from time import time
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from event_handler.checkpoint import Chunk, Progress, RecordingCheckpoint
from event_handler.errors import StateError, StorageError
from event_handler.ports import REMEMBERED_IDS, Commit, DeadLetter, FailedLogin, RecordingItem
from event_handler.state import file, keys
from event_handler.state.access import usable
from event_handler.state.lock import LOCK, take_lock
from event_handler.state.schema import CREATED, damaged
from event_handler.thread import InPlace, WorkerThread

FINISHED_KEPT = 90 * 86_400.0  # seconds; no event that announces a recording is read again after so long
LETTERS_AT_ONCE = 10  # each may have some MiB
FORGOTTEN_AT_ONCE = 2000  # rows, some milliseconds
WRITERS_WAITED_FOR = 5000  # milliseconds; `dead-letter retry` and `drop` write for some of them
READERS_WAITED_FOR = 50  # milliseconds, for deliveries wait meanwhile
LONGEST_CLOSE = 10.0  # seconds for what is still being written, on a disk that hangs
FILE = file.FILE

P = ParamSpec("P")
R = TypeVar("R")
Method = Callable[Concatenate["SqliteStore", P], R]


def on_its_thread(method: Method[P, R]) -> Callable[Concatenate[SqliteStore, P], Coroutine[Any, Any, R]]:
    """Make a method that asks SQLite one that does so on the store's thread."""

    @wraps(method)
    async def call(store: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await store.thread.run(partial(method, store, *args, **kwargs))

    return call


class SqliteStore:
    """The state of one sink in `directory` (made 0700 when missing), or in memory only (`directory` None, a dry run).

    A StateStore. The constructor raises StateError when the file cannot be used, when another process works there, or
    when the file is damaged and the user has not said where to begin (`begin_known`). `existing`: the file must be
    there, and stays where it is when it is damaged.
    """

    def __init__(
        self,
        directory: Path | None,
        copy_from: Path | None = None,
        *,
        begin_known: bool = False,
        existing: bool = False,
    ) -> None:
        self._lock = -1
        self._ids: int | None = None
        self._place = directory / FILE if directory else copy_from or Path("memory")
        self._unsettled = directory is not None  # the first position is not in the file itself yet
        if directory is None:
            self._db = file.copy_into_memory(self._place)
        else:
            with usable(directory):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = take_lock(directory / LOCK)
            try:
                self._db = (
                    file.open_existing(self._place)
                    if existing
                    else file.open_to_work(self._place, begin_known=begin_known)
                )
            except BaseException:
                self._unlock()
                raise
        self.thread: WorkerThread | InPlace = InPlace() if directory is None else WorkerThread("state")

    @classmethod
    def to_read(cls, path: Path) -> SqliteStore:
        """The state in the file `path`, to look at while another process may work on it."""
        return cls.over(file.open_to_read(path), path)

    @classmethod
    def over(cls, database: sqlite3.Connection, place: Path) -> Self:
        """The state in an open database that no other process writes, called `place` in errors."""
        store = cls.__new__(cls)
        store._attach(database, place)
        return store

    def _attach(self, database: sqlite3.Connection, place: Path) -> None:
        self._lock, self._ids, self._place, self._unsettled = -1, None, place, False
        self._db = database
        self.thread = WorkerThread("state")

    async def finish(self) -> None:
        """Each commit was in the file when it ended."""

    def close(self) -> None:
        if self.thread.stop(LONGEST_CLOSE):  # else SQLite hangs in it, and the end of the process closes the file
            self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _unusable(self, error: sqlite3.Error) -> StateError:
        return StateError(
            f"the state in {self._place} cannot be read or written ({error})",
            "Free space on that disk, and check its permissions.",
        )

    def _rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        try:
            return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Whatever is written within is one transaction: all of it or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        finally:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")

    # How far reading is

    @on_its_thread
    def claim(self, cluster: str) -> None:
        owner = self._fact(keys.CLUSTER)
        if owner and owner != cluster:
            raise StorageError(
                f"the state belongs to the cluster {owner}, and the credentials are for {cluster}",
                "Name another --storage for this cluster, or use the credentials of the other one.",
            )
        if not owner:
            self._rows("INSERT INTO facts VALUES (?, ?)", (keys.CLUSTER, cluster))

    @on_its_thread
    def is_new(self) -> bool:
        return bool(self._fact(CREATED))

    @on_its_thread
    def start(self) -> float | None:
        saved = self._fact(keys.START_TIME)
        return float(saved) if saved else None

    @on_its_thread
    def begin(self, asked: float | None) -> float:
        if saved := self._fact(keys.START_TIME):
            return float(saved)
        created = self._fact(CREATED)
        if asked is None and not created:
            raise damaged(self._place, "it does not say where reading began")
        begin = float(int(float(created) if asked is None else asked))
        self._commit(Commit(start=begin))
        return begin

    @on_its_thread
    def note(self, name: str) -> str:
        return self._fact(name)

    def _fact(self, name: str) -> str:
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    @on_its_thread
    def progress(self) -> Progress:
        facts = dict(self._rows("SELECT name, value FROM facts"))
        return keys.progress(facts, self._rows("SELECT stream, position FROM positions"))

    @on_its_thread
    def close_days(self, first: date) -> None:
        with self._together():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (keys.FIRST_DAY, str(first)))
            self._db.execute("DELETE FROM positions WHERE stream >= ? AND stream < ?", keys.chunks_before(first))

    @on_its_thread
    def last_id_passed(self) -> None:
        self._rows("DELETE FROM facts WHERE name = ?", (keys.LAST_ID,))

    @on_its_thread
    def delivered_ids(self) -> list[bytes]:
        return [row[0] for row in self._rows("SELECT ids FROM delivered ORDER BY number")]

    # One process works on a file, so everything that there is to read is its own.

    async def taken_over_ids(self) -> list[bytes]:
        return []

    async def new_ids(self) -> list[bytes]:
        return []

    async def know_others(self) -> None:
        """There are none."""

    @on_its_thread
    def take(self, chunk: Chunk) -> str | None:
        facts = self._rows("SELECT name, value FROM facts WHERE name IN (?, ?)", (keys.FIRST_DAY, keys.CLOSED_DAYS))
        stream = (keys.stream_of(chunk),)
        reached = self._rows("SELECT stream, position FROM positions WHERE stream = ?", stream)
        return keys.progress(dict(facts), reached).cursor(chunk)

    async def give_back(self, chunk: Chunk) -> None:
        """It was not taken from anybody."""

    async def take_recording(self, session_id: str) -> tuple[bool, RecordingItem] | None:
        return await self.recording(session_id)

    async def take_turn(self, name: str) -> bool:
        return True

    async def end_turn(self, name: str) -> None:
        """Nobody else waits for it."""

    # What one acknowledged group changes

    @on_its_thread
    def commit(self, group: Commit) -> None:
        self._commit(group)

    def _commit(self, group: Commit) -> None:
        with self._together():
            ids = self._write(group)
        self._ids = ids
        if self._unsettled or group.start is not None:
            moved = any(map(keys.position_of, group.checkpoints)) or (
                group.progress is not None and any(keys.positions_of(group.progress))
            )
            if (moved or group.start is not None) and self._settle() and moved:
                self._unsettled = False

    def _write(self, group: Commit) -> int:
        """Return how many ids of delivered events are remembered then."""
        ids = (
            int(self._db.execute("SELECT coalesce(sum(count), 0) FROM delivered").fetchone()[0])
            if self._ids is None
            else self._ids
        )
        facts = dict(group.notes)
        if group.start is not None:
            facts[keys.START_TIME] = str(group.start)
            self._db.execute("DELETE FROM facts WHERE name = ?", (CREATED,))
        if group.progress is not None:
            facts |= keys.facts_of(group.progress)
            self._db.execute("DELETE FROM positions")
            self._write_positions(keys.positions_of(group.progress))
        if facts:
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
        self._write_positions(filter(None, map(keys.position_of, group.checkpoints)))
        if group.ids:
            self._db.execute("INSERT INTO delivered (count, ids) VALUES (?, ?)", (len(group.ids) // 8, group.ids))
            ids = self._prune(ids + len(group.ids) // 8)
        self._write_recordings(group)
        if group.dead_letters:
            self._db.executemany(
                "INSERT INTO dead_letters (time, sink, reason, type, id, session_id, body, event_time, event_index)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (time(), d.sink, d.reason, d.type, d.id, d.session_id, d.body, d.time, d.index)
                    for d in group.dead_letters
                ],
            )
        return ids

    def _write_positions(self, positions: Iterable[tuple[str, str]]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions)

    def _write_recordings(self, group: Commit) -> None:
        for item in group.recordings:
            # A session seen again (its upload after its end) only comes due earlier; what was done stays done.
            self._db.execute(
                "INSERT INTO recordings (session_id, announced, uploaded, attempts, next_try, next_index)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET uploaded = max(uploaded, excluded.uploaded), next_try = min(next_try, excluded.next_try)"
                " WHERE excluded.uploaded > uploaded",
                (item.session_id, item.announced, item.uploaded, item.attempts, item.next_try, item.next_index),
            )
        for one in group.checkpoints:
            if isinstance(one, RecordingCheckpoint):
                self._db.execute(
                    "UPDATE recordings SET next_index = ? WHERE session_id = ?", (one.index, one.recording.session_id)
                )

    def _settle(self) -> bool:
        """Bring what is remembered into the file itself and onto the disk: a copy of it without its log then knows
        where to begin.

        Return whether it was possible: while another process reads it is not, and is put off to a later commit.
        """
        self._rows(f"PRAGMA busy_timeout = {READERS_WAITED_FOR}")
        try:
            busy = self._rows("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]  # which waits for the disk before and after
        finally:
            self._rows(f"PRAGMA busy_timeout = {WRITERS_WAITED_FOR}")
        return not busy

    def _prune(self, total: int) -> int:
        """Drop the oldest groups of `total` ids that are too many; return how many ids are left."""
        while total > REMEMBERED_IDS:
            number, oldest = self._db.execute("SELECT number, count FROM delivered ORDER BY number LIMIT 1").fetchone()
            if total - oldest < REMEMBERED_IDS:
                break
            self._db.execute("DELETE FROM delivered WHERE number = ?", (number,))
            total -= oldest
        return total

    # Recordings

    @on_its_thread
    def due_recordings(self, now: float, limit: int, longest_wait: float = inf) -> list[RecordingItem]:
        return self._pending(
            "AND (next_try <= ? OR next_try > ?) ORDER BY next_try LIMIT ?", (now, now + longest_wait, limit)
        )

    @on_its_thread
    def unfinished_recordings(self) -> list[RecordingItem]:
        return self._pending("ORDER BY next_try", ())

    def _pending(self, which: str, parameters: Sequence[object]) -> list[RecordingItem]:
        columns = "session_id, announced, uploaded, attempts, next_try, next_index, looks"
        rows = self._rows(f"SELECT {columns} FROM recordings WHERE done IS NULL {which}", parameters)  # noqa: S608 - fixed texts
        return [RecordingItem(s, a, bool(u), t, n, i, k) for s, a, u, t, n, i, k in rows]

    @on_its_thread
    def waiting_recordings(self) -> tuple[int, int]:
        row = self._rows(
            "SELECT count(*), coalesce(sum(attempts = 0 AND looks = 0), 0) FROM recordings WHERE done IS NULL"
        )[0]
        return row[0], row[1]

    @on_its_thread
    def recording_done(self, session_id: str) -> None:
        self._recording_done(session_id)

    def _recording_done(self, session_id: str) -> None:
        now = time()
        self._rows("UPDATE recordings SET done = ? WHERE session_id = ?", (now, session_id))
        self._rows("DELETE FROM recordings WHERE done < ?", (now - FINISHED_KEPT,))

    @on_its_thread
    def recording_given_up(self, letter: DeadLetter) -> None:
        with self._together():
            self._write(Commit(dead_letters=[letter]))
            self._recording_done(letter.session_id)

    @on_its_thread
    def recording(self, session_id: str) -> tuple[bool, RecordingItem] | None:
        rows = self._rows(
            "SELECT done IS NOT NULL, announced, uploaded, attempts, next_try, next_index, looks FROM recordings"
            " WHERE session_id = ?",
            (session_id,),
        )
        if not rows:
            return None
        done, announced, uploaded, attempts, next_try, index, looks = rows[0]
        return bool(done), RecordingItem(session_id, announced, bool(uploaded), attempts, next_try, index, looks)

    @on_its_thread
    def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        self._rows(
            "UPDATE recordings SET attempts = attempts + ?, next_try = ? WHERE session_id = ?",
            (counted, next_try, session_id),
        )

    @on_its_thread
    def recording_looked(self, session_id: str, next_try: float) -> None:
        self._rows("UPDATE recordings SET looks = looks + 1, next_try = ? WHERE session_id = ?", (next_try, session_id))

    @on_its_thread
    def recordings_looked_at(self) -> list[str]:
        return [
            row[0]
            for row in self._rows("SELECT session_id FROM recordings WHERE done IS NULL AND looks > 0 AND attempts = 0")
        ]

    @on_its_thread
    def recordings_due_now(self, sessions: Iterable[str] = ()) -> None:
        self._rows("UPDATE recordings SET next_try = 0 WHERE done IS NULL AND attempts = 0 AND looks = 0")
        for session_id in sessions:
            self._rows("UPDATE recordings SET next_try = 0 WHERE done IS NULL AND session_id = ?", (session_id,))

    @on_its_thread
    def recording_again(self, session_id: str) -> None:
        self._rows(
            "INSERT INTO recordings (session_id, announced, uploaded, next_try) VALUES (?, ?, 1, 0)"
            " ON CONFLICT DO UPDATE SET done = NULL, attempts = 0, looks = 0, next_try = 0",
            (session_id, time()),
        )

    @on_its_thread
    def recordings_again(self, since: float) -> int:
        count = int(self._rows("SELECT count(*) FROM recordings WHERE announced >= ?", (since,))[0][0])
        again = "done = NULL, attempts = 0, next_try = 0, next_index = 0"
        self._rows(f"UPDATE recordings SET {again} WHERE announced >= ?", (since,))  # noqa: S608 - a fixed text
        return count

    # Dead letters

    @on_its_thread
    def size(self) -> int:
        found = 0
        for suffix in ("", "-wal"):
            with suppress(OSError):
                found += self._place.with_name(self._place.name + suffix).stat().st_size
        return found

    @on_its_thread
    def dead_letters(self) -> int:
        return int(self._rows("SELECT count(*) FROM dead_letters")[0][0])

    @on_its_thread
    def dead_letter_totals(self) -> tuple[int, int]:
        count, size = self._rows("SELECT count, bytes FROM letter_totals")[0]
        return count, size

    @on_its_thread
    def dead_letters_to_retry(self, after: int = 0) -> list[tuple[int, DeadLetter]]:
        rows = self._rows(
            "SELECT number, sink, reason, type, id, session_id, body, event_time, event_index"
            " FROM dead_letters INDEXED BY letters_to_retry WHERE retry = 1 AND number > ? ORDER BY number LIMIT ?",
            (after, LETTERS_AT_ONCE),
        )
        return [(row[0], DeadLetter(*row[1:])) for row in rows]

    @on_its_thread
    def dead_letter_delivered(self, number: int) -> None:
        self._rows("DELETE FROM dead_letters WHERE number = ?", (number,))

    @on_its_thread
    def dead_letter_refused(self, number: int, reason: str) -> None:
        self._rows("UPDATE dead_letters SET retry = 0, reason = ? WHERE number = ?", (reason, number))

    # Failed logins

    @on_its_thread
    def add_failed_logins(self, failures: Iterable[FailedLogin]) -> list[FailedLogin]:
        with self._together():
            insert = "INSERT OR IGNORE INTO failed_logins VALUES (?, ?, ?)"
            return [one for one in failures if self._db.execute(insert, (one.id, one.moment, one.who)).rowcount > 0]

    @on_its_thread
    def failed_logins_of(self, who: str) -> list[float]:
        return [row[0] for row in self._rows("SELECT moment FROM failed_logins WHERE who = ? ORDER BY moment", (who,))]

    @on_its_thread
    def lock_due(self, who: str, user: str, login: str) -> None:
        with self._together():
            self._db.execute("UPDATE failed_logins SET who = '' WHERE who = ?", (who,))
            self._db.execute("INSERT OR IGNORE INTO locks_to_make VALUES (?, ?)", (user, login))

    @on_its_thread
    def locks_due(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self._rows("SELECT user, login FROM locks_to_make")]

    @on_its_thread
    def lock_made(self, user: str, login: str) -> None:
        self._rows("DELETE FROM locks_to_make WHERE user = ? AND login = ?", (user, login))

    @on_its_thread
    def forget_failed_logins(self, before: float) -> None:
        self._rows(
            "DELETE FROM failed_logins WHERE id IN (SELECT id FROM failed_logins WHERE moment < ? LIMIT ?)",
            (before, FORGOTTEN_AT_ONCE),
        )
