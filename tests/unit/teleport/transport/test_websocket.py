"""The WebSocket layer passes bytes on whatever the frames are, answers pings, and ends where the rules are broken."""

from __future__ import annotations

import asyncio
import struct

import pytest
from aiohttp import WSMsgType
from aiohttp._websocket.reader_py import WebSocketDataQueue, WebSocketReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from event_handler.teleport.transport.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WebSocketStream,
    encode_frame,
)


class Wire:
    """A stream whose far side is a script: pieces to read, and what was written."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.written = b""
        self.finished = self.closed = False

    async def read(self, limit: int = 65536) -> bytes:
        if not self.pieces:
            return b""
        piece, self.pieces[0] = self.pieces[0][:limit], self.pieces[0][limit:]
        if not self.pieces[0]:
            del self.pieces[0]
        return piece

    async def write(self, data: bytes) -> None:
        self.written += data

    async def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True


def server_frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return head + struct.pack("!BH", 126, len(payload)) + payload
    return head + struct.pack("!BQ", 127, len(payload)) + payload


async def read_all(stream: WebSocketStream) -> bytes:
    data = b""
    while piece := await stream.read():
        data += piece
    return data


frames = st.lists(
    st.tuples(st.sampled_from([BINARY, CONTINUATION, PING, PONG]), st.binary(max_size=300), st.booleans()), max_size=12
)


@given(frames, st.lists(st.integers(1, 50), max_size=200), st.integers(1, 400))
def test_any_frames_in_any_pieces_become_the_same_bytes(
    sent: list[tuple[int, bytes, bool]], cuts: list[int], limit: int
) -> None:
    async def check() -> None:
        data = pings = b""
        wire = b""
        for opcode, content, final in sent:
            payload = content[:125] if opcode in (PING, PONG) else content
            wire += server_frame(opcode, payload, final or opcode in (PING, PONG))
            data += payload if opcode in (BINARY, CONTINUATION) else b""
            pings += _unmasked(PONG, payload) if opcode == PING else b""
        pieces = []
        for size in cuts:
            pieces.append(wire[:size])
            wire = wire[size:]
        below = Wire(*pieces, wire + server_frame(CLOSE, b""))
        stream = WebSocketStream(below)
        got = b""
        while piece := await stream.read(limit):
            assert len(piece) <= limit
            got += piece
        assert got == data
        assert _unmask_all(below.written) == pings

    asyncio.run(check())


def _unmasked(opcode: int, payload: bytes) -> bytes:
    return server_frame(opcode, payload)


def _unmask_all(wire: bytes) -> bytes:
    """The same short frames without their masks."""
    result = b""
    while wire:
        size = wire[1] & 0x7F
        mask, payload = wire[2:6], wire[6 : 6 + size]
        result += bytes([wire[0], size]) + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        wire = wire[6 + size :]
    return result


payloads = st.one_of(st.binary(max_size=300), st.sampled_from([125, 126, 65535, 65536, 300_001]).map(bytes))


@given(payloads, st.binary(min_size=4, max_size=4))
def test_frames_are_read_alike_by_another_implementation(payload: bytes, mask: bytes) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        queue = WebSocketDataQueue(BaseProtocol(loop), 1 << 20, loop=loop)
        WebSocketReader(queue, 0, False, False).feed_data(encode_frame(BINARY, payload, mask))
        message = await queue.read()
        assert message.type is WSMsgType.BINARY
        assert message.data == payload

    asyncio.run(check())


async def test_a_close_frame_is_the_end_and_ours_says_that_all_went_well() -> None:
    below = Wire(server_frame(BINARY, b"last"), server_frame(CLOSE, b"\x03\xe8bye"), server_frame(BINARY, b"never"))
    stream = WebSocketStream(below)
    assert await read_all(stream) == b"last"
    assert await stream.read() == b""
    await stream.finish()
    assert below.finished
    assert _unmask_all(below.written) == server_frame(CLOSE, b"\x03\xe8")
    stream.close()
    assert below.closed


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (server_frame(TEXT, b"text"), "no place here"),
        (server_frame(0x3, b""), "no place here"),
        (server_frame(PING, bytes(126)), "no place here"),
        (server_frame(PING, b"", final=False), "no place here"),
        (b"\x82\x81\0\0\0\0x", "masked"),
        (b"\xc2\x01x", "extension"),
        (b"\x82\x7f" + b"\xff" * 8, "impossible size"),
        (b"\x82\x05abc", "inside a WebSocket frame"),
        (b"\x82", "closed"),
    ],
)
async def test_what_breaks_the_rules_is_an_error(wire: bytes, reason: str) -> None:
    with pytest.raises(ConnectionError, match=reason):
        await read_all(WebSocketStream(Wire(wire)))
