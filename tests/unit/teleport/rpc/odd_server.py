"""An Auth server, over real TLS, that answers with the bytes a test wants.

HTTP/2 frames of any kind, or what is none.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from hpack import Encoder

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.messages import new
from event_handler.simulator.tls import auth_context
from event_handler.teleport.auth.credentials import read_identity
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Route, direct
from event_handler.teleport.transport.connector import Connector, always

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, ALTSVC = range(
    11
)
END_STREAM, END_HEADERS = 1, 4
CLUSTER = "sim.test"
Pairs = list[tuple[str, str]]
OPENING: Pairs = [(":status", "200"), ("content-type", "application/grpc")]
FINE: Pairs = [("grpc-status", "0")]


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + content


def message(content: bytes, flag: int = 0, size: int | None = None) -> bytes:
    return struct.pack(">BI", flag, len(content) if size is None else size) + content


class Peer:
    """One connection, from the server's side. Frames are written by hand, so that they may be wrong."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.encoder = Encoder()

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def headers(self, stream: int, pairs: Pairs, *, end: bool = False) -> None:
        self.raw(frame(HEADERS, END_HEADERS | end * END_STREAM, stream, self.encoder.encode(pairs)))

    def data(self, stream: int, content: bytes, *, end: bool = False) -> None:
        self.raw(frame(DATA, end * END_STREAM, stream, content))

    def answer(self, stream: int, *messages: bytes, opening: Pairs = OPENING, trailers: Pairs = FINE) -> None:
        """A whole answer: headers, messages as they are given, trailers."""
        self.headers(stream, opening)
        for one in messages:
            self.data(stream, one)
        self.headers(stream, trailers, end=True)

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


Answer = Callable[[Peer, int], None]


def sane(peer: Peer, stream: int) -> None:
    peer.answer(stream, message(new("PingResponse", cluster_name=CLUSTER, server_version="19.0.0").SerializeToString()))


@dataclass
class OddServer:
    """`greeting` is sent to whoever connects, `answer` to each request. Without them it is as sane as any."""

    answer: Answer = sane
    greeting: Callable[[Peer], None] | None = None
    accepted: int = 0
    address: str = ""
    serving: set[asyncio.Task[Any]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if task := asyncio.current_task():
            self.serving.add(task)
        state = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        state.initiate_connection()
        peer = Peer(writer)
        if self.greeting is not None:
            self.greeting(peer)
        else:
            peer.raw(state.data_to_send())
        try:
            while data := await reader.read(65536):
                for event in state.receive_data(data):
                    if isinstance(event, StreamEnded) and event.stream_id is not None:
                        self.answer(peer, event.stream_id)
                await writer.drain()
        except OSError:
            pass  # the client has closed the connection, which is its right
        finally:
            writer.close()


@asynccontextmanager
async def odd_server(directory: Path) -> AsyncIterator[tuple[OddServer, Connection]]:
    """A server that is sane as long as nobody changes it, and a connection to it."""
    write_cluster_files(directory, CLUSTER)
    odd = OddServer()
    server = await asyncio.start_server(odd.serve, "127.0.0.1", 0, ssl=auth_context(directory))
    odd.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    route = Route("direct", odd.address, direct(odd.address))
    connection = Connection(Connector(always(route)), client_context(read_identity(str(directory / "identity"))))
    try:
        yield odd, connection
    finally:
        connection.close()
        server.close()
        await asyncio.gather(*odd.serving)
        await server.wait_closed()
