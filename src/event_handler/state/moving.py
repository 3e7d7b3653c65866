"""Copies a state between a file and a database, whole, and compares the two afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from event_handler.errors import StateError
from event_handler.ports import Commit
from event_handler.state.postgresql.session import Session, parameters_of, shown
from event_handler.state.postgresql.store import PostgresStore, storable
from event_handler.state.schema import CREATED
from event_handler.state.sqlite import SqliteStore

if TYPE_CHECKING:
    import psycopg

ROWS_AT_ONCE = 200  # some have MiB
# By table, the columns that both kinds have, and by which of them they are ordered.
MOVED_TABLES: Final[dict[str, tuple[str, str]]] = {
    "facts": ("name, value", "name"),
    "positions": ("stream, position", "stream"),
    "delivered": ("count, ids", "number"),
    "recordings": ("session_id, announced, uploaded, attempts, next_try, next_index, looks, done", "session_id"),
    "dead_letters": (
        "number, time, sink, reason, type, id, session_id, body, event_time, event_index, retry",
        "number",
    ),
    "failed_logins": ("id, moment, who", "id"),
    "locks_to_make": ('"user", login', '"user", login'),
}
_BOOLEANS: Final = {"recordings": (2,), "dead_letters": (10,)}  # by their place among the columns


class End(Protocol):
    """One of the two states. `place` is how it is called."""

    place: str

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]: ...

    def fill(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None: ...


class FileEnd:
    """A state in SQLite."""

    def __init__(self, database: sqlite3.Connection, place: str) -> None:
        self._database, self.place = database, place

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        columns, order = MOVED_TABLES[table]
        yield from self._database.execute(f"SELECT {columns} FROM {table} ORDER BY {order}")  # noqa: S608 - fixed texts

    def fill(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        columns = MOVED_TABLES[table][0]
        marks = ", ".join("?" for _ in columns.split(","))
        if table == "facts":
            self._database.execute("DELETE FROM facts")
        self._database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - fixed texts


class DatabaseEnd:
    """A state in PostgreSQL, by its number."""

    def __init__(self, connection: psycopg.Connection[Any], state: int, place: str) -> None:
        self._connection, self._state, self.place = connection, state, place

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        columns, order = MOVED_TABLES[table]
        query = f"SELECT {columns} FROM teleport_event_handler.{table} WHERE state = %s ORDER BY {order}"  # noqa: S608 - fixed texts
        with self._connection.cursor(f"all_{table}") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            for row in cursor.execute(query.encode(), (self._state,)):
                yield _plain(row)

    def fill(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        columns = MOVED_TABLES[table][0]
        marks = ", ".join("%s" for _ in columns.split(","))
        query = f"INSERT INTO teleport_event_handler.{table} (state, {columns}) VALUES (%s, {marks})"  # noqa: S608 - fixed texts
        with self._connection.cursor() as cursor:
            left = iter(rows)
            while some := list(islice(left, ROWS_AT_ONCE)):
                cursor.executemany(query.encode(), [(self._state, *_typed(table, row)) for row in some])


@contextmanager
def database_end(url: str, cluster: str, sink: str) -> Iterator[DatabaseEnd]:
    """The state there, in a transaction that is committed at the end of the block. Raises StateError."""
    import psycopg

    place = f"{shown(url)} ({cluster}/{sink})"
    try:
        with psycopg.connect(**parameters_of(url), prepare_threshold=None) as connection:
            found = connection.execute(
                "SELECT id FROM teleport_event_handler.states WHERE cluster = %s AND sink = %s", (cluster, sink)
            ).fetchone()
            if found is None:
                raise StateError(f"there is no state in {place}", "Check --cluster and --sink.")
            alive = connection.execute(
                "SELECT name FROM teleport_event_handler.replicas WHERE cluster = %s AND expires > now()", (cluster,)
            ).fetchone()
            if alive is not None:
                raise StateError(f"the replica {alive[0]} works on {place}", "Stop it first.")
            yield DatabaseEnd(connection, found[0], place)
    except psycopg.Error as error:
        raise Session(url).unusable(error) from None


def copy(source: End, target: End) -> dict[str, int]:
    """Fill an empty state with all of another one; return how many rows each table has.

    Raises StateError when the two differ afterwards.
    """
    counts = {}
    for table in MOVED_TABLES:
        target.fill(table, source.rows(table))
        (here, digest), (there, other) = _digest(source.rows(table)), _digest(target.rows(table))
        if digest != other:
            raise StateError(
                f"the copy differs in {table}: {source.place} has {here} rows, {target.place} {there}",
                "Nothing was moved. Is somebody at work on one of them?",
            )
        counts[table] = here
    return counts


def is_empty(end: End) -> bool:
    return not any(name != CREATED for name, _ in end.rows("facts")) and not any(True for _ in end.rows("positions"))


async def copy_into_memory(url: str, cluster: str, sink: str) -> SqliteStore:
    """For a dry run: what is known there, in memory only; nothing where there is no such state yet."""
    store = SqliteStore(None)
    reading = await PostgresStore.open(url, cluster, sink)
    try:
        await store.commit(Commit(start=await reading.start(), progress=await reading.progress()))
        for ids in await reading.delivered_ids():
            await store.commit(Commit(ids=ids))
    finally:
        reading.close()
    return store


def _digest(rows: Iterable[tuple[Any, ...]]) -> tuple[int, bytes]:
    count, digest = 0, sha256()
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last one is the number of rows
        digest.update(repr(row).encode())
    return count, digest.digest()


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """As SQLite has it."""
    return tuple(int(value) if isinstance(value, bool) else value for value in row)


def _typed(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """As PostgreSQL has it."""
    booleans = _BOOLEANS.get(table, ())
    values = (bool(value) if at in booleans else value for at, value in enumerate(row))
    return tuple(storable(value) if isinstance(value, str) else value for value in values)
