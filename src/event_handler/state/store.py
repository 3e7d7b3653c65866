"""The SQLite file that remembers how far the collector has answered; one process writes it.

Positions, ids of delivered events, announced recordings and dead letters of one acknowledged group go into one
transaction, so a process killed at any moment finds either all of them or none. Journal mode WAL with
synchronous=NORMAL: a killed process loses nothing; a power cut may lose the last commits, which repeats events but
never skips one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from time import time
from typing import Any

from event_handler.errors import StateError, StorageError
from event_handler.ports import Commit, DeadLetter, RecordingItem
from event_handler.state import file
from event_handler.state.access import usable
from event_handler.state.lock import take_lock
from event_handler.state.schema import CREATED, damaged

FINISHED_KEPT = 90 * 86_400.0  # seconds; no event that announces a recording is read again after so long
REMEMBERED_IDS = 2_000_000  # ids, in 8 bytes each; as many as the window of ids knows for certain
LETTERS_AT_ONCE = 10  # each may have some MiB
START_TIME = "start_time"  # fact
WRITERS_WAITED_FOR = 5000  # milliseconds; `dead-letter retry` and `drop` write for some of them
READERS_WAITED_FOR = 50  # milliseconds, for deliveries wait meanwhile
FILE = file.FILE


class Store:
    """The state of one sink in `directory` (made 0700 when missing), or in memory only (`directory` None, a dry run).

    Every method raises StateError when the state cannot be read or written (disk full, read-only); nothing is half done
    then. The constructor raises it also when another process works there, or the file is damaged and the user has not
    said where to begin (`begin_known`). `existing`: the file must be there, and stays where it is when it is damaged.
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
            self._lock = take_lock(directory / "lock")
            try:
                self._db = (
                    file.open_existing(self._place)
                    if existing
                    else file.open_to_work(self._place, begin_known=begin_known)
                )
            except BaseException:
                self._unlock()
                raise

    @classmethod
    def to_read(cls, path: Path) -> Store:
        """The state in the file `path`, to look at while another process may work on it."""
        store = cls.__new__(cls)
        store._lock, store._ids, store._place, store._unsettled = -1, None, path, False
        store._db = file.open_to_read(path)
        return store

    def close(self) -> None:
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

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Run one statement and return its rows."""
        try:
            return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def change(self, statement: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement and return how many rows it changed."""
        try:
            return self._db.execute(statement, parameters).rowcount
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def claim(self, cluster: str) -> None:
        """Note whose state this is. Raises StateError when it belongs to another cluster."""
        owner = self.fact("cluster")
        if owner and owner != cluster:
            raise StorageError(
                f"the state belongs to the cluster {owner}, and the credentials are for {cluster}",
                "Name another --storage for this cluster, or use the credentials of the other one.",
            )
        if not owner:
            self.remember("cluster", cluster)

    def begin(self, asked: float | None) -> float:
        """Where reading began, in seconds since the epoch: remembered at the first call, which takes `asked` if it is
        given.

        Raises StateError when the state was used before and does not know: "now" would leave out what happened
        meanwhile.
        """
        if saved := self.fact(START_TIME):
            return float(saved)
        created = self.fact(CREATED)
        if asked is None and not created:
            raise damaged(self._place, "it does not say where reading began")
        begin = float(int(float(created) if asked is None else asked))
        self.commit(Commit(facts={START_TIME: str(begin)}))
        return begin

    @property
    def is_new(self) -> bool:
        """Nobody has said yet where reading begins, so nothing was read."""
        return bool(self.fact(CREATED))

    def fact(self, name: str) -> str:
        rows = self.rows("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def remember(self, name: str, value: str) -> None:
        self.rows("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def positions(self, prefix: str) -> dict[str, str]:
        """Positions of all streams whose key starts with `prefix`."""
        return dict(
            self.rows("SELECT stream, position FROM positions WHERE substr(stream, 1, ?) = ?", (len(prefix), prefix))
        )

    def forget(self, prefix: str) -> None:
        """Drop the positions of all streams whose key starts with `prefix`."""
        self.rows("DELETE FROM positions WHERE substr(stream, 1, ?) = ?", (len(prefix), prefix))

    def forget_until(self, prefix: str, end: str) -> None:
        """Drop the positions of all streams whose key starts with `prefix` and is less than `end`."""
        self.rows("DELETE FROM positions WHERE stream >= ? AND stream < ?", (prefix, end))

    def delivered_ids(self) -> Iterable[bytes]:
        """Packed 8-byte ids of delivered events, oldest group first."""
        for row in self.rows("SELECT ids FROM delivered ORDER BY number"):
            yield row[0]

    @contextmanager
    def together(self) -> Iterator[None]:
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

    def commit(self, group: Commit) -> None:
        """Remember a group in one transaction."""
        with self.together():
            ids = self._write(group)
        self._ids = ids
        if START_TIME in group.facts or (self._unsettled and group.positions):
            settled = self._settle()
            self._unsettled = self._unsettled and not (settled and group.positions)

    def _write(self, group: Commit) -> int:
        """Return how many ids of delivered events are remembered then."""
        ids = (
            int(self._db.execute("SELECT coalesce(sum(count), 0) FROM delivered").fetchone()[0])
            if self._ids is None
            else self._ids
        )
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", group.facts.items())
        if START_TIME in group.facts:
            self._db.execute("DELETE FROM facts WHERE name = ?", (CREATED,))
        self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", group.positions.items())
        if group.ids:
            self._db.execute("INSERT INTO delivered (count, ids) VALUES (?, ?)", (len(group.ids) // 8, group.ids))
            ids = self._prune(ids + len(group.ids) // 8)
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
            "INSERT INTO dead_letters (time, sink, reason, type, id, session_id, body, event_time, event_index)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (time(), d.sink, d.reason, d.type, d.id, d.session_id, d.body, d.time, d.index)
                for d in group.dead_letters
            ],
        )
        return ids

    def _settle(self) -> bool:
        """Bring what is remembered into the file itself and onto the disk: a copy of it without its log then knows
        where to begin.

        Return whether it was possible: while another process reads it is not, and is put off to a later commit.
        """
        self.rows(f"PRAGMA busy_timeout = {READERS_WAITED_FOR}")
        try:
            busy = self.rows("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]  # which waits for the disk before and after
        finally:
            self.rows(f"PRAGMA busy_timeout = {WRITERS_WAITED_FOR}")
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

    def due_recordings(self, now: float, limit: int, longest_wait: float = inf) -> list[RecordingItem]:
        """Those to ask for now.

        None waits longer than `longest_wait` seconds: the clock was set back where one seems to.
        """
        rows = self.rows(
            "SELECT session_id, announced, uploaded, attempts, next_try, next_index, looks FROM recordings"
            " WHERE done IS NULL AND (next_try <= ? OR next_try > ?) ORDER BY next_try LIMIT ?",
            (now, now + longest_wait, limit),
        )
        return [RecordingItem(s, a, bool(u), t, n, i, k) for s, a, u, t, n, i, k in rows]

    def waiting_recordings(self) -> tuple[int, int]:
        """How many recordings are not finished, and how many of them were never tried."""
        row = self.rows(
            "SELECT count(*), coalesce(sum(attempts = 0 AND looks = 0), 0) FROM recordings WHERE done IS NULL"
        )[0]
        return row[0], row[1]

    def recording_done(self, session_id: str) -> None:
        now = time()
        self.rows("UPDATE recordings SET done = ? WHERE session_id = ?", (now, session_id))
        self.rows("DELETE FROM recordings WHERE done < ?", (now - FINISHED_KEPT,))

    def recording_given_up(self, letter: DeadLetter) -> None:
        """It is done, and kept as a dead letter."""
        self.commit(Commit(dead_letters=[letter]))
        self.recording_done(letter.session_id)

    def recording(self, session_id: str) -> tuple[bool, RecordingItem] | None:
        """Whether a recording is done, and what is known of it; None when it was not announced."""
        rows = self.rows(
            "SELECT done IS NOT NULL, announced, uploaded, attempts, next_try, next_index, looks FROM recordings"
            " WHERE session_id = ?",
            (session_id,),
        )
        if not rows:
            return None
        done, announced, uploaded, attempts, next_try, index, looks = rows[0]
        return bool(done), RecordingItem(session_id, announced, bool(uploaded), attempts, next_try, index, looks)

    def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        """Try again at `next_try`; `counted` when it was the recording that failed, not the whole cluster."""
        self.rows(
            "UPDATE recordings SET attempts = attempts + ?, next_try = ? WHERE session_id = ?",
            (counted, next_try, session_id),
        )

    def recording_looked(self, session_id: str, next_try: float) -> None:
        """It was sent to its end, which is perhaps not the session's: look again at `next_try`."""
        self.rows("UPDATE recordings SET looks = looks + 1, next_try = ? WHERE session_id = ?", (next_try, session_id))

    def recordings_looked_at(self) -> list[str]:
        """The sessions whose recordings were sent to their end and are to be looked at again."""
        return [
            row[0]
            for row in self.rows("SELECT session_id FROM recordings WHERE done IS NULL AND looks > 0 AND attempts = 0")
        ]

    def recordings_due_now(self, sessions: Iterable[str] = ()) -> None:
        """Do not wait any longer for the upload events of sessions that have ended, nor for the second looks at
        `sessions`.
        """
        self.rows("UPDATE recordings SET next_try = 0 WHERE done IS NULL AND attempts = 0 AND looks = 0")
        for session_id in sessions:
            self.rows("UPDATE recordings SET next_try = 0 WHERE done IS NULL AND session_id = ?", (session_id,))

    def recording_again(self, session_id: str) -> None:
        """Ask for a recording that was given up, from now on."""
        self.rows(
            "INSERT INTO recordings (session_id, announced, uploaded, next_try) VALUES (?, ?, 1, 0)"
            " ON CONFLICT DO UPDATE SET done = NULL, attempts = 0, looks = 0, next_try = 0",
            (session_id, time()),
        )

    def recordings_again(self, since: float) -> int:
        """Ask again for all recordings that were announced from that time on; return how many they are."""
        count = int(self.rows("SELECT count(*) FROM recordings WHERE announced >= ?", (since,))[0][0])
        again = "done = NULL, attempts = 0, next_try = 0, next_index = 0"
        self.rows(f"UPDATE recordings SET {again} WHERE announced >= ?", (since,))  # noqa: S608 - a fixed text
        return count

    def dead_letters(self) -> int:
        """How many there are, counted; `letter_totals` is for whoever asks often."""
        return int(self.rows("SELECT count(*) FROM dead_letters")[0][0])

    def dead_letter_totals(self) -> tuple[int, int]:
        """How many dead letters there are, and the bytes of their bodies."""
        count, size = self.rows("SELECT count, bytes FROM letter_totals")[0]
        return count, size

    def dead_letter_bytes(self) -> int:
        return self.dead_letter_totals()[1]

    def dead_letters_to_retry(self, after: int = 0) -> list[tuple[int, DeadLetter]]:
        """The next letters, by number, that the user wants to be sent again (`dead-letter retry`), with their
        numbers.
        """
        rows = self.rows(
            "SELECT number, sink, reason, type, id, session_id, body, event_time, event_index"
            " FROM dead_letters INDEXED BY letters_to_retry WHERE retry = 1 AND number > ? ORDER BY number LIMIT ?",
            (after, LETTERS_AT_ONCE),
        )
        return [(row[0], DeadLetter(*row[1:])) for row in rows]

    def dead_letter_delivered(self, number: int) -> None:
        self.rows("DELETE FROM dead_letters WHERE number = ?", (number,))

    def dead_letter_refused(self, number: int, reason: str) -> None:
        self.rows("UPDATE dead_letters SET retry = 0, reason = ? WHERE number = ?", (reason, number))
