"""A connection ends as TLS wants it: the receiver reads a clean end, not a torn one, however the connection came to its
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

import pytest

from event_handler.ports import Delivered
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from tests.contract.deliveries import eventually, verdict
from tests.contract.pki import Pki

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"


@dataclass(slots=True)
class Strict:
    """A server on plain `ssl` sockets, a thread a connection, that does not take a torn end for an end."""

    port: int
    ends: list[str] = field(default_factory=list)
    requests: int = 0

    def serve(self, connected: socket.socket, context: ssl.SSLContext, answer: bytes) -> None:
        connected.settimeout(20)
        with context.wrap_socket(connected, server_side=True, suppress_ragged_eofs=False) as secured:
            try:
                while request := secured.recv(65536):
                    if b"\r\n\r\n" in request:
                        self.requests += 1
                        secured.sendall(answer)
                self.ends.append("clean")
            except OSError as error:
                self.ends.append(repr(error))


@asynccontextmanager
async def strict(pki: Pki, answer: bytes) -> AsyncIterator[Strict]:
    context = pki.server_context("localhost")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Strict(listening.getsockname()[1])
        serving: list[asyncio.Task[None]] = []

        async def accept() -> None:
            while True:
                connected, _ = await asyncio.get_running_loop().sock_accept(listening)
                connected.setblocking(True)
                serving.append(asyncio.create_task(asyncio.to_thread(server.serve, connected, context, answer)))

        listening.setblocking(False)
        accepting = asyncio.create_task(accept())
        try:
            yield server
        finally:
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            await asyncio.gather(*serving)


def fluentd(pki: Pki, port: int, keepalive: float = 8.0) -> FluentdSink:
    url, files = f"https://localhost:{port}/a", pki.client_files()
    return FluentdSink(
        FluentdOptions(url=url, session_url=url, ca=files.ca, cert=files.cert, key=files.key),
        keepalive=keepalive,
    )


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver's TLS is of one version."""
    original = Pki.server_context

    def limited(self: Pki, *names: str, clients: Pki | None = None) -> ssl.SSLContext:
        context = original(self, *names, clients=clients)
        context.maximum_version = request.param
        return context

    monkeypatch.setattr(Pki, "server_context", limited)


@pytest.mark.usefixtures("version")
async def test_an_idle_connection_is_ended_cleanly(pki: Pki) -> None:
    async with strict(pki, OK + b"\r\n") as server:
        sink = fluentd(pki, server.port, keepalive=0.1)
        assert await verdict(sink) == Delivered()
        await eventually(lambda: bool(server.ends))
        await sink.close()
    assert server.ends == ["clean"]


@pytest.mark.usefixtures("version")
async def test_the_end_of_the_process_ends_every_connection_cleanly(pki: Pki) -> None:
    async with strict(pki, OK + b"\r\n") as server:
        sink = fluentd(pki, server.port)
        assert await asyncio.gather(*(verdict(sink) for _ in range(4))) == [Delivered()] * 4
        await sink.close()
    assert set(server.ends) == {"clean"}


@pytest.mark.parametrize(
    "more", [b"Connection: close\r\n\r\n", b"\r\nbytes that nobody asked for", b"Transfer-Encoding: x\r\n\r\n"]
)
async def test_a_connection_that_is_not_used_again_is_ended_cleanly(pki: Pki, more: bytes) -> None:
    async with strict(pki, OK + more) as server:
        sink = fluentd(pki, server.port)
        assert await verdict(sink) == Delivered()
        await eventually(lambda: bool(server.ends))
        await sink.close()
    assert server.ends == ["clean"]


async def test_a_request_that_is_cancelled_ends_its_connection_cleanly(pki: Pki) -> None:
    async with strict(pki, b"") as server:
        sink = fluentd(pki, server.port)
        sending = asyncio.create_task(verdict(sink))
        await eventually(lambda: server.requests == 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await eventually(lambda: bool(server.ends))
        await sink.close()
    assert server.ends == ["clean"]


async def test_a_receiver_that_never_ends_its_side_holds_up_nothing(pki: Pki) -> None:
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(OK + b"\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed has it for ReadTransport only
        await released.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=pki.server_context("localhost")) as server:
        sink = fluentd(pki, server.sockets[0].getsockname()[1])
        assert await verdict(sink) == Delivered()
        begin = monotonic()
        await sink.close()
        assert monotonic() - begin < 10
        released.set()
