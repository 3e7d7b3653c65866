"""One gRPC connection to the cluster: HTTP/2 on the TLS session that the connector made, and the calls on top of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import h2.events
from grpclib import client
from grpclib.client import Channel, Stream, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import EventsProcessor, H2Protocol

from event_handler import about
from event_handler.errors import ConnectError, EventHandlerError, RpcError
from event_handler.teleport.auth.tls import ClientContext
from event_handler.teleport.transport.connector import SERVER_NAME, Connector, explain_tls
from event_handler.teleport.transport.frames import PREFIX, FrameJoiner, split_messages
from event_handler.teleport.wire.beginning import Beginning

PING_EVERY = 61.0  # seconds; servers close connections that ping more often than once a minute
KEEPALIVE_TIMEOUT = 180.0  # seconds, as Teleport's own clients wait
STREAM_WINDOW = 512 * 1024  # bytes; 5 MiB/s a stream over 100 ms, where the default of 64 KiB would be 640 KiB/s
# at a time: 100 recordings, the most that may be asked for, with the chunks, listings and pages of the audit log
STREAMS = 128
CONNECTION_WINDOW = STREAMS * STREAM_WINDOW  # bytes; streams that nobody reads at the moment must not stop the others
UNARY_TIMEOUT = 90.0  # seconds; Athena's own query limit is 60
GOODBYE = 1.0  # seconds that a connection has to close
STALL_TIMEOUT = 120.0  # seconds without a message after which a stream counts as hung
LARGEST_MESSAGE = (
    32 * 1024 * 1024
)  # bytes; Fluentd's input takes no more by default, and an event takes 7 times its size on its way
KEPT_OF_LARGE = 64 * 1024  # bytes of a larger one; what tells which event it is stands first
WRITE_PIECE = 256 * 1024  # bytes of it read at a time; less than a stream's window
IGNORED = (  # RFC 9113 allows a server to send them at any time, and gRPC has no use for them
    h2.events.AlternativeServiceAvailable,
    h2.events.InformationalResponseReceived,
    h2.events.UnknownFrameReceived,
)

LOST_HINT = "It is connected to again; if that happens often, look at the Auth servers' logs and at what is on the way."
NOT_HTTP2 = "the server has ended it, or does not keep to HTTP/2"  # the library does not tell one from the other


class _RawCodec(CodecBase):
    """Messages are bytes here: encoding and decoding belong to the caller."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return cast(bytes, message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class _Processor(EventsProcessor):
    """Knows a stream that ended without the status that gRPC demands.

    Grpclib itself would wait for that until the time is up.
    """

    ended: Callable[[BaseException], None]

    def process(self, event: h2.events.Event) -> None:
        if not isinstance(event, IGNORED):
            super().process(event)

    def process_stream_ended(self, event: h2.events.StreamEnded) -> None:
        super().process_stream_ended(event)
        stream = self.streams.get(event.stream_id)
        if stream is not None and stream.trailers is None and "grpc-status" not in dict(stream.headers or ()):
            stream.__terminated__("the answer ended without a status")

    def process_connection_terminated(self, event: h2.events.ConnectionTerminated) -> None:
        self.ended(ConnectionError(f"the server ended it with GOAWAY, code {int(event.error_code or 0)}"))
        super().process_connection_terminated(event)


class _Protocol(H2Protocol):
    """Tells why the connection was lost, which grpclib itself forgets: with TLS 1.3 a refused certificate shows up only
    here.

    Frames are joined before the library sees them. Whatever it raises over them ends the connection, as an error of the
    protocol does.
    """

    def __init__(self, like: H2Protocol, on_end: Callable[[BaseException | None], None]) -> None:
        super().__init__(like.handler, like.config, like.h2_config)
        self._on_end = on_end
        self._joiner = FrameJoiner()
        self._ended = False
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()

    async def gone(self, seconds: float) -> None:
        """Wait until the connection is closed; one that is not within `seconds` is cut off."""
        try:  # by wait_for, for this runs while it is being cancelled
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        self.processor = _Processor(self.handler, self.connection)
        self.processor.ended = self._end

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return  # the library has let the connection go, and fails over what still arrives
        try:
            super().data_received(self._joiner.join(data))
        except Exception as error:
            if not self._ended:
                self._end(error)
                self.processor.close(NOT_HTTP2)
        if not self._ended and self.connection.is_closing():
            self._end(ConnectionError(NOT_HTTP2))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gone.set()
        if not self._ended:
            self._end(exc)
        super().connection_lost(exc)

    def _end(self, reason: BaseException | None) -> None:
        self._ended = True
        self._on_end(reason)


