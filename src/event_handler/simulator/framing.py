"""Sends each message in an HTTP/2 frame of its own, as a real server does: grpclib packs what it is given into the
largest frames.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from grpclib.protocol import H2Protocol

HEAD = 9  # bytes of a frame's head: length (3), type, flags, stream (4)
PREFIX = 5  # bytes before each message: compressed or not, and its length (4)


class _Cutter:
    """Cuts the data of one stream where messages end, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._prefix = b""  # as much as has come of the present message's
        self._left = 0  # bytes of the present message that have not come

    def cut(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        begin = at = 0
        while at < len(data):
            if len(self._prefix) < PREFIX:
                taken = data[at : at + PREFIX - len(self._prefix)]
                self._prefix += taken
                at += len(taken)
                if len(self._prefix) < PREFIX:
                    break
                self._left = int.from_bytes(self._prefix[1:])
            taken_bytes = min(self._left, len(data) - at)
            at += taken_bytes
            self._left -= taken_bytes
            if not self._left:
                pieces.append(data[begin:at])
                begin, self._prefix = at, b""
        if begin < len(data):
            pieces.append(data[begin:])
        return pieces


class OneMessageAFrame:
    """A transport that is written whole frames, and passes those of data on cut where messages end."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._cutters: dict[bytes, _Cutter] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, frames: bytes) -> None:
        at, out = 0, bytearray()
        while at < len(frames):
            stop = at + HEAD + int.from_bytes(frames[at : at + 3])
            if frames[at + 3] or frames[at + 4]:  # not data, or with flags
                out += frames[at:stop]
            else:
                stream = frames[at + 5 : at + HEAD]
                for piece in self._cutters.setdefault(stream, _Cutter()).cut(frames[at + HEAD : stop]):
                    out += len(piece).to_bytes(3) + b"\0\0" + stream + piece
            at = stop
        self._transport.write(bytes(out))


def one_message_a_frame(protocol: H2Protocol) -> H2Protocol:
    """Let a protocol that is not connected yet write to such a transport."""
    connect = protocol.connection_made
    protocol.connection_made = lambda transport: connect(cast(asyncio.Transport, OneMessageAFrame(transport)))  # type: ignore[method-assign] # only here
    return protocol
