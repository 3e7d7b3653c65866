"""One gRPC connection: a stream is read many messages at once, whatever pieces it arrives in, and each call tells
who is calling.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from grpclib.protocol import Buffer
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from event_handler import about
from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from event_handler.teleport.auth.credentials import read_identity
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc import connection
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection, take_arrived
from event_handler.teleport.transport import Route, direct
from event_handler.teleport.transport.connector import Connector, always
from event_handler.teleport.wire.beginning import Beginning
from event_handler.teleport.wire.decode import convert, read_envelope, read_event
from event_handler.teleport.wire.messages import write_varint


def framed(messages: list[bytes]) -> bytes:
    return b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)


@given(st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_messages_are_the_same_in_whatever_pieces_they_arrive(messages: list[bytes], data: st.DataObject) -> None:
    wire = framed(messages)
    acknowledged: list[int] = []
    buffer = Buffer(acknowledged.append)
    taken: list[bytes] = []
    at = 0
    while at < len(wire):
        size = data.draw(st.integers(1, len(wire) - at))
        buffer.add(wire[at : at + size], size)
        at += size
        if data.draw(st.booleans()):
            taken += take_arrived(buffer)
    buffer.eof()
    taken += take_arrived(buffer)
    assert taken == messages
    assert sum(acknowledged) == len(wire)


async def test_the_rest_of_a_message_that_is_not_whole_is_left_to_the_waiting_reader() -> None:
    wire = framed([b"first", b"second"])
    buffer = Buffer(lambda _: None)
    buffer.add(wire[:-3], len(wire) - 3)
    assert take_arrived(buffer) == [b"first"]
    buffer.add(wire[-3:], 3)
    buffer.eof()
    assert await buffer.read(5) == struct.pack(">BI", 0, 6)
    assert await buffer.read(6) == b"second"
    assert await buffer.read(5) == b""


def test_a_compressed_message_is_left_to_the_reader_that_refuses_it() -> None:
    buffer = Buffer(lambda _: None)
    wire = struct.pack(">BI", 1, 3) + b"zip"
    buffer.add(wire, len(wire))
    assert take_arrived(buffer) == []


class AskingServer(AuthServer):
    """Keeps who called."""

    caller = ""

    async def _ping(self, stream: Any) -> None:
        self.caller = stream.user_agent
        await super()._ping(stream)


class EndlessServer(AuthServer):
    """Its recordings never end."""

    async def _recording(self, stream: Any) -> None:
        await stream.recv_message()
        while True:
            await stream.send_message(bytes(64 * 1024))


@asynccontextmanager
async def connected(directory: Path, auth: AuthServer) -> AsyncIterator[Client]:
    write_cluster_files(directory, "sim.test")
    server, port = await auth.start(directory, "127.0.0.1", 0)
    address = f"127.0.0.1:{port}"
    connector = Connector(always(Route("direct", address, direct(address))))
    client = Client(Connection(connector, client_context(read_identity(str(directory / "identity")))))
    try:
        yield client
    finally:
        client.close()
        server.close()
        await server.wait_closed()


async def test_the_cluster_is_told_which_build_calls(tmp_path: Path) -> None:
    asking = AskingServer(AuditLog(), cluster="sim.test", bulk=True, faults=Faults())
    async with connected(tmp_path, asking) as client:
        await client.ping()
    assert asking.caller == about.user_agent()


async def test_many_recordings_that_nobody_reads_hold_up_no_other_call(tmp_path: Path) -> None:
    async with connected(tmp_path, EndlessServer(AuditLog(), cluster="sim.test", bulk=True, faults=Faults())) as client:
        streams = [
            client.recording(f"session-{number}", 0) for number in range(90)
        ]  # the simulator allows 100, Teleport 1,000
        async with AsyncExitStack() as opened:
            for stream in streams:
                opened.push_async_callback(cast(AsyncGenerator[list[bytes]], stream).aclose)
            for _ in range(3):  # whoever reads a little now and then lets the server fill every window
                await asyncio.gather(*map(anext, streams))
            for _ in range(20):
                await asyncio.wait_for(client.ping(), 20)
                await asyncio.sleep(0.02)


class EmptyServer(AuthServer):
    """Answers with messages of which some hold nothing."""

    async def _export(self, stream: Any) -> None:
        await stream.recv_message()
        good = b"\x12\x02e1\x2a\x0d\x0a\x0b\x0a\x03uid\x12\x04\x1a\x02e1"
        for answer in (
            b"",
            b"\x0a\x00\x12\x04a1:1",
            b"\x12\x04a1:2",
            b"\x0a" + bytes([len(good)]) + good + b"\x12\x04a1:3",
            b"",
        ):
            await stream.send_message(answer)

    async def _search(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(b"\x0a\x00\x0a\x00")

    async def _recording(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(b"")


async def test_events_without_a_byte_are_left_out_counted_and_told_once_and_the_cursor_goes_on(tmp_path: Path) -> None:
    async with connected(tmp_path, EmptyServer(AuditLog(), cluster="sim.test", bulk=True, faults=Faults())) as client:
        with capture_logs() as lines:
            runs = [run async for run in client.export(0.0, "chunk", "")]
            assert (await client.search(0.0, 1.0, limit=10))[0] == []
            assert [some async for some in client.recording("session", 0)] == [[]]
    assert [convert(read_event(event).content) for some, _ in runs for event in some] == [(b'{"uid":"e1"}', "e1")]
    assert runs[-1][1] == "a1:3"
    assert client.empty == 4 + 2 + 1
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "the cluster answers with events that are empty; they are left out"
    ]


class LargeServer(AuthServer):
    """Gives three events, the second of a size that no receiver takes."""

    @staticmethod
    def _answer(number: int, size: int) -> bytes:
        event = b"\x0a\x04kind\x12\x02e%d\x1a\x02\x08\x07\x20\x03\x2a" % number + write_varint(size) + bytes(size)
        return b"\x0a" + write_varint(len(event)) + event + b"\x12\x04a1:%d" % number

    async def _export(self, stream: Any) -> None:
        await stream.recv_message()
        for number, size in ((1, 10), (2, 3_000_000), (3, 10)):
            await stream.send_message(self._answer(number, size))


async def test_of_a_message_that_is_too_large_only_the_beginning_is_taken_and_those_behind_it_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LARGEST_MESSAGE", 1_000_000)
    async with connected(tmp_path, LargeServer(AuditLog(), cluster="sim.test", bulk=True, faults=Faults())) as client:
        runs = [run async for run in client.export(0.0, "chunk", "")]
    first, second, third = (event for events, _ in runs for event in events)
    assert [read_event(first).id, read_event(third).id] == ["e1", "e3"]
    assert isinstance(second, Beginning)
    assert second.size > 3_000_000
    assert len(second) < 100_000
    envelope = read_envelope(second)
    assert (envelope.type, envelope.id, envelope.time, envelope.index, envelope.content) == ("kind", "e2", 7.0, 3, b"")
    assert runs[-1][1] == "a1:3"
