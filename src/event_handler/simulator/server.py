"""The simulated Auth server: the calls of the audit log service over gRPC and mutual TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from time import time as now
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.events import SendInitialMetadata, listen
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from event_handler.simulator.back_ends import BadRequest
from event_handler.simulator.framing import one_message_a_frame
from event_handler.simulator.log import AuditLog, day_of
from event_handler.simulator.messages import encoded_length, new, parse
from event_handler.simulator.pace import Pace
from event_handler.simulator.tls import auth_context

VERSION = "19.0.0-simulated"
BATCH = 256 * 1024  # bytes that are handed to the transport at once
_AUDIT = "/teleport.auditlog.v1.AuditLogService/"
Call = Callable[[Stream[bytes, bytes]], Awaitable[None]]


class _RawCodec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class _Server(Server):
    def _protocol_factory(self) -> H2Protocol:
        return one_message_a_frame(super()._protocol_factory())


@dataclass(slots=True)
class Faults:
    """What goes wrong on purpose (0 = never).

    `unavailable_every`: every so-many-th event of an export ends the stream. `invalid_every`: every so-many-th search
    is answered with INVALID_ARGUMENT, which passes, as DynamoDB does when AWS has an internal error.
    """

    unavailable_every: int = 0
    invalid_every: int = 0


class AuthServer:
    """Serves one log. `bulk` tells whether it has bulk export, as only the Athena back end does.

    `pace` is in events a second, for all together; `search_cost` in seconds, which a search takes for each of its
    events by itself.
    """

    def __init__(
        self, log: AuditLog, *, cluster: str, bulk: bool, faults: Faults, pace: float = 0.0, search_cost: float = 0.0
    ) -> None:
        self._log = log
        self._cluster = cluster
        self._bulk = bulk
        self._faults = faults
        self._pace = Pace(pace)
        self._search_cost = search_cost
        self._sent = 0
        self._searches = 0
        self._locks_file: Path | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.locks: list[bytes] = []
        self.calls: Counter[str] = Counter()  # by the name of the method

    def __mapping__(self) -> dict[str, Handler]:
        unary, streaming = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        calls: dict[str, tuple[Call, Cardinality]] = {
            "/proto.AuthService/Ping": (self._ping, unary),
            "/proto.AuthService/UpsertLock": (self._lock, unary),
            _AUDIT + "GetUnstructuredEvents": (self._search, unary),
            _AUDIT + "GetEventExportChunks": (self._chunks, streaming),
            _AUDIT + "ExportUnstructuredEvents": (self._export, streaming),
            _AUDIT + "StreamUnstructuredSessionEvents": (self._recording, streaming),
        }
        return {
            name: Handler(self._counted(name, call), cardinality, bytes, bytes)
            for name, (call, cardinality) in calls.items()
        }

    def _counted(self, name: str, call: Call) -> Call:
        method = name.rpartition("/")[2]

        async def counted(stream: Stream[bytes, bytes]) -> None:
            self.calls[method] += 1
            await call(stream)

        return counted

    async def start(self, directory: Path, host: str, port: int) -> tuple[Server, int]:
        """Listen with the certificates in `directory`; return the server and the port it got."""
        self.reload(directory)
        context = auth_context(directory)
        context.sni_callback = self._choose_context
        server = _Server([self], codec=_RawCodec())
        listen(server, SendInitialMetadata, _tell_version)
        self._locks_file = directory / "locks.jsonl"
        await server.start(host, port, ssl=context)
        listening: Any = server
        return server, int(listening._server.sockets[0].getsockname()[1])

    def reload(self, directory: Path) -> None:
        """Go by the certificates that are in `directory` now, from the next connection on; running ones stay."""
        self._context = auth_context(directory)

    def _choose_context(
        self, connection: ssl.SSLObject | ssl.SSLSocket, server_name: str | None, context: ssl.SSLContext
    ) -> None:
        connection.context = self._context

    async def _ping(self, stream: Stream[bytes, bytes]) -> None:
        await stream.recv_message()
        answer = new("PingResponse", cluster_name=self._cluster, server_version=VERSION)
        await stream.send_message(answer.SerializeToString())

    async def _lock(self, stream: Stream[bytes, bytes]) -> None:
        wire = await stream.recv_message() or b""
        self.locks.append(wire)
        lock = parse("Lock", wire)
        facts = {"name": lock.metadata.name, "user": lock.spec.target.user, "login": lock.spec.target.login}
        facts |= {"message": lock.spec.message, "expires": lock.spec.expires.seconds}
        if self._locks_file is not None:
            with self._locks_file.open("a") as file:
                file.write(json.dumps(facts) + "\n")
        await stream.send_message(b"")

    async def _search(self, stream: Stream[bytes, bytes]) -> None:
        asked, begun = parse("SearchRequest", await stream.recv_message() or b""), monotonic()
        self._searches += 1
        if self._faults.invalid_every and self._searches % self._faults.invalid_every == 0:
            raise GRPCError(Status.INVALID_ARGUMENT, "InternalServerError: simulated")
        since, until = (field.seconds + field.nanos / 1e9 for field in (asked.start_date, asked.end_date))
        try:
            events, key = self._log.page(
                since, until, asked.limit, asked.start_key, frozenset(asked.event_types), asked.order == 1
            )
        except BadRequest as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        # Events are encoded already: put together by hand, a page costs what sending it costs.
        items = b"".join(b"\x0a" + encoded_length(len(event)) + event for event in events)
        await self._pace.take(len(events))
        await asyncio.sleep(max(0.0, begun + self._search_cost * len(events) - monotonic()))
        await stream.send_message(items + new("EventsUnstructured", last_key=key).SerializeToString())

    async def _chunks(self, stream: Stream[bytes, bytes]) -> None:
        asked = parse("ChunksRequest", await stream.recv_message() or b"")
        self._need_bulk("GetEventExportChunks")
        for chunk in self._log.visible_chunks(day_of(asked.date.seconds)):
            await stream.send_message(new("EventExportChunk", chunk=chunk.name).SerializeToString())

    async def _export(self, stream: Stream[bytes, bytes]) -> None:
        asked = parse("ExportRequest", await stream.recv_message() or b"")
        self._need_bulk("ExportUnstructuredEvents")
        if not asked.chunk:
            raise GRPCError(Status.INVALID_ARGUMENT, "missing required parameter 'chunk'")
        chunks = self._log.visible_chunks(day_of(asked.date.seconds))
        found = next((chunk for chunk in chunks if chunk.name == asked.chunk), None)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f'event chunk "{asked.chunk}" not found')
        rest = found.messages[_position(asked.cursor) :]
        every = self._faults.unavailable_every
        left = every - self._sent % every - 1 if every else len(rest)  # messages until the next outage
        self._sent += min(len(rest), left + 1)
        await _send_all(stream, rest[:left], self._pace)
        if left < len(rest):
            raise GRPCError(Status.UNAVAILABLE, "simulated outage in mid-stream")

    async def _recording(self, stream: Stream[bytes, bytes]) -> None:
        asked = parse("RecordingRequest", await stream.recv_message() or b"")
        visible, events = self._log.recordings.get(asked.session_id, (float("inf"), []))
        if visible > now():
            raise GRPCError(Status.NOT_FOUND, f"a recording for session {asked.session_id} was not found")
        await _send_all(stream, [event.wire for event in events if event.index >= asked.start_index], self._pace)

    def _need_bulk(self, method: str) -> None:
        if not self._bulk:
            raise GRPCError(Status.UNIMPLEMENTED, self._log.back_end.export_error(method))


async def _tell_version(event: SendInitialMetadata) -> None:
    event.metadata["version"] = VERSION


async def _send_all(stream: Stream[bytes, bytes], messages: list[bytes], pace: Pace) -> None:
    """Send encoded messages many at a time: grpclib itself flushes after each, which is several times slower."""
    if not messages:
        return
    await pace.take(1)
    await stream.send_message(messages[0])
    batch, held = bytearray(), 0
    for message in messages[1:]:
        batch += struct.pack(">BI", 0, len(message)) + message
        held += 1
        if len(batch) >= BATCH:
            await pace.take(held)
            await stream._stream.send_data(bytes(batch))
            batch.clear()
            held = 0
    if batch:
        await pace.take(held)
        await stream._stream.send_data(bytes(batch))


def _position(cursor: str) -> int:
    if not cursor:
        return 0
    form, colon, number = cursor.partition(":")
    if not colon or ":" in number:
        raise GRPCError(Status.INVALID_ARGUMENT, "invalid key format")
    if form != "a1":
        raise GRPCError(Status.INVALID_ARGUMENT, f"unsupported cursor format (expected a1, got {form})")
    if not number.isdigit():
        raise GRPCError(Status.UNKNOWN, f'strconv.Atoi: parsing "{number}": invalid syntax')
    return int(number)
