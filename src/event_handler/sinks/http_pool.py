"""Connections that are kept for the next request, their number, and one look at the clock for all of them."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from event_handler.sinks.http_answer import Answer, AnswerReader
from event_handler.sinks.http_connection import Connection
from event_handler.sinks.http_dial import GOODBYE, Route, dial

_Kind = tuple[Route, ssl.SSLContext]  # connections of one kind serve one another's requests

LOOKS = 10  # at the clock in the shorter of time-out and keep-alive
SHORTEST_LOOK, LONGEST_LOOK = 0.02, 1.0  # seconds between them


class Pool:
    """At most `connections` at a time.

    `timeout` limits a request with its connecting, `keepalive` an idle connection (seconds).
    """

    def __init__(self, connections: int, timeout: float, keepalive: float) -> None:
        self._free = connections
        self._timeout = timeout
        self._keepalive = keepalive
        self._idle: dict[_Kind, list[Connection]] = {}
        self._usable: set[Connection] = set()
        self._leaving: set[Connection] = set()
        self._turns: deque[asyncio.Future[None]] = deque()  # requests that wait until a connection is free
        self._loop = asyncio.get_running_loop()
        self._look_every = min(max(min(timeout, keepalive) / LOOKS, SHORTEST_LOOK), LONGEST_LOOK)
        self._looking: asyncio.TimerHandle | None = None
        self._all_gone: asyncio.Future[None] | None = None

    async def exchange(
        self, route: Route, context: ssl.SSLContext, head: bytes, body: bytes, reader: AnswerReader
    ) -> Answer:
        """Send a request and return its answer. Raises DialError, NoAnswerError and UnreadableAnswerError."""
        deadline = self._loop.time() + self._timeout
        kind = route, context
        idle = self._idle.get(kind)
        connection = idle.pop() if idle else await self._connect(kind, deadline)
        try:
            return await connection.exchange(head, body, reader, deadline)
        finally:
            self._settle(kind, connection)

    async def close(self) -> None:
        """Close every connection, and give the receiver a moment to hear of it."""
        for connection in list(self._usable):
            if connection.is_busy:
                connection.close()
            else:
                self._leave(connection)
        if self._leaving:
            self._all_gone = self._loop.create_future()
            await asyncio.wait([self._all_gone], timeout=GOODBYE)
        for connection in list(self._leaving):
            connection.close()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _connect(self, kind: _Kind, deadline: float) -> Connection:
        """A new connection, or one that has become free meanwhile."""
        while self._free <= 0:
            if self._make_room(kind):
                continue
            await self._turn()
            if idle := self._idle.get(kind):
                return idle.pop()
        self._free -= 1
        try:
            connected = await dial(*kind, deadline)
        except BaseException:
            self._free += 1
            self._next()
            raise
        connection = Connection(connected, self._closed)
        self._usable.add(connection)
        if self._looking is None:
            self._looking = self._loop.call_later(self._look_every, self._look)
        return connection

    def _make_room(self, kind: _Kind) -> bool:
        """Close an idle connection to somewhere else, or with TLS files of before."""
        for other, idle in self._idle.items():
            if other != kind and idle:
                self._leave(idle[0])
                return True
        return False

    async def _turn(self) -> None:
        turn = self._loop.create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was this one's turn already
                self._next()
            raise

    def _next(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _settle(self, kind: _Kind, connection: Connection) -> None:
        """A request has ended, by an answer or otherwise."""
        if connection.is_busy:  # the caller was cancelled
            connection.close()
        elif connection.is_open and connection.is_reusable:
            connection.deadline = self._loop.time() + self._keepalive
            self._idle.setdefault(kind, []).append(connection)
            self._next()
        elif connection in self._usable:
            self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        """Close it politely; the next connection need not wait for that."""
        self._forget(connection)
        self._leaving.add(connection)
        connection.leave()

    def _closed(self, connection: Connection) -> None:
        if connection in self._usable:
            self._forget(connection)
        self._leaving.discard(connection)
        if not self._leaving and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _forget(self, connection: Connection) -> None:
        self._usable.discard(connection)
        for kind, idle in list(self._idle.items()):
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[kind]
        self._free += 1
        self._next()

    def _look(self) -> None:
        """Let go of what has waited long enough."""
        now = self._loop.time()
        for connection in [each for each in (*self._usable, *self._leaving) if each.deadline <= now]:
            if connection in self._usable and not connection.is_busy:
                self._leave(connection)
            else:
                connection.time_is_up()
        left = self._usable or self._leaving
        self._looking = self._loop.call_later(self._look_every, self._look) if left else None
