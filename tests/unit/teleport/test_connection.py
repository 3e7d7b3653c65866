"""The buffer of a gRPC stream, emptied at once: whatever the pieces are that it arrives in, the messages are the same."""

from __future__ import annotations

import struct

from grpclib.protocol import Buffer
from hypothesis import given
from hypothesis import strategies as st

from event_handler.teleport.connection import take_arrived


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
