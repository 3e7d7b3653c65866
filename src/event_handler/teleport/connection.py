"""One gRPC connection to the cluster: a TLS session on the stream of a dialer, HTTP/2 and the calls on top of it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, cast

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from event_handler.errors import ConnectError, RpcError
from event_handler.teleport.dial import Dialer

SERVER_NAME = "teleport.cluster.local"  # the name in every certificate of an Auth server, whatever its address
KEEPALIVE = 61.0  # seconds; servers close connections that ping more often than once a minute
KEEPALIVE_TIMEOUT = 180.0  # seconds, as Teleport's own clients wait
WINDOW = 8 * 1024 * 1024  # bytes; the default 64 KiB would cap a WAN link of 100 ms at 640 KiB/s
TLS_TIMEOUT = 15.0  # seconds; the Proxy's own limit for a handshake
UNARY_TIMEOUT = 90.0  # seconds; Athena's own query limit is 60
STALL_TIMEOUT = 120.0  # seconds without a message after which a stream counts as hung


class _RawCodec(CodecBase):
    """Messages are bytes here: encoding and decoding belong to the caller."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return cast(bytes, message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class _DialedChannel(Channel):
    def __init__(self, dialer: Dialer, context: ssl.SSLContext) -> None:
        super().__init__(
            host=SERVER_NAME,
            port=443,
            codec=_RawCodec(),
            config=Configuration(
                _keepalive_time=KEEPALIVE,
                _keepalive_timeout=KEEPALIVE_TIMEOUT,
                _keepalive_permit_without_calls=True,
                _http2_max_pings_without_data=0,
                http2_connection_window_size=WINDOW,
                http2_stream_window_size=WINDOW,
            ),
        )
        self._scheme = "https"
        self._dialer = dialer
        self._context = context

    async def _create_connection(self) -> H2Protocol:
        stream = await self._dialer()
        try:
            _, protocol = await asyncio.get_running_loop().create_connection(
                self._protocol_factory,
                sock=stream,
                ssl=self._context,
                server_hostname=SERVER_NAME,
                ssl_handshake_timeout=TLS_TIMEOUT,
            )
        except BaseException as error:
            stream.close()
            if isinstance(error, OSError | ssl.SSLError):
                raise explain_tls(error) from None
            raise
        return protocol


def explain_tls(error: Exception) -> ConnectError:
    """Turn a failed handshake into words and a next step."""
    text = str(error).lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectError(
            f"the certificate of the server is not trusted ({error.verify_message})",
            "The address belongs to another cluster, or a load balancer ends TLS in front of Teleport: check teleport.addr, "
            "and issue the identity anew if the cluster's authority was rotated.",
        )
    if "expired" in text:
        return ConnectError(
            "Teleport refused our certificate: it has expired",
            "Renew it with tbot, or with `tctl auth sign --user=teleport-event-handler --out=identity`.",
        )
    if "alert" in text or "certificate" in text:
        return ConnectError(f"Teleport refused our certificate ({error})", "Check that the identity belongs to this cluster.")
    if isinstance(error, ConnectionError) or "eof" in text:
        return ConnectError(
            f"the connection was closed during the TLS handshake ({error})",
            "Check that teleport.addr is the Auth port or a Proxy with TLS routing.",
        )
    return ConnectError(f"the TLS handshake failed ({error})", "Check teleport.addr.")


class Connection:
    """Calls over one connection. It reconnects by itself on the next call after it was lost."""

    def __init__(self, dialer: Dialer, context: ssl.SSLContext) -> None:
        self._channel = _DialedChannel(dialer, context)

    def close(self) -> None:
        self._channel.close()

    async def unary(self, method: str, request: bytes, timeout: float = UNARY_TIMEOUT) -> bytes:
        """Call a unary method. Raises RpcError (the server's answer) or ConnectError (no way in, connection lost)."""
        call: UnaryUnaryMethod[bytes, bytes] = UnaryUnaryMethod(self._channel, method, bytes, bytes)
        try:
            return await call(request, timeout=timeout)
        except Exception as error:
            raise _explain_call(method, error) from None

    async def stream(self, method: str, request: bytes) -> AsyncIterator[bytes]:
        """Call a server-streaming method and yield its messages; raises as `unary` does, also in mid-stream."""
        call: UnaryStreamMethod[bytes, bytes] = UnaryStreamMethod(self._channel, method, bytes, bytes)
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(STALL_TIMEOUT) as watchdog, call.open() as stream:
                await stream.send_message(request, end=True)
                rearmed = clock()
                while (message := await stream.recv_message()) is not None:
                    yield message
                    now = clock()
                    if now - rearmed > 1.0:
                        watchdog.reschedule(now + STALL_TIMEOUT)
                        rearmed = now
        except Exception as error:
            raise _explain_call(method, error) from None


def _explain_call(method: str, error: Exception) -> Exception:
    name = method.rpartition("/")[2]
    if isinstance(error, GRPCError):
        return RpcError(name, error.status.name, error.message or "no details")
    if isinstance(error, TimeoutError):
        return RpcError(name, "DEADLINE_EXCEEDED", "no answer in time")
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, StreamTerminatedError | socket.error):
        return ConnectError(f"the connection to Teleport was lost during {name} ({error or type(error).__name__})")
    return error
