"""The dead letters of one state in PostgreSQL, for a person who looks at them, also while replicas run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from event_handler.state.dead_letters import CHANGED_AT_ONCE, KeptDeadLetter
from event_handler.state.postgresql.session import opened

if TYPE_CHECKING:
    import psycopg


class DatabaseDeadLetters:
    """As state.dead_letters.DeadLetters. Every method raises StateError when the database cannot be used."""

    def __init__(self, url: str, cluster: str, sink: str) -> None:
        self._url, self._of = url, (cluster, sink)

    def all(self) -> Iterator[KeptDeadLetter]:
        """One after the other, for all of them may be larger than the memory."""
        with opened(self._url) as database:
            letter = self._next(database, 0)
            while letter is not None:
                yield letter
                letter = self._next(database, letter.number)

    def numbers(self) -> Iterator[int]:
        """The numbers of all letters that there are now."""
        with opened(self._url) as database:
            query = (
                "SELECT d.number FROM teleport_event_handler.dead_letters d JOIN teleport_event_handler.states s"
                " ON s.id = d.state WHERE cluster = %s AND s.sink = %s ORDER BY d.number"
            )
            rows = database.execute(query, self._of).fetchall()
        yield from (row[0] for row in rows)

    def any(self) -> bool:
        with opened(self._url) as database:
            return self._next(database, 0) is not None

    def get(self, number: int) -> KeptDeadLetter | None:
        with opened(self._url) as database:
            letter = self._next(database, number - 1)
        return letter if letter is not None and letter.number == number else None

    def retry(self, numbers: Iterable[int]) -> int:
        """Ask the replicas, running or started later, to send these again; return how many of them there are."""
        return self._each(
            "UPDATE teleport_event_handler.dead_letters d SET retry = true FROM teleport_event_handler.states s"
            " WHERE s.id = d.state AND s.cluster = %s AND s.sink = %s AND d.number = ANY(%s)",
            numbers,
        )

    def drop(self, numbers: Iterable[int]) -> int:
        """Forget these for good, and return how many there were."""
        return self._each(
            "DELETE FROM teleport_event_handler.dead_letters d USING teleport_event_handler.states s"
            " WHERE s.id = d.state AND s.cluster = %s AND s.sink = %s AND d.number = ANY(%s)",
            numbers,
        )

    def _each(self, statement: str, numbers: Iterable[int]) -> int:
        changed, left = 0, iter(numbers)
        with opened(self._url) as database:
            while some := list(islice(left, CHANGED_AT_ONCE)):
                changed += database.execute(statement.encode(), (*self._of, some)).rowcount
        return changed

    def _next(self, database: psycopg.Connection[Any], after: int) -> KeptDeadLetter | None:
        row = database.execute(
            "SELECT d.number, time, d.sink, reason, type, d.id, session_id, body, retry"
            " FROM teleport_event_handler.dead_letters d JOIN teleport_event_handler.states s ON s.id = d.state"
            " WHERE cluster = %s AND s.sink = %s AND d.number > %s ORDER BY d.number LIMIT 1",
            (*self._of, after),
        ).fetchone()
        if row is None:
            return None
        number, time, sink, reason, kind, letter_id, session_id, body, retry = row
        return KeptDeadLetter(number, time, sink, reason, kind, letter_id, session_id, bytes(body), int(retry))
