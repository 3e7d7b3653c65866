"""Copies a state between a file and a database, whole, and compares the two afterwards."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from event_handler.errors import StateError
from event_handler.ports import Commit
from event_handler.state import schema
from event_handler.state.access import usable
from event_handler.state.bucket import is_bucket
from event_handler.state.directory import state_directory
from event_handler.state.file import FILE, flush_directory, open_existing
from event_handler.state.keys import CLUSTER
from event_handler.state.lock import LOCK, take_lock
from event_handler.state.places import DatabasePlace, DirectoryPlace, Place
from event_handler.state.postgresql.session import is_database, opened, shown, shown_place
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
        of_the_file = "WHERE name NOT IN ('schema', 'created')" if table == "facts" else ""
        query = f"SELECT {columns} FROM {table} {of_the_file} ORDER BY {order}"  # noqa: S608 - fixed texts
        yield from self._database.execute(query)

    def fill(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        columns = MOVED_TABLES[table][0]
        marks = ", ".join("?" for _ in columns.split(","))
        if table == "facts":
            self._database.execute("DELETE FROM facts WHERE name = ?", (CREATED,))  # it is known where reading began
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
    place = f"{shown(url)} ({cluster}/{sink})"
    with opened(url) as connection:
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


async def move(place: Place, target: str) -> dict[str, int]:
    """Copy the state of `place` into a storage that does not have it; return how many rows each table has there.

    Raises StateError, also while somebody works on one of them; nothing is half done then.
    """
    if is_bucket(target):
        raise StateError(
            f"a state is not moved into a bucket ({shown_place(target)})", "docs/standby.md tells how to copy it there."
        )
    if is_database(target):
        (await PostgresStore.open(target, place.cluster, place.sink)).close()
        return await asyncio.to_thread(_move, place, partial(database_end, target, place.cluster, place.sink))
    directory = state_directory(Path(target), place.cluster, place.sink)
    if (directory / FILE).exists():
        raise StateError(f"there is a state in {directory} already", "Name another --to, or move that one away.")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return await asyncio.to_thread(_move, place, partial(new_file_end, directory))


def _move(place: Place, target_end: Callable[[], AbstractContextManager[End]]) -> dict[str, int]:
    with _end_of(place) as source, target_end() as target:
        if not is_empty(target):
            raise StateError(f"there is a state in {target.place} already", "Name another --to, or drop that one.")
        return {} if is_empty(source) else copy(source, target)


def _end_of(place: Place) -> AbstractContextManager[End]:
    if isinstance(place, DirectoryPlace):
        return file_end(place.directory)
    if isinstance(place, DatabasePlace):
        return database_end(place.url, place.cluster, place.sink)
    raise StateError(f"the state in {place.shown} cannot be moved", "Move it from a directory or a database.")


@contextmanager
def file_end(directory: Path) -> Iterator[FileEnd]:
    """The state there, which nobody else may work on meanwhile. Raises StateError."""
    lock = take_lock(directory / LOCK)
    try:
        with closing(open_existing(directory / FILE)) as database, usable(directory / FILE):
            yield FileEnd(database, str(directory / FILE))
    finally:
        os.close(lock)


@contextmanager
def new_file_end(directory: Path) -> Iterator[FileEnd]:
    """An empty state, which is in its place when the block ends well."""
    lock = take_lock(directory / LOCK)
    fresh = directory / f"{FILE}.new"
    try:
        fresh.unlink(missing_ok=True)
        with usable(fresh):
            with closing(sqlite3.connect(fresh, isolation_level=None)) as database:
                fresh.chmod(0o600)
                schema.create(database)
                database.execute("BEGIN IMMEDIATE")
                yield FileEnd(database, str(directory / FILE))
                database.execute("COMMIT")
            fresh.replace(directory / FILE)
            flush_directory(directory)
    finally:
        os.close(lock)


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
    """Whether nothing was read yet."""
    known = (name for name, _ in end.rows("facts"))
    return all(name == CLUSTER for name in known) and not any(True for _ in end.rows("positions"))


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
        digest.update(repr([storable(value) if isinstance(value, str) else value for value in row]).encode())
    return count, digest.digest()


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """As SQLite has it."""
    return tuple(int(value) if isinstance(value, bool) else value for value in row)


def _typed(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """As PostgreSQL has it."""
    booleans = _BOOLEANS.get(table, ())
    values = (bool(value) if at in booleans else value for at, value in enumerate(row))
    return tuple(storable(value) if isinstance(value, str) else value for value in values)
