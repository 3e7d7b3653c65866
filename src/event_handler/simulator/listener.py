"""A TCP server for handlers of byte streams, and what they are made of: copying both ways, handing a stream to a
protocol.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

PIECE = 64 * 1024  # bytes copied at once


class Reader(Protocol):
    """What is read from: an asyncio stream, or one of an SSH channel."""

    async def read(self, n: int, /) -> bytes: ...


class Writer(Protocol):
    """What is written to: an asyncio stream, or one of an SSH channel."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def can_write_eof(self) -> bool: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...


class Listener:
    """Runs a handler for every connection.

    When it ends or fails, its connection is closed; a failure is the client's trouble.
    """

    def __init__(self, handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0

    async def start(self, port: int = 0, context: ssl.SSLContext | None = None) -> str:
        """Listen on loopback (port 0 takes a free one) and return host:port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=context)
        host, got = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{got}"

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handler(reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()


async def copy(reader: Reader, writer: Writer) -> None:
    """Copy until the end, and pass the end on."""
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


async def copy_both_ways(reader: Reader, writer: Writer, other_reader: Reader, other_writer: Writer) -> None:
    """Copy until both sides have ended or one has failed (OSError), then close both."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, other_writer))
            group.create_task(copy(other_reader, writer))
    except* OSError:
        pass
    finally:
        writer.close()
        other_writer.close()


async def relay(reader: Reader, writer: Writer, target: str, first: bytes = b"") -> None:
    """Connect to `target` (host:port), send it `first`, then copy both ways.

    Raises OSError when it cannot be reached.
    """
    host, _, port = target.rpartition(":")
    other_reader, other_writer = await asyncio.open_connection(host, int(port))
    other_writer.write(first)
    await copy_both_ways(reader, writer, other_reader, other_writer)


async def hand_over(
    reader: Reader,
    writer: Writer,
    first: bytes,
    factory: Callable[[], asyncio.BaseProtocol],
    context: ssl.SSLContext | None,
) -> None:
    """Let a server protocol have the stream, of which `first` is already read, through TLS if `context` is given:
    asyncio has no way to put read bytes back, so the stream goes through a socket pair.
    """
    ours, theirs = socket.socketpair()
    accepted = asyncio.create_task(_accept(factory, theirs, context))
    other_reader, other_writer = await asyncio.open_connection(sock=ours)
    other_writer.write(first)
    try:
        await copy_both_ways(reader, writer, other_reader, other_writer)
    finally:
        other_writer.close()
        await accepted


async def _accept(
    factory: Callable[[], asyncio.BaseProtocol], end: socket.socket, context: ssl.SSLContext | None
) -> None:
    with suppress(OSError):  # the handshake failed: the client has got the alert, and the pair is closed
        await asyncio.get_running_loop().connect_accepted_socket(factory, end, ssl=context)
