"""The dead letters of one state file, for a person who looks at them, also while an event handler runs.

The handler itself writes letters with `Store`; SQLite keeps the two apart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from event_handler.state.access import usable
from event_handler.state.file import open_dead_letters

BUSY_TIMEOUT = 10.0  # seconds to wait for the handler's own transaction, which takes milliseconds
CHANGED_AT_ONCE = 500  # letters changed in one transaction, for the handler waits for it


@dataclass(frozen=True, slots=True)
class KeptDeadLetter:
    """One dead letter. `time` is when it was kept (seconds since the epoch).

    `retry` is 1 when it is about to be sent again.
    """

    number: int
    time: float
    sink: str
    reason: str
    type: str
    id: str
    session_id: str
    body: bytes
    retry: int


class KeptDeadLetters(Protocol):
    """The dead letters of one state, wherever it is kept. Every method raises StateError."""

    def all(self) -> Iterator[KeptDeadLetter]:
        """One after the other, for all of them may be larger than the memory."""

    def numbers(self) -> Iterator[int]:
        """The numbers of all letters that there are now."""

    def any(self) -> bool: ...

    def get(self, number: int) -> KeptDeadLetter | None: ...

    def retry(self, numbers: Iterable[int]) -> int:
        """Ask the event handler, running or started later, to send these again; return how many of them there are."""

    def drop(self, numbers: Iterable[int]) -> int:
        """Forget these for good, and return how many there were."""


class DeadLetters:
    """Those in a file. Every method raises StateError when the file cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> Iterator[KeptDeadLetter]:
        """One after the other, for all of them may be larger than the memory."""
        with self._open() as database:
            letter = _next(database, 0)
            while letter is not None:
                yield letter
                letter = _next(database, letter.number)

    def numbers(self) -> Iterator[int]:
        """The numbers of all letters that there are now."""
        with self._open() as database:
            last, number = _last(database), 0
            while some := database.execute(
                "SELECT number FROM dead_letters WHERE number > ? AND number <= ? ORDER BY number LIMIT ?",
                (number, last, CHANGED_AT_ONCE),
            ).fetchall():
                for (number,) in some:
                    yield number

    def any(self) -> bool:
        with self._open() as database:
            return _last(database) > 0

    def get(self, number: int) -> KeptDeadLetter | None:
        with self._open() as database:
            letter = _next(database, number - 1)
            return letter if letter is not None and letter.number == number else None

    def retry(self, numbers: Iterable[int]) -> int:
        """Ask the event handler, running or started later, to send these again; return how many of them there are."""
        return self._each("UPDATE dead_letters SET retry = 1 WHERE number = ?", numbers)

    def drop(self, numbers: Iterable[int]) -> int:
        """Forget these for good, and return how many there were."""
        return self._each("DELETE FROM dead_letters WHERE number = ?", numbers)

    def _each(self, statement: str, numbers: Iterable[int]) -> int:
        changed, left = 0, iter(numbers)
        with self._open() as database:
            while some := list(islice(left, CHANGED_AT_ONCE)):
                database.execute("BEGIN IMMEDIATE")
                changed += database.executemany(statement, [(number,) for number in some]).rowcount
                database.execute("COMMIT")
        return changed

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(open_dead_letters(self._path, BUSY_TIMEOUT)) as database, usable(self._path):
            yield database


def _last(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT coalesce(max(number), 0) FROM dead_letters").fetchone()[0])


def _next(database: sqlite3.Connection, after: int) -> KeptDeadLetter | None:
    row = database.execute(
        "SELECT number, time, sink, reason, type, id, session_id, body, retry FROM dead_letters"
        " WHERE number > ? ORDER BY number LIMIT 1",
        (after,),
    ).fetchone()
    return KeptDeadLetter(*row) if row else None
