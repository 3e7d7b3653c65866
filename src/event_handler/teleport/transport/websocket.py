"""A WebSocket connection as a byte stream: payloads of binary frames, one after the other. Source: RFC 6455, 5.

A frame's payload is passed on while it arrives, so frames of any size need no memory.
"""

from __future__ import annotations

import os

from event_handler.teleport.transport.stream import CHUNK, Stream, read_exactly

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LARGEST_CONTROL = 125  # bytes of a control frame's payload
NORMAL_CLOSURE = (1000).to_bytes(2)


def encode_frame(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """One final frame from client to server, its payload masked by the 4 bytes of `mask`."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2)
    else:
        head = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8)
    return head + mask + _masked(payload, mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask; as whole numbers, which is a thousand times faster than byte by byte."""
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")).to_bytes(size, "little")


class WebSocketStream:
    """The client side, after the handshake.

    Pings are answered while reading, a close frame is the end of the stream.
    """

    def __init__(self, below: Stream) -> None:
        self._below = below
        self._buffer = b""  # read and not yet looked at
        self._left = 0  # bytes of the current data frame that have not been passed on
        self._ended = False

    async def read(self, limit: int = CHUNK) -> bytes:
        while not self._left:
            if self._ended or not await self._next_frame():
                self._ended = True
                return b""
        if not self._buffer:
            self._buffer = await self._below.read()
            if not self._buffer:
                raise ConnectionError("the connection was closed inside a WebSocket frame")
        size = min(self._left, limit, len(self._buffer))
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        self._left -= size
        return data

    async def write(self, data: bytes) -> None:
        await self._send(BINARY, data)

    async def finish(self) -> None:
        await self._send(CLOSE, NORMAL_CLOSURE)
        await self._below.finish()

    def close(self) -> None:
        self._below.close()

    async def _send(self, opcode: int, payload: bytes) -> None:
        await self._below.write(encode_frame(opcode, payload, os.urandom(4)))

    async def _next_frame(self) -> bool:
        """Go to the next data frame.

        False at the end of the stream. Raises ConnectionError where the server breaks the rules.
        """
        first, second = await self._take(2)
        opcode, size = first & 0x0F, second & 0x7F
        if first & 0x70 or second & 0x80:
            raise ConnectionError("the server sent a WebSocket frame that is masked or uses an extension")
        if size >= 126:
            size = int.from_bytes(await self._take(2 if size == 126 else 8))
        if opcode in (BINARY, CONTINUATION):
            if size >> 63:
                raise ConnectionError("the server sent a WebSocket frame of impossible size")
            self._left = size
            return True
        if opcode not in (CLOSE, PING, PONG) or size > LARGEST_CONTROL or not first & 0x80:
            raise ConnectionError(
                f"the server sent a WebSocket frame that has no place here (opcode {opcode}, {size} bytes)"
            )
        payload = await self._take(size)
        if opcode == PING:
            await self._send(PONG, payload)
        return opcode != CLOSE

    async def _take(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data if len(data) == size else data + await read_exactly(self._below, size - len(data))
