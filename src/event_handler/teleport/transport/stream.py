"""A byte stream that layers are stacked on, and the pump that turns the topmost layer into a socket.

Layers pull: each read asks the layer below, each write waits until the layer below took the bytes. So nothing is
buffered beyond one chunk a direction, a slow side slows the other, and a layer that is closed leaves neither task nor
transport behind.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

import structlog

CHUNK = 256 * 1024  # bytes of one read; larger ones are no faster and cost memory
FINISH_TIMEOUT = 2.0  # seconds for saying goodbye to a peer that does not read any more
PROXY_HEAD_LIMIT = 16 * 1024  # bytes of an HTTP answer's head; real ones have some hundred

log = structlog.get_logger()
_pumps: set[asyncio.Task[None]] = set()  # the event loop itself keeps weak references only


class Stream(Protocol):
    """A byte stream in both directions. Reading and writing may run at the same time; failures are OSError."""

    async def read(self, limit: int = CHUNK) -> bytes:
        """Return up to `limit` bytes as soon as there are any, b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Return when the layer below has taken all of `data`. Concurrent calls do not mix their bytes."""

    async def finish(self) -> None:
        """Tell the other side that nothing follows."""

    def close(self) -> None:
        """Release everything at once, down to the socket. May be called again."""


class SocketStream:
    """The lowest layer: a connected, non-blocking socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._loop = asyncio.get_running_loop()
        self._writing = asyncio.Lock()

    async def read(self, limit: int = CHUNK) -> bytes:
        return await self._loop.sock_recv(self.socket, limit)

    async def write(self, data: bytes) -> None:
        async with self._writing:
            await self._loop.sock_sendall(self.socket, data)

    async def finish(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


async def read_exactly(stream: Stream, size: int) -> bytes:
    """Read `size` bytes and not one more. Raises ConnectionError when the stream ends before."""
    data = b""
    while len(data) < size:
        piece = await stream.read(size - len(data))
        if not piece:
            raise ConnectionError("the connection was closed")
        data += piece
    return data


async def read_head(stream: Stream) -> bytes:
    """Read the head of an HTTP answer up to its empty line, byte by byte: what follows belongs to the next layer.

    Raises ConnectionError when the stream ends before, or the head is larger than PROXY_HEAD_LIMIT.
    """
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        if len(head) >= PROXY_HEAD_LIMIT:
            raise ConnectionError(f"its answer has no end within {PROXY_HEAD_LIMIT // 1024} KiB")
        head += await read_exactly(stream, 1)
    return bytes(head)


def as_socket(stream: Stream) -> socket.socket:
    """Return a non-blocking socket that carries the stream, which from now on belongs to it.

    A kernel socket is returned as it is. Any other stream is pumped through a socket pair (no listener, so no other
    process can reach it) until either side ends; what was read before is still passed on, then both are closed.
    """
    if isinstance(stream, SocketStream):
        return stream.socket
    outer, inner = socket.socketpair()
    outer.setblocking(False)
    inner.setblocking(False)
    task = asyncio.get_running_loop().create_task(_pump(stream, SocketStream(inner)))
    _pumps.add(task)
    task.add_done_callback(_pumps.discard)
    return outer


async def _pump(remote: Stream, local: Stream) -> None:
    directions = [asyncio.create_task(_copy(remote, local)), asyncio.create_task(_copy(local, remote))]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        try:
            for outcome in await asyncio.gather(*directions, return_exceptions=True):
                if isinstance(
                    outcome, Exception
                ):  # the connection ends and is made again, so nobody else would hear of it
                    log.error(
                        "a tunnelled connection failed", error=f"{type(outcome).__name__}: {outcome}", exc_info=outcome
                    )
        finally:
            remote.close()
            local.close()


async def _copy(source: Stream, target: Stream) -> None:
    try:
        while data := await source.read():
            await target.write(data)
        async with asyncio.timeout(FINISH_TIMEOUT):
            await target.finish()
    except OSError as error:  # the peer sees the end of the stream, and TLS inside it tells whether it came too early
        log.debug("a tunnelled connection broke", reason=str(error) or type(error).__name__)