class _EnteredChannel(Channel):
    def __init__(self, connector: Connector, context: ClientContext) -> None:
        super().__init__(
            host=SERVER_NAME,
            port=443,
            codec=_RawCodec(),
            config=Configuration(
                _keepalive_time=PING_EVERY,
                _keepalive_timeout=KEEPALIVE_TIMEOUT,
                _keepalive_permit_without_calls=True,
                _http2_max_pings_without_data=0,
                http2_connection_window_size=CONNECTION_WINDOW,
                http2_stream_window_size=STREAM_WINDOW,
            ),
        )
        self._scheme = "https"
        client.USER_AGENT = about.user_agent()  # type: ignore[attr-defined] # grpclib has no option for it
        self._connector = connector
        self.context = context
        self.lost: BaseException | None = None
        self.protocol: _Protocol | None = None  # of the newest connection

    @property
    def in_use(self) -> bool:
        """Whether there is a connection that nobody has ended."""
        return self._connected

    def _lost(self, reason: BaseException | None) -> None:
        self.lost = reason

    async def _create_connection(self) -> H2Protocol:
        self.lost = None
        made = await self._connector.enter(lambda: _Protocol(self._protocol_factory(), self._lost), self.context)
        self.protocol = cast(_Protocol, made)
        return self.protocol


