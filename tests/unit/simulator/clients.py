"""Small clients for the simulated cluster, of parts that it does not use itself.

`ssl` on memory, aiohttp's and asyncssh's clients.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

CLUSTER = "sim.test"
AUTH_NAME = "teleport.cluster.local"
AUTH_PROTOCOL = "teleport-auth@73696d2e74657374.teleport.cluster.local"
TUNNEL_PROTOCOL = "teleport-reversetunnel"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def user_context(directory: Path, *protocols: str) -> ssl.SSLContext:
    """The user's TLS settings, read from the files as they are now."""
    context = ssl.create_default_context(cafile=directory / "tls.cas")
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    context.set_alpn_protocols(protocols or ["h2"])
    return context


def web_context(directory: Path, *protocols: str) -> ssl.SSLContext:
    """TLS settings that trust the public authority only."""
    context = ssl.create_default_context(cafile=directory / "web-ca.pem")
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


async def connect(address: str, context: ssl.SSLContext | None = None, name: str = AUTH_NAME) -> Stream:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name if context else None)


def selected(writer: asyncio.StreamWriter) -> str | None:
    chosen: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    return chosen


def issuer(writer: asyncio.StreamWriter) -> str:
    """The organization of the authority that signed the server's certificate."""
    certificate = writer.get_extra_info("peercert")
    return next(str(value) for ((key, value),) in certificate["issuer"] if key == "organizationName")


HTTP2_BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


async def auth_answers(stream: Stream) -> bool:
    """Whether HTTP/2 begins: only that shows that Auth took our certificate."""
    reader, writer = stream
    writer.write(HTTP2_BEGIN)
    return (await reader.readexactly(9))[3:4] == b"\x04"


class InnerTls:
    """TLS with Auth on top of any stream, given as two coroutines."""

    def __init__(
        self,
        context: ssl.SSLContext,
        receive: Callable[[], Awaitable[bytes]],
        send: Callable[[bytes], Awaitable[None]],
        name: str,
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._receive, self._send = receive, send

    async def run(self, step: Callable[[], Any]) -> Any:
        """Repeat a step of the session until it needs no more bytes from the other side."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await self._receive())
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._send(data)


async def auth_answers_inside(
    context: ssl.SSLContext, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]
) -> bool:
    """Whether Auth answers in a TLS session on top of that stream."""
    inner = InnerTls(context, receive, send, AUTH_NAME)
    await inner.run(inner.session.do_handshake)
    await inner.run(lambda: inner.session.write(HTTP2_BEGIN))
    return bytes(await inner.run(lambda: inner.session.read(9)))[3:4] == b"\x04"


class OverTls:
    """Lets asyncssh connect through TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    async def create_connection(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        return await loop.create_connection(factory, host, port, ssl=self._context, server_hostname="localhost")


async def open_tunnel(
    directory: Path,
    address: str,
    *,
    user: str = "-teleport-internal-join",
    key: Any = None,
    tls: ssl.SSLContext | None = None,
    host_name: str = "",
) -> asyncssh.SSHClientConnection:
    """Sign in to the tunnel with the certificate of the identity file, trusting its @cert-authority lines."""
    identity = (directory / "identity").read_text()
    lines = identity.splitlines()
    certificate = next(line for line in lines if "-cert-v01@openssh.com" in line)
    secret = asyncssh.import_private_key(identity[: identity.index("-cert-v01@")].rpartition("\n")[0])
    # The patterns of the lines are not gone by: what counts is the keys.
    known = "".join(
        f"@cert-authority * {line.split(' ', 2)[2]}\n" for line in lines if line.startswith("@cert-authority")
    )
    host, _, port = address.rpartition(":")
    return await asyncssh.connect(
        host,
        int(port),
        username=user,
        host_key_alias=host_name or None,
        client_keys=[key or (secret, asyncssh.import_certificate(certificate))],
        known_hosts=asyncssh.import_known_hosts(known),
        tunnel=OverTls(tls) if tls else None,
        agent_path=None,
        config=None,
    )


class Transport:
    """A channel of the type `teleport-transport`; asyncssh's client needs its inner methods for it too."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._channel: Any = connection.create_tcp_channel()
        self._channel._read_datatypes = {EXTENDED_DATA_STDERR}
        self._data: asyncio.Queue[bytes] = asyncio.Queue()
        self.stderr = b""

    async def open(self) -> None:
        transport = self

        class Session(asyncssh.SSHTCPSession[bytes]):
            def data_received(self, data: bytes, datatype: int | None) -> None:
                if datatype == EXTENDED_DATA_STDERR:
                    transport.stderr += data
                else:
                    transport._data.put_nowait(data)

            def connection_lost(self, error: Exception | None) -> None:
                transport._data.put_nowait(b"")

        await self._channel._open_forward(Session, b"teleport-transport")

    async def dial(self, address: str) -> bool:
        payload = json.dumps({"address": address, "conn_type": "node"}).encode()
        return bool(await self._channel._make_request(b"teleport-transport-dial", payload))

    async def receive(self) -> bytes:
        return await self._data.get()

    async def send(self, data: bytes) -> None:
        self._channel.write(data)

    async def ended(self) -> None:
        await self._channel.wait_closed()
