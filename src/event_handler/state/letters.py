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

    def all(self) -> list[Letter]:
        with self._open() as database:
            rows = database.execute(
                "SELECT number, time, sink, reason, type, id, session_id, body, retry FROM dead_letters ORDER BY number"
            ).fetchall()
        return [Letter(*row) for row in rows]

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
