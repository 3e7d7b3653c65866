"""The calls that the event handler makes, one method each, in the words of the audit log service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from event_handler.errors import MalformedEventError, RpcError
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.wire import messages as m
from event_handler.teleport.wire.beginning import Beginning
from event_handler.teleport.wire.decode import read_exported, read_page, read_text_field

_AUDIT = "/teleport.auditlog.v1.AuditLogService/"
_AUTH = "/proto.AuthService/"
# events handed on at a time: large enough to spread the cost of a hand-over, small enough not to block for long
RUN = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Who answered: the cluster's name and its server version."""

    name: str
    version: str


class Client:
    """The audit log of one cluster.

    Every method raises RpcError or ConnectError. `empty` counts events without a single byte.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.empty = 0

    @property
    def address(self) -> str:
        """By which the cluster was entered last, "" before."""
        return self._connection.address

    @property
    def route(self) -> str:
        """The name of the way in (docs/connect.md), "" before."""
        return self._connection.route

    @property
    def tls(self) -> str:
        """How the connection is encrypted, in words, "" before."""
        return self._connection.tls

    def close(self) -> None:
        self._connection.close()

    async def aclose(self) -> None:
        """Close and wait a little until that is done."""
        await self._connection.aclose()

    def move_to(self, fresh: Client) -> None:
        """Make new calls on the connection of `fresh`; the old one closes when its last call has ended."""
        self._connection, old = fresh._connection, self._connection
        old.retire()

    async def ping(self) -> Cluster:
        answer = await self._connection.unary(_AUTH + "Ping", b"", timeout=30.0)
        cluster = Cluster(read_text_field(answer, 1), read_text_field(answer, 2))
        if not cluster.name:
            raise RpcError("Ping", "INTERNAL", "the answer names no cluster")
        return cluster

    async def has_bulk_export(self, probe_time: float) -> bool:
        """Ask for the chunks of a day without events: a back end without bulk export answers UNIMPLEMENTED."""
        try:
            async for _ in self.chunks(probe_time):
                pass
        except RpcError as error:
            if error.code == "UNIMPLEMENTED":
                return False
            raise
        return True

    async def chunks(self, day: float) -> AsyncIterator[str]:
        """Names of the complete chunks of the UTC day of `day` (seconds since the epoch), in no order."""
        async for answers in self._connection.stream(_AUDIT + "GetEventExportChunks", m.write_time(1, day)):
            for answer in answers:
                yield read_text_field(answer, 1)

    async def export(self, day: float, chunk: str, cursor: str) -> AsyncIterator[tuple[list[bytes], str]]:
        """Events of a chunk after `cursor` ("" = its start) as undecoded bytes, at most RUN at a time, with the
        cursor after them.
        """
        request = m.write_time(1, day) + m.write_text(2, chunk) + m.write_text(3, cursor)
        async for answers in self._connection.stream(_AUDIT + "ExportUnstructuredEvents", request):
            for at in range(0, len(answers), RUN):
                events = []
                for answer in answers[at : at + RUN]:
                    try:
                        event, after = read_exported(answer)
                        cursor = after or cursor  # an answer without one says nothing about the place
                    except (
                        MalformedEventError
                    ):  # whoever selects from the events meets the same error and keeps the bytes
                        event = answer.unwrapped() if isinstance(answer, Beginning) else answer
                    events.append(event)
                yield self._events(events), cursor

    async def search(
        self,
        since: float,
        until: float,
        *,
        limit: int,
        key: str = "",
        types: tuple[str, ...] = (),
        order: int = m.OLDEST_FIRST,
    ) -> tuple[list[bytes], str]:
        """One page of events between two times (inclusive), as undecoded bytes, and the next page's key ("" = none)."""
        request = (
            m.write_text(1, "default")
            + m.write_time(2, since)
            + m.write_time(3, until)
            + b"".join(m.write_text(4, kind) for kind in types)
            + m.write_number(5, limit)
            + m.write_text(6, key)
            + m.write_number(7, order)
        )
        answer = await self._connection.unary(_AUDIT + "GetUnstructuredEvents", request)
        try:
            events, next_key = read_page(answer)
            return self._events(events), next_key
        except MalformedEventError as error:
            raise RpcError("GetUnstructuredEvents", "DATA_LOSS", error.message) from None

    async def upsert_lock(self, name: str, *, user: str, login: str, message: str, expires: float) -> None:
        """Make or renew a lock on a user or a login; `expires` is in seconds since the epoch, 0 = never."""
        target = m.write_text(1, user) + m.write_text(3, login)
        spec = m.write_message(1, target) + m.write_text(2, message) + (m.write_time(3, expires) if expires else b"")
        request = m.write_message(4, m.write_text(1, name)) + m.write_message(5, spec)
        await self._connection.unary(_AUTH + "UpsertLock", request)

    async def recording(self, session_id: str, index: int) -> AsyncIterator[list[bytes]]:
        """Events of a session recording from `index` on (inclusive), as undecoded bytes, at most RUN at a time."""
        request = m.write_text(1, session_id) + m.write_number(2, index)
        async for answers in self._connection.stream(_AUDIT + "StreamUnstructuredSessionEvents", request):
            for at in range(0, len(answers), RUN):
                yield self._events(answers[at : at + RUN])

    def _events(self, answers: list[bytes]) -> list[bytes]:
        """Without the empty ones, in which there is nothing to deliver or to keep.

        The first of a connection is told.
        """
        events = [answer for answer in answers if answer]
        if len(events) < len(answers):
            if not self.empty:
                log.warning("the cluster answers with events that are empty; they are left out")
            self.empty += len(answers) - len(events)
        return events
