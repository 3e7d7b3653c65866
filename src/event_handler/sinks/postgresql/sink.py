"""One statement a batch, over a few connections: whole columns go out as arrays, and rows that are there already stay.

A staging table with COPY takes a sixth less time, but needs four statements, the right to make temporary tables, and
connections that no pooler changes in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Retry, Verdict
from event_handler.sinks.columns import COLUMNS
from event_handler.sinks.http_faults import MISCONFIGURED_WAIT
from event_handler.sinks.postgresql.answers import READ_ONLY, judge_connection, judge_error
from event_handler.sinks.postgresql.arrays import arrays
from event_handler.sinks.postgresql.dumpers import Column, dump_arrays, parameters
from event_handler.sinks.postgresql.options import Login, PostgresqlOptions

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

INSERT_EVENTS = 2000  # of a statement
INSERT_ROOM = 2  # times the bytes in flight of others, so that statements that are answered late go out beside others
INSERT_BYTES = 4 * 1024 * 1024  # of the events of a statement
INSERT_AGE = 0.2  # seconds an incomplete batch waits for more events
CUT_WAIT = 1.0  # seconds for libpq to see that its socket was shut down
TABLE_NAME = re.compile(r'[^\0".%]{1,63}(?:\.[^\0".%]{1,63})?')  # PostgreSQL cuts longer names
COLUMN_TYPES = ("timestamptz", "text", "text", "text", "text", "bigint", "text", "text", "boolean", "jsonb")
# The time is first in the key, so that new rows go to the end of the index, it serves searches by time, and the key
# may stay as it is in a table with partitions by time, which must have their column in it.
DDL = """
CREATE TABLE {table} (
    time timestamptz NOT NULL,
    event text NOT NULL,
    code text NOT NULL,
    uid text NOT NULL,
    session_id text NOT NULL,
    event_index bigint NOT NULL,
    username text NOT NULL,
    cluster text NOT NULL,
    success boolean,
    body jsonb NOT NULL,
    PRIMARY KEY (time, uid, session_id, event_index)
)
"""
# A role or database may have synchronous_commit off: an answer would then not mean that anything is on a disk.
OF_EACH_CONNECTION = """
SELECT set_config('statement_timeout', %s, false),
    CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END
"""


class PostgresqlSink:
    """A `postgresql` sink. Raises SinkError when the options cannot be used, or psycopg is not installed."""

    def __init__(self, options: PostgresqlOptions, name: str, section: str) -> None:
        self._psycopg = _library(section)
        self.name = name
        self.limits = Limits(INSERT_EVENTS, INSERT_BYTES, options.max_connections, INSERT_AGE, room=INSERT_ROOM)
        if not TABLE_NAME.fullmatch(options.table):
            raise SinkError(f"{section}.table is no name of a table", "It must look like events, or audit.events.")
        self._section = section
        self._timeout = options.timeout
        self._login = Login(options, section)
        self._table = ".".join(f'"{part}"' for part in options.table.split("."))
        self._statement = insert(self._table)
        self._wants_table = options.create_table
        self._creating = asyncio.Lock()
        self._room = asyncio.Semaphore(options.max_connections)
        self._idle: list[Connection] = []

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        try:
            if self._login.changed():
                await self.reopen()
        except SinkError as error:
            return Retry(error.message, MISCONFIGURED_WAIT, misconfigured=True)
        values = parameters(arrays(events))
        loop = asyncio.get_running_loop()
        async with self._room:
            deadline = loop.time() + self._timeout
            while self._idle:
                connection = self._idle.pop()
                said = await self._insert(connection, values, deadline)
                if not connection.closed or not isinstance(said, Retry) or loop.time() >= deadline:
                    return said  # else it had ended while nobody used it, which says nothing
            made = await self._connected(deadline)
            return made if isinstance(made, Retry) else await self._insert(made, values, deadline, fresh=True)

    async def _connected(self, deadline: float) -> Connection | Retry:
        connect = self._psycopg.AsyncConnection.connect
        try:
            async with asyncio.timeout_at(deadline):
                made: Connection = await connect(**self._login.parameters, autocommit=True, prepare_threshold=None)
                dump_arrays(made)
                return made
        except TimeoutError:
            return Retry(f"no connection within {self._timeout:g} s; check {self._section}.url")
        except (self._psycopg.Error, OSError, UnicodeError) as error:
            return judge_connection(error, self._section)

    async def _insert(
        self, connection: Connection, values: list[Column], deadline: float, *, fresh: bool = False
    ) -> Verdict:
        async def work() -> None:
            if fresh:
                await connection.execute(OF_EACH_CONNECTION, [f"{self._timeout * 1000:.0f}"])
            if self._wants_table:
                await self._create(connection)
            await connection.execute(self._statement, values)

        said: Verdict = Delivered()
        try:
            if not await self._within(deadline, connection, work):
                said = Retry(f"the receiver gave no answer within {self._timeout:g} s", unanswered=True)
        except self._psycopg.Error as error:
            said = judge_error(error, self._section, self._table)
            if error.sqlstate == READ_ONLY:
                await connection.close()  # the next one may lead to the primary
        if not connection.closed:
            self._idle.append(connection)
        return said

    async def _create(self, connection: Connection) -> None:
        async with self._creating:
            if not self._wants_table:
                return
            found = await (await connection.execute("SELECT to_regclass(%s)", [self._table])).fetchone()
            if found == (None,):
                with contextlib.suppress(self._psycopg.errors.DuplicateTable, self._psycopg.errors.UniqueViolation):
                    await connection.execute(DDL.format(table=self._table).encode())
            self._wants_table = False

    async def _within(self, deadline: float, connection: Connection, work: Callable[[], Awaitable[None]]) -> bool:
        """Do the work on a connection, and return whether it came to its end in time; if not, the connection is gone.

        psycopg answers a cancellation by asking the server to stop, and waits for that as long as it takes. So its task
        is not cancelled: its socket is shut down, which it takes for the end of the server.
        """
        doing = asyncio.ensure_future(work())
        try:
            await asyncio.wait([doing], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
            if doing.done():
                doing.result()
            return doing.done()
        finally:
            if not doing.done():
                gone = contextlib.suppress(OSError, self._psycopg.Error)
                with gone, socket.socket(fileno=os.dup(connection.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)
                await asyncio.wait([doing], timeout=CUT_WAIT)
                await connection.close()
                doing.cancel()  # where it is not done even so; there is nothing left to ask the server
                await asyncio.gather(doing, return_exceptions=True)

    async def reopen(self) -> None:
        """Connections that nobody uses are closed: the next ones have the files as they are now."""
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        await self.reopen()


def insert(table: str) -> bytes:
    columns = ", ".join(COLUMNS)
    values = ", ".join(f"%s::{kind}[]" for kind in COLUMN_TYPES)
    rows = f"SELECT * FROM unnest({values})"  # noqa: S608 - nothing of it is anybody's text
    return f"INSERT INTO {table} ({columns}) {rows} ON CONFLICT DO NOTHING".encode()


def _library(section: str) -> Any:
    try:
        import psycopg
    except ImportError:
        raise SinkError(
            f"{section} needs psycopg, which is not installed",
            "Run: pip install 'teleport-event-handler[postgresql]'",
        ) from None
    return psycopg
