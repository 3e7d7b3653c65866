"""The simulated Auth server: the calls of the audit log service over gRPC and mutual TLS."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import time as now
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from event_handler.simulator.log import AuditLog, BadRequest, day_of
from event_handler.simulator.messages import encoded_length, new, parse

VERSION = "19.0.0-simulated"
_AUDIT = "/teleport.auditlog.v1.AuditLogService/"


class _RawCodec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


@dataclass(slots=True)
class Faults:
    """What goes wrong on purpose: every `unavailable_every`-th event of an export ends the stream (0 = never)."""

    unavailable_every: int = 0


class AuthServer:
    """Serves one log. `bulk` tells whether it has bulk export, as only the Athena back end does."""

    def __init__(self, log: AuditLog, *, cluster: str, bulk: bool, faults: Faults) -> None:
        self._log = log
        self._cluster = cluster
        self._bulk = bulk
        self._faults = faults
        self._sent = 0
        self.locks: list[bytes] = []

    def __mapping__(self) -> dict[str, Handler]:
        unary, streaming = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        calls: dict[str, tuple[Callable[[Stream[bytes, bytes]], Awaitable[None]], Cardinality]] = {
            "/proto.AuthService/Ping": (self._ping, unary),
            "/proto.AuthService/UpsertLock": (self._lock, unary),
            _AUDIT + "GetUnstructuredEvents": (self._search, unary),
            _AUDIT + "GetEventExportChunks": (self._chunks, streaming),
            _AUDIT + "ExportUnstructuredEvents": (self._export, streaming),
            _AUDIT + "StreamUnstructuredSessionEvents": (self._recording, streaming),
        }
        return {name: Handler(call, cardinality, bytes, bytes) for name, (call, cardinality) in calls.items()}

    async def start(self, directory: Path, host: str, port: int) -> tuple[Server, int]:
        """Listen with the certificates in `directory`; return the server and the port it got."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(directory / "server.pem")
        context.load_verify_locations(directory / "user-ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        server = Server([self], codec=_RawCodec())
        await server.start(host, port, ssl=context)
        listening: Any = server
        return server, int(listening._server.sockets[0].getsockname()[1])

    async def _ping(self, stream: Stream[bytes, bytes]) -> None:
        await stream.recv_message()
        answer = new("PingResponse", cluster_name=self._cluster, server_version=VERSION)
        await stream.send_message(answer.SerializeToString())

    async def _lock(self, stream: Stream[bytes, bytes]) -> None:
        self.locks.append(await stream.recv_message() or b"")
        await stream.send_message(b"")

    async def _search(self, stream: Stream[bytes, bytes]) -> None:
        asked = parse("SearchRequest", await stream.recv_message() or b"")
        since, until = (field.seconds + field.nanos / 1e9 for field in (asked.start_date, asked.end_date))
        try:
            events, key = self._log.page(since, until, asked.limit, asked.start_key, frozenset(asked.event_types), asked.order == 1)
        except BadRequest as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        # Events are encoded already: put together by hand, a page costs what sending it costs.
        items = b"".join(b"\x0a" + encoded_length(len(event)) + event for event in events)
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
        for message in found.messages[_position(asked.cursor) :]:
            self._sent += 1
            if self._faults.unavailable_every and self._sent % self._faults.unavailable_every == 0:
                raise GRPCError(Status.UNAVAILABLE, "simulated outage in mid-stream")
            await stream.send_message(message)

    async def _recording(self, stream: Stream[bytes, bytes]) -> None:
        asked = parse("RecordingRequest", await stream.recv_message() or b"")
        visible, events = self._log.recordings.get(asked.session_id, (float("inf"), []))
        if visible > now():
            raise GRPCError(Status.NOT_FOUND, f"a recording for session {asked.session_id} was not found")
        for event in events:
            if parse("EventUnstructured", event.wire).index >= asked.start_index:
                await stream.send_message(event.wire)

    def _need_bulk(self, method: str) -> None:
        if not self._bulk:
            raise GRPCError(Status.UNIMPLEMENTED, f"FileLog does not implement {method}")


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