class Connection:
    """Calls over one connection. It reconnects by itself on the next call after it was lost."""

    def __init__(self, connector: Connector, context: ClientContext) -> None:
        self._connector = connector
        self._channel = _EnteredChannel(connector, context)
        self._calls = 0
        self._retired = False

    @property
    def address(self) -> str:
        """By which the cluster was entered last, "" before."""
        return self._connector.address

    @property
    def route(self) -> str:
        """The name of the way in, "" before."""
        return self._connector.route

    @property
    def tls(self) -> str:
        """How the connection is encrypted, in words, "" before."""
        return self._connector.tls

    def close(self) -> None:
        self._channel.close()

    async def aclose(self) -> None:
        """Close, and wait a little for the end of TLS, which an event loop that ends at once would not see."""
        self.close()
        if self._channel.protocol is not None:
            await self._channel.protocol.gone(GOODBYE)

    def retire(self) -> None:
        """Close when the last call has ended: another connection has taken over."""
        self._retired = True
        if not self._calls:
            self.close()

    async def unary(self, method: str, request: bytes, timeout: float = 0.0) -> bytes:
        """Call a unary method; `timeout` is in seconds, 0 = UNARY_TIMEOUT.

        Raises RpcError (the server's answer, or one that is no gRPC) or ConnectError (no way in, connection lost).
        """
        call: UnaryUnaryMethod[bytes, bytes] = UnaryUnaryMethod(self._channel, method, bytes, bytes)
        with self._explained(method):
            async with call.open(timeout=timeout or UNARY_TIMEOUT) as stream:
                await stream.send_message(request, end=True)
                answer = await self._receive(stream, method)
                more = answer is not None and await self._receive(stream, method) is not None
            if answer is None or more:
                raise RpcError(_name(method), "INTERNAL", f"the answer has {'more than one' if more else 'no'} message")
            return answer

    async def stream(self, method: str, request: bytes) -> AsyncIterator[list[bytes]]:
        """Call a server-streaming method and yield its messages as they arrive, one or many at a time.

        One of more than LARGEST_MESSAGE bytes is a Beginning. Raises as `unary` does, also in mid-stream. Only the
        waiting for the server is timed: a reader may take as long as it likes.
        """
        call: UnaryStreamMethod[bytes, bytes] = UnaryStreamMethod(self._channel, method, bytes, bytes)
        with self._explained(method):
            async with call.open() as stream:
                async with asyncio.timeout(STALL_TIMEOUT):
                    await stream.send_message(request, end=True)
                while True:
                    async with asyncio.timeout(STALL_TIMEOUT) as timer:
                        first = await self._receive(stream, method, timer)
                    if first is None:
                        break
                    yield [first, *take_arrived(stream._stream.buffer)]
                async with asyncio.timeout(STALL_TIMEOUT):
                    await stream.recv_trailing_metadata()

    async def _receive(
        self, stream: Stream[bytes, bytes], method: str, timer: asyncio.Timeout | None = None
    ) -> bytes | None:
        """The next message, None at the end. grpclib's own reader believes any length, and fails by an assertion.

        One that is too large is a Beginning where there is a `timer`, of which each piece gets the whole time,
        otherwise an error.
        """
        if stream.initial_metadata is None:
            await stream.recv_initial_metadata()
        with stream._wrapper:
            try:
                prefix = await stream._stream.recv_data(PREFIX)
                if not prefix:
                    return None
                size = int.from_bytes(prefix[1:])
                if prefix[0]:
                    raise RpcError(_name(method), "INTERNAL", "a message is compressed, which was not offered")
                if size > LARGEST_MESSAGE and timer:
                    return await _beginning(stream, size, timer)
                if size > LARGEST_MESSAGE:
                    raise RpcError(
                        _name(method), "INTERNAL", f"a message has {size} bytes, more than {LARGEST_MESSAGE}"
                    )
                return await stream._stream.recv_data(size)
            except AssertionError:
                raise RpcError(_name(method), "INTERNAL", "the answer ends inside a message") from None

    @contextmanager
    def _explained(self, method: str) -> Iterator[None]:
        """Turn whatever a call raises into an error of ours: grpclib wakes a call whose connection was lost by
        cancelling its task, and leaves the task marked as being cancelled; a later TaskGroup in that task would then
        take the failure of a child for a wish to stop. So the mark is taken off here.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        self._calls += 1
        try:
            yield
        except Exception as error:
            if task and task.cancelling() > before and task.uncancel() > before:
                raise asyncio.CancelledError from None  # somebody else wants the task to stop as well
            raise self._explain(_name(method), error) from None
        finally:
            self._calls -= 1
            if self._retired and not self._calls:
                self.close()

    def _explain(self, call: str, error: Exception) -> EventHandlerError:
        """All that runs inside a call is grpclib and what it was sent: whatever it raises comes from outside."""
        if isinstance(error, EventHandlerError):
            return error
        if isinstance(error, GRPCError):
            return RpcError(call, error.status.name, _one_line(error.message or "no details"))
        if isinstance(error, TimeoutError):
            return RpcError(call, "DEADLINE_EXCEEDED", "no answer in time")
        lost = self._channel.lost
        if isinstance(lost, ssl.SSLError):
            return explain_tls(lost, self._connector.address, self._channel.context.credentials)
        text = _one_line(str(lost or error)) or type(lost or error).__name__
        if self._channel.in_use and isinstance(error, StreamTerminatedError):
            return RpcError(call, "UNAVAILABLE", text)
        if self._channel.in_use and not isinstance(error, OSError):
            return RpcError(call, "INTERNAL", f"the answer cannot be read ({text})")
        return ConnectError(
            f"the connection to Teleport at {self._connector.address} was lost during {call} ({text})", LOST_HINT
        )


async def _beginning(stream: Stream[bytes, bytes], size: int, timer: asyncio.Timeout) -> Beginning:
    """Read a message of `size` bytes piece by piece, and keep the first ones only."""
    beginning = await stream._stream.recv_data(KEPT_OF_LARGE)
    left = size - KEPT_OF_LARGE
    while left:
        timer.reschedule(asyncio.get_running_loop().time() + STALL_TIMEOUT)
        left -= len(await stream._stream.recv_data(min(left, WRITE_PIECE)))
    return Beginning.of(beginning, size)


def _name(method: str) -> str:
    return method.rpartition("/")[2]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def take_arrived(buffer: Any) -> list[bytes]:
    """Take all whole messages out of a stream's buffer (grpclib's protocol.Buffer) without waiting.

    Reading them one by one through grpclib costs several times as much as everything else that is done to an event.
    """
    while not buffer._unacked.empty():
        if not buffer._unacked._queue[0].ack_size:
            break  # the end of the stream: grpclib's own reader wants to see it
        data, size, ack_size = buffer._unacked.get_nowait()
        buffer._acked.append((data, size))
        buffer._acked_size += size
        buffer._ack_callback(ack_size)
    if buffer._acked_size < PREFIX:
        return []
    arrived = b"".join(data for data, _ in buffer._acked)
    messages, at = split_messages(arrived)  # a compressed message is refused where a single one is read
    buffer._acked.clear()
    buffer._acked_size = len(arrived) - at
    if at < len(arrived):
        buffer._acked.append((memoryview(arrived)[at:], buffer._acked_size))
    return messages
