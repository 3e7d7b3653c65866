"""One gRPC connection to the cluster: HTTP/2 on the TLS session that the entrance made, and the calls on top of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from grpclib import client
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from event_handler import about
from event_handler.errors import ConnectError, RpcError
from event_handler.teleport.entrance import SERVER_NAME, Entrance, explain_tls
from event_handler.teleport.frames import PREFIX, FrameJoiner, split_messages

KEEPALIVE = 61.0  # seconds; servers close connections that ping more often than once a minute
KEEPALIVE_TIMEOUT = 180.0  # seconds, as Teleport's own clients wait
STREAM_WINDOW = 512 * 1024  # bytes; 5 MiB/s a stream over 100 ms, where the default of 64 KiB would be 640 KiB/s
STREAMS = 128  # at a time: 100 recordings, the most that may be asked for, with the chunks, listings and pages of the audit log
CONNECTION_WINDOW = STREAMS * STREAM_WINDOW  # bytes; streams that nobody reads at the moment must not stop the others
UNARY_TIMEOUT = 90.0  # seconds; Athena's own query limit is 60
STALL_TIMEOUT = 120.0  # seconds without a message after which a stream counts as hung


class _RawCodec(CodecBase):
    """Messages are bytes here: encoding and decoding belong to the caller."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return cast(bytes, message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class _Protocol(H2Protocol):
    """Tells why the connection was lost, which grpclib itself forgets: with TLS 1.3 a refused certificate shows up only here.

    Frames are joined before the library sees them.
    """

    def __init__(self, like: H2Protocol, tell: Callable[[BaseException | None], None]) -> None:
        super().__init__(like.handler, like.config, like.h2_config)
        self._tell = tell
        self._joiner = FrameJoiner()

    def data_received(self, data: bytes) -> None:
        super().data_received(self._joiner.join(data))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._tell(exc)
        super().connection_lost(exc)


class _EnteredChannel(Channel):
    def __init__(self, entrance: Entrance, context: ssl.SSLContext) -> None:
        super().__init__(
            host=SERVER_NAME,
            port=443,
            codec=_RawCodec(),
            config=Configuration(
                _keepalive_time=KEEPALIVE,
                _keepalive_timeout=KEEPALIVE_TIMEOUT,
                _keepalive_permit_without_calls=True,
                _http2_max_pings_without_data=0,
                http2_connection_window_size=CONNECTION_WINDOW,
                http2_stream_window_size=STREAM_WINDOW,
            ),
        )
        self._scheme = "https"
        client.USER_AGENT = about.user_agent()  # type: ignore[attr-defined] # grpclib has no option for it
        self._entrance = entrance
        self._context = context
        self.lost: BaseException | None = None

    def _lost(self, reason: BaseException | None) -> None:
        self.lost = reason

    async def _create_connection(self) -> H2Protocol:
        self.lost = None
        protocol = await self._entrance.enter(lambda: _Protocol(self._protocol_factory(), self._lost), self._context)
        return cast(H2Protocol, protocol)


class Connection:
    """Calls over one connection. It reconnects by itself on the next call after it was lost."""

    def __init__(self, entrance: Entrance, context: ssl.SSLContext) -> None:
        self._entrance = entrance
        self._channel = _EnteredChannel(entrance, context)
        self._calls = 0
        self._retired = False

    def close(self) -> None:
        self._channel.close()

    def retire(self) -> None:
        """Close when the last call has ended: another connection has taken over."""
        self._retired = True
        if not self._calls:
            self.close()

    async def unary(self, method: str, request: bytes, timeout: float = UNARY_TIMEOUT) -> bytes:
        """Call a unary method. Raises RpcError (the server's answer) or ConnectError (no way in, connection lost)."""
        call: UnaryUnaryMethod[bytes, bytes] = UnaryUnaryMethod(self._channel, method, bytes, bytes)
        with self._explained(method):
            return await call(request, timeout=timeout)

    async def stream(self, method: str, request: bytes) -> AsyncIterator[list[bytes]]:
        """Call a server-streaming method and yield its messages as they arrive, one or many at a time.

        Raises as `unary` does, also in mid-stream. Only the waiting for the server is timed: a reader may take as long as it likes.
        """
        call: UnaryStreamMethod[bytes, bytes] = UnaryStreamMethod(self._channel, method, bytes, bytes)
        with self._explained(method):
            async with call.open() as stream:
                async with asyncio.timeout(STALL_TIMEOUT):
                    await stream.send_message(request, end=True)
                while True:
                    async with asyncio.timeout(STALL_TIMEOUT):
                        first = await stream.recv_message()
                    if first is None:
                        break
                    yield [first, *take_arrived(stream._stream.buffer)]
                async with asyncio.timeout(STALL_TIMEOUT):
                    await stream.recv_trailing_metadata()

    @contextmanager
    def _explained(self, method: str) -> Iterator[None]:
        """Turn whatever a call raises into an error of ours.

        grpclib wakes a call whose connection was lost by cancelling its task, and leaves the task marked as being cancelled; a later
        TaskGroup in that task would then take the failure of a child for a wish to stop. So the mark is taken off here.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        self._calls += 1
        try:
            yield
        except Exception as error:
            if task and task.cancelling() > before and task.uncancel() > before:
                raise asyncio.CancelledError from None  # somebody else wants the task to stop as well
            raise self._explain(method.rpartition("/")[2], error) from None
        finally:
            self._calls -= 1
            if self._retired and not self._calls:
                self.close()

    def _explain(self, call: str, error: Exception) -> Exception:
        if isinstance(error, GRPCError):
            return RpcError(call, error.status.name, error.message or "no details")
        if isinstance(error, TimeoutError):
            return RpcError(call, "DEADLINE_EXCEEDED", "no answer in time")
        if isinstance(error, StreamTerminatedError | OSError):
            if isinstance(self._channel.lost, ssl.SSLError):
                return explain_tls(self._channel.lost, self._entrance.address)
            reason = self._channel.lost or error
            text = str(reason) or type(reason).__name__
            return ConnectError(f"the connection to Teleport at {self._entrance.address} was lost during {call} ({text})")
        return error


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
