"""The dead letters of one state file, for a person who looks at them, also while an event handler runs.

The handler itself writes letters with `Store`; SQLite keeps the two apart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from event_handler.errors import StateError

BUSY = 10.0  # seconds to wait for the handler's own transaction, which takes milliseconds


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `time` is when it was kept (seconds since the epoch); `retry` is 1 when it is about to be sent again."""

    number: int
    time: float
    sink: str
    reason: str
    type: str
    id: str
    session_id: str
    body: bytes
    retry: int


class Letters:
    """Every method raises StateError when the file cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> Iterator[Letter]:
        """One after the other, for all of them may be larger than the memory."""
        with self._open() as database:
            for number in _numbers(database):
                if (letter := _read(database, number)) is not None:  # dropped or delivered meanwhile
                    yield letter

    def numbers(self) -> list[int]:
        with self._open() as database:
            return _numbers(database)

    def get(self, number: int) -> Letter | None:
        with self._open() as database:
            return _read(database, number)

    def retry(self, numbers: Sequence[int]) -> None:
        """Ask the event handler, running or started later, to send these again."""
        self._each("UPDATE dead_letters SET retry = 1 WHERE number = ?", numbers)

    def drop(self, numbers: Sequence[int]) -> None:
        """Forget these for good."""
        self._each("DELETE FROM dead_letters WHERE number = ?", numbers)

    def _each(self, statement: str, numbers: Sequence[int]) -> None:
        with self._open() as database, database:
            database.executemany(statement, [(number,) for number in numbers])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY)) as database:
                yield database
        except sqlite3.Error as error:
            raise StateError(f"the dead letters in {self._path} cannot be used ({error})", "Check the file's permissions.") from None


def _numbers(database: sqlite3.Connection) -> list[int]:
    return [row[0] for row in database.execute("SELECT number FROM dead_letters ORDER BY number")]


def _read(database: sqlite3.Connection, number: int) -> Letter | None:
    row = database.execute(
        "SELECT number, time, sink, reason, type, id, session_id, body, retry FROM dead_letters WHERE number = ?", (number,)
    ).fetchone()
    return Letter(*row) if row else None
