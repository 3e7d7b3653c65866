"""A receiver of HTTP requests over real sockets and real TLS whose behaviour a test scripts request by request."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from event_handler.sinks.packing import zstd_module


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came: `body` is unpacked where it was sent as gzip or zstd."""

    target: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"


@dataclass(slots=True)
class Exchange:
    """One request and the connection that it came on.

    `request` is None, and not in the `log`, while its body has not been read.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    target: str
    headers: Mapping[str, str]
    log: list[Request]
    request: Request | None = None
    method: str = "POST"

    async def read_body(self) -> Request:
        if self.request is None:
            body = await self.reader.readexactly(int(self.headers.get("content-length", "0")))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            elif self.headers.get("content-encoding") == "zstd":
                body = zstd_module().decompress(body)
            self.request = Request(self.target, self.headers, body, self.method)
            self.log.append(self.request)
        return self.request

    async def send(self, data: bytes) -> None:
        """Raises ConnectionResetError when the client has gone.

        Drain() alone does not, when it has no reason to let others run.
        """
        self.writer.write(data)
        await asyncio.sleep(0)
        await self.writer.drain()
        if self.writer.is_closing():
            raise ConnectionResetError


Step = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answers: a status with a body."""

    status: int
    body: bytes = b""


Success = Callable[[Request], Reply]


def head(status: int, length: int | None, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None and status != 204:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def answer(status: int, body: bytes = b"", pieces: int = 1, **headers: str) -> Step:
    """Read the request and answer; the body goes out in `pieces`, with a pause between."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await exchange.send(head(status, len(body), named))
        size = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), size):
            await exchange.send(body[start : start + size])
            await asyncio.sleep(0.002 if pieces > 1 else 0.0)

    return step


def raw(data: bytes, *, close: bool = False) -> Step:
    """Read the request and send these very bytes; the connection stays open unless `close`."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.send(data)
        if close:
            exchange.writer.close()

    return step


async def cut_without_answer(exchange: Exchange) -> None:
    """Read everything, so that it counts as delivered, and let the answer get lost."""
    await exchange.read_body()
    exchange.writer.close()


async def reset_in_request(exchange: Exchange) -> None:
    """Read the first bytes of the body and reset the connection."""
    await exchange.reader.readexactly(1)
    reset(exchange.writer)


def cut_in_answer(status: int, body: bytes) -> Step:
    """Promise a body and cut the connection in its middle."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.send(head(status, len(body) + 100, {}) + body)
        exchange.writer.close()

    return step


async def trickle_head(exchange: Exchange) -> None:
    """Answer one byte now and then and never come to an end."""
    await exchange.read_body()
    await exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await exchange.send(b"x")
        await asyncio.sleep(0.02)


def trickle_body(status: int, body: bytes) -> Step:
    """Promise a longer body and go on with one byte now and then."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.send(head(status, len(body) + 1_000_000, {}) + body)
        while True:
            await exchange.send(b" ")
            await asyncio.sleep(0.02)

    return step


def endless(status: int, sent: list[int]) -> Step:
    """Answer with a body that has no end, as fast as it is taken; `sent` counts the bytes."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.send(head(status, 1 << 40, {}))
        while True:
            await exchange.send(b"x" * 65536)
            sent.append(65536)

    return step


async def stay_silent(exchange: Exchange) -> None:
    """Wait until the other side gives up."""
    await exchange.read_body()
    await exchange.reader.read(1)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset, as a crashed peer or a firewall does."""
    connected = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is closed already
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass(slots=True)
class Receiver:
    """Answers by `script`, one step a request; at its end by the step `otherwise`, or with `success` without one."""

    success: Success
    script: deque[Step] = field(default_factory=deque)
    otherwise: Step | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0
    tls: bool = True
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    async def start(self, context: ssl.SSLContext | None) -> None:
        """Listen, on the port of the last time if there was one."""
        self.tls = context is not None
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and cut every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            reset(writer)
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
            }
            step = self.script.popleft() if self.script else self.otherwise or self._succeed
            method, target, _ = lines[0].split(" ")
            await step(Exchange(reader, writer, target, headers, self.requests, method=method))

    async def _succeed(self, exchange: Exchange) -> None:
        reply = self.success(await exchange.read_body())
        await answer(reply.status, reply.body)(exchange)


@contextlib.asynccontextmanager
async def refusing(context: ssl.SSLContext) -> AsyncIterator[str]:
    """A server whose handshake ends with a TLS alert that the client can read; yields its URL.

    It has a thread of its own: asyncio closes a connection whose handshake fails without sending the alert.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(asyncio.to_thread(_refuse_one, listening, context))
        yield f"https://localhost:{listening.getsockname()[1]}"
        await serving


def _refuse_one(listening: socket.socket, context: ssl.SSLContext) -> None:
    connected, _ = listening.accept()
    with connected, context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False) as secured:
        secured.settimeout(20)
        with contextlib.suppress(ssl.SSLError):
            secured.do_handshake()
        with socket.socket(fileno=secured.detach()) as plain:
            plain.settimeout(20)
            while plain.recv(65536):  # a close with unread data would be a reset, and might overtake the alert
                pass


@contextlib.asynccontextmanager
async def receiving(success: Success, context: ssl.SSLContext | None) -> AsyncIterator[Receiver]:
    receiver = Receiver(success)
    await receiver.start(context)
    try:
        yield receiver
    finally:
        await receiver.stop()
