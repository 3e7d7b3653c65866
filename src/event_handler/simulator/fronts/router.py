"""The Proxy's TLS routing: the first message of a TLS client tells where its connection goes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from event_handler.simulator.fronts.client_hello import ClientHello, NotClientHelloError, read_client_hello
from event_handler.simulator.listener import Reader, Writer, hand_over, relay

HELLO_TIMEOUT = 15.0  # seconds, as a real Proxy waits
TUNNEL = "teleport-reversetunnel"
NO_APPLICATION_PROTOCOL = bytes(
    [21, 3, 3, 0, 2, 2, 120]
)  # a fatal alert (RFC 7301 section 3.2), before any key is agreed on

Factory = Callable[[], asyncio.BaseProtocol]


def auth_protocol(cluster: str) -> str:
    """The ALPN name that leads to the Auth servers of `cluster`."""
    return f"teleport-auth@{cluster.encode().hex()}.teleport.cluster.local"


@dataclass(frozen=True, slots=True)
class Ending:
    """TLS ends here: with which settings, asked for at each connection, and which protocol follows inside."""

    context: Callable[[], ssl.SSLContext]
    factory: Factory


@dataclass(frozen=True, slots=True)
class Router:
    """Sends a TLS connection to Auth (untouched), into the SSH tunnel, or to the web server.

    `auth` is Auth's host:port, "" when teleport-auth names are not routed; `tunnel` is None when there is none on this
    port.
    """

    cluster: str
    auth: str
    tunnel: Ending | None
    web: Ending

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello, first = await read_client_hello(reader)
        except NotClientHelloError:
            return
        await self._route(hello)(reader, writer, first)

    def _route(self, hello: ClientHello) -> Callable[[Reader, Writer, bytes], Awaitable[None]]:
        """The first protocol that anything here speaks wins."""
        for protocol in hello.protocols:
            if self.auth and protocol.startswith("teleport-auth@"):
                return self._to_auth if protocol == auth_protocol(self.cluster) else _close
            if self.tunnel is not None and protocol == TUNNEL:
                return _end(self.tunnel)
            if protocol in ("http/1.1", "h2"):
                return _end(self.web)
        return _refuse if hello.protocols else _end(self.web)

    async def _to_auth(self, reader: Reader, writer: Writer, first: bytes) -> None:
        await relay(reader, writer, self.auth, first)


def _end(ending: Ending) -> Callable[[Reader, Writer, bytes], Awaitable[None]]:
    async def end(reader: Reader, writer: Writer, first: bytes) -> None:
        await hand_over(reader, writer, first, ending.factory, ending.context())

    return end


async def _close(reader: Reader, writer: Writer, first: bytes) -> None:
    writer.close()


async def _refuse(reader: Reader, writer: Writer, first: bytes) -> None:
    writer.write(NO_APPLICATION_PROTOCOL)
    await writer.drain()
    writer.close()
