"""Small servers on the loopback interface that the dialers are tried against: echo, proxies, TLS with a private
authority.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from event_handler.simulator.certificates import Authority, issue, make_authority, name
from event_handler.teleport.transport import Dialer

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"
Handler = Callable[[Reader, Writer], Awaitable[None]]


@asynccontextmanager
async def listening(
    handler: Handler, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Serve each connection by `handler`; gives the port. Connections that are open at the end are cut."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if context:
                    await writer.start_tls(context)  # here, not by the server: so the end of the test cuts it too
                await handler(reader, writer)
                writer.close()
                async with asyncio.timeout(2):
                    await writer.wait_closed()
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)
            # A task that ends in an error nobody asks for is told when it is collected, and in Python 3.11 whoever is
            # just parsing source code fails then.
            with suppress(AttributeError):  # Python 3.11.2: a TLS transport that is closed already
                writer.transport.abort()

    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await take_what_waits()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def take_what_waits() -> None:
    """Let connections that the kernel has accepted reach their handler: asyncio leaks those that it gets while a server
    closes.
    """
    for _ in range(5):
        await asyncio.sleep(0)


async def echo(reader: Reader, writer: Writer) -> None:
    """Send back what comes, until the end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def echoes(dial: Dialer, size: int = 100_000) -> bool:
    """Whether what is sent comes back on a dialed stream."""
    stream = await dial()
    assert not stream.getblocking()
    reader, writer = await asyncio.open_connection(sock=stream)
    try:
        sent = bytes(range(256)) * (size // 256)
        writer.write(sent)
        return await asyncio.wait_for(reader.readexactly(len(sent)), 20) == sent
    finally:
        writer.close()
        await writer.wait_closed()


async def join(reader: Reader, writer: Writer, port: int) -> None:
    """Copy both ways between a connection and a local port until one side ends."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def copy(source: Reader, target: Writer) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()

    copies = [asyncio.create_task(copy(reader, far_writer)), asyncio.create_task(copy(far_reader, writer))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        far_writer.transport.abort()
        for task in copies:
            task.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


class HttpProxy:
    """A CONNECT proxy that leads every target to one local port; `seen` has the requests."""

    def __init__(self, port: int, *, login: str = "", answer: bytes = ESTABLISHED) -> None:
        self.port, self.login, self.answer = port, login, answer
        self.seen: list[str] = []

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.seen.append(request)
        token = base64.b64encode(self.login.encode()).decode()
        if self.login and f"Proxy-Authorization: Basic {token}\r\n" not in request:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(self.answer)
        if b" 200 " in self.answer:
            await join(reader, writer, self.port)


class SocksProxy:
    """A SOCKS5 proxy that leads every target to one local port; `seen` has the targets as bytes on the wire."""

    def __init__(self, port: int, *, login: str = "", reply: int = 0) -> None:
        self.port, self.login, self.reply = port, login, reply
        self.seen: list[bytes] = []

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self.login else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, wanted]))
        if self.login:
            _, size = await reader.readexactly(2)
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            accepted = f"{user.decode()}:{password.decode()}" == self.login
            writer.write(bytes([1, 0 if accepted else 1]))
            if not accepted:
                return
        head = await reader.readexactly(4)
        size = {1: 4, 4: 16}.get(head[3]) or (await reader.readexactly(1))[0]
        self.seen.append(head[3:] + await reader.readexactly(size + 2))
        writer.write(bytes([5, self.reply, 0, 3, 4]) + b"here" + b"\x00\x50")
        if self.reply == 0:
            await join(reader, writer, self.port)


class PublicAuthority:
    """An authority that the test's process trusts as if it were a public one, by SSL_CERT_FILE."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.authority: Authority = make_authority("public")
        self._directory = directory
        path = directory / "public.pem"
        path.write_bytes(self.authority.certificate.public_bytes(Encoding.PEM))
        monkeypatch.setenv("SSL_CERT_FILE", str(path))

    def context(self, host: str = "localhost", protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
        """Server settings with a certificate for `host`."""
        return server_context(self._directory, self.authority, (host,), protocols)


def server_context(
    directory: Path, authority: Authority, names: tuple[str, ...], protocols: tuple[str, ...] = ()
) -> ssl.SSLContext:
    key, certificate = issue(authority, name(names[0], "test"), timedelta(hours=1), names)
    path = directory / f"server-{len(list(directory.iterdir()))}.pem"
    path.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context
