"""One gRPC connection: a stream is read many messages at once, whatever pieces it arrives in, and each call tells who is calling."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from grpclib.protocol import Buffer
from hypothesis import given
from hypothesis import strategies as st

from event_handler import about
from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from event_handler.teleport.client import Client
from event_handler.teleport.connection import Connection, take_arrived
from event_handler.teleport.credentials import read_identity
from event_handler.teleport.dial import Way, direct
from event_handler.teleport.entrance import Entrance, always
from event_handler.teleport.tls import client_context


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


async def test_the_cluster_is_told_which_build_calls(tmp_path: Path) -> None:
    write_cluster_files(tmp_path, "sim.test")
    asking = AskingServer(AuditLog(), cluster="sim.test", bulk=True, faults=Faults())
    server, port = await asking.start(tmp_path, "127.0.0.1", 0)
    address = f"127.0.0.1:{port}"
    entrance = Entrance(always(Way("direct", address, direct(address))))
    client = Client(Connection(entrance, client_context(read_identity(str(tmp_path / "identity")))))
    try:
        await client.ping()
    finally:
        client.close()
        server.close()
        await server.wait_closed()
    assert asking.caller == about.user_agent()
