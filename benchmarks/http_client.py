"""What a request costs: CPU of this process for each HTTP client, against a receiver in a process of its own, mutual
TLS, kept alive.

The bare rows are no clients: they send ready bytes and take whatever comes for an answer, and show what is left below
them.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import aiohttp
import orjson
from yarl import URL

from benchmarks import stage
from event_handler.sinks.http import Answer, HttpClient, TlsFiles
from event_handler.sinks.http_tls import tls_context

REQUESTS = 5000
IN_FLIGHT = 64  # the most that the fluentd sink has
BODY = orjson.dumps({"uid": "00000000-0000-4000-8000-000000000000", "event": "user.login", "pad": "p" * 320})
HEADERS = {"Content-Type": "application/json", "User-Agent": "benchmark", "Accept-Encoding": "identity"}
READY = b"POST /a HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)

Send = Callable[[], Awaitable[None]]


@asynccontextmanager
async def with_ours(url: URL, files: TlsFiles) -> AsyncIterator[Send]:
    client = HttpClient("benchmark", files, connections=IN_FLIGHT, headers=HEADERS, status_only=True)

    async def send() -> None:
        answer = await client.post(url, BODY)
        if not isinstance(answer, Answer) or answer.status != 200:
            raise SystemExit(f"the receiver did not take a request: {answer}")

    yield send
    await client.close()


def with_aiohttp(timeout: float | None) -> Callable[[URL, TlsFiles], AbstractAsyncContextManager[Send]]:
    @asynccontextmanager
    async def client(url: URL, files: TlsFiles) -> AsyncIterator[Send]:
        context = tls_context("benchmark", files)
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT, keepalive_timeout=8.0)
        limit = aiohttp.ClientTimeout(total=timeout)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(
            connector=connector, timeout=limit, headers=HEADERS, cookie_jar=jar
        ) as session:

            async def send() -> None:
                async with session.post(url, data=BODY, allow_redirects=False, ssl=context) as answer:
                    await answer.read()

            yield send

    return client


class _Bare(asyncio.Protocol):
    """Takes the first bytes that come for the answer."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.waiting: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.waiting is not None:
            self.waiting.set_result(data)


@asynccontextmanager
async def with_protocols(url: URL, files: TlsFiles) -> AsyncIterator[Send]:
    loop, context = asyncio.get_running_loop(), tls_context("benchmark", files)
    made = [await loop.create_connection(_Bare, "localhost", url.port or 0, ssl=context) for _ in range(IN_FLIGHT)]
    idle = list(made)

    async def send() -> None:
        transport, protocol = idle.pop()
        protocol.waiting = loop.create_future()
        transport.write(READY)
        await protocol.waiting
        idle.append((transport, protocol))

    yield send
    for transport, _ in made:
        transport.abort()


@asynccontextmanager
async def with_sockets(url: URL, files: TlsFiles) -> AsyncIterator[Send]:
    loop, context = asyncio.get_running_loop(), tls_context("benchmark", files)
    waiting: dict[ssl.SSLSocket, asyncio.Future[bytes]] = {}
    idle: list[ssl.SSLSocket] = []

    def read(connected: ssl.SSLSocket) -> None:
        try:
            data = connected.recv(65536)
        except ssl.SSLWantReadError:  # a session ticket
            return
        waiting[connected].set_result(data)

    for _ in range(IN_FLIGHT):
        connected = context.wrap_socket(socket.create_connection(("localhost", url.port)), server_hostname="localhost")
        connected.setblocking(False)
        loop.add_reader(connected, read, connected)
        idle.append(connected)
    made = list(idle)

    async def send() -> None:
        connected = idle.pop()
        waiting[connected] = loop.create_future()
        connected.send(READY)
        await waiting[connected]
        idle.append(connected)

    yield send
    for connected in made:
        loop.remove_reader(connected)
        connected.close()


CLIENTS = {
    "aiohttp, as it was used": with_aiohttp(30.0),
    "aiohttp without time-out": with_aiohttp(None),
    "the sinks' own client": with_ours,
    "bare: protocols on asyncio's TLS": with_protocols,
    "bare: sockets on ssl": with_sockets,
}


async def cost(send: Send, requests: int) -> tuple[float, float]:
    """CPU µs a request, and requests a second, once every connection is made."""
    await asyncio.gather(*(send() for _ in range(IN_FLIGHT)))
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            await send()

    cpu, wall = process_time(), perf_counter()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return (process_time() - cpu) / requests * 1e6, requests / (perf_counter() - wall)


async def measure(requests: int, runs: int, delay_ms: float) -> dict[str, tuple[float, float]]:
    """Medians of `runs` for each client; the clients take turns, so that all meet the same machine."""
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in CLIENTS}
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _, url = await stack.enter_async_context(stage.collector(directory, f"--delay-ms={delay_ms}"))
        ca, cert, key = (str(directory / name) for name in ("ca.crt", "client.crt", "client.key"))
        files = TlsFiles(ca, cert, key)
        for _ in range(runs):
            for name, client in CLIENTS.items():
                async with client(URL(url) / "a", files) as send:
                    costs[name].append(await cost(send, requests))
    return {name: (median(cpu for cpu, _ in each), median(rate for _, rate in each)) for name, each in costs.items()}


async def report(requests: int, runs: int, delays: list[float]) -> None:
    measured = [await measure(requests, runs, delay) for delay in delays]
    columns = [title for delay in delays for title in (f"{delay:g} ms: CPU µs", "requests/s")]
    rows = [
        [name, *(text for each in measured for text in (f"{each[name][0]:.0f}", f"{each[name][1]:,.0f}"))]
        for name in CLIENTS
    ]
    stage.show(f"A request with {len(BODY)} B, {IN_FLIGHT} in flight, medians of {runs}", ["client", *columns], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_client", description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="requests of a run")
    parser.add_argument("--runs", type=int, default=3, help="runs of each client; their medians are shown")
    parser.add_argument(
        "--delay-ms", type=float, nargs="+", default=[0.0, 25.0], help="milliseconds before each answer"
    )
    options = parser.parse_args()
    asyncio.run(report(options.requests, options.runs, options.delay_ms))


if __name__ == "__main__":
    main()
