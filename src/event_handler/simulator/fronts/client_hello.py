"""Reads the first message of a TLS client as far as a router needs it: the server's name and the protocols offered.

Formats: RFC 8446 section 4.1.2 (ClientHello), RFC 6066 section 3 (server name), RFC 7301 section 3.1 (ALPN).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

LARGEST = 16 * 1024  # bytes; real ones have 0.2 to 2 KiB, with post-quantum key shares
_HANDSHAKE_RECORD, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4


class NotClientHelloError(Exception):
    """The bytes are not the beginning of a TLS connection."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client said first; an absent name is "", absent protocols are ()."""

    server_name: str
    protocols: tuple[str, ...]


class _Cursor:
    """Takes fields off the front of bytes, and raises NotClientHelloError where they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, count: int) -> bytes:
        if count > len(self._data):
            raise NotClientHelloError(f"a field of {count} bytes in {len(self._data)}")
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width))

    def vector(self, width: int) -> _Cursor:
        """The content of a vector whose length is written in `width` bytes."""
        return _Cursor(self.take(self.number(width)))

    def rest(self) -> bytes:
        return self.take(len(self._data))


def parse(data: bytes) -> ClientHello | None:
    """Read `data`, all bytes since the connection began; None = go on reading. Raises NotClientHelloError."""
    message = b""
    position = 0
    while len(message) < _MESSAGE_HEADER or len(message) < _MESSAGE_HEADER + int.from_bytes(message[1:4]):
        header = data[position : position + _RECORD_HEADER]
        if not bytes([_HANDSHAKE_RECORD, 3]).startswith(header[:2]):
            raise NotClientHelloError("not a TLS handshake")
        length = int.from_bytes(header[3:])
        if length > LARGEST:
            raise NotClientHelloError(f"a record of over {LARGEST} bytes")
        begin = position + _RECORD_HEADER
        fragment = data[begin : begin + length]
        message += fragment
        if message[:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise NotClientHelloError("the first message is not a ClientHello")
        if int.from_bytes(message[1:4]) > LARGEST and len(message) >= _MESSAGE_HEADER:
            raise NotClientHelloError(f"longer than {LARGEST} bytes")
        if len(header) < _RECORD_HEADER or len(fragment) < length:
            return None
        if not fragment:
            raise NotClientHelloError("an empty record")
        position = begin + length
    return _parse_message(message)


def _parse_message(message: bytes) -> ClientHello:
    hello = _Cursor(_Cursor(message[1:]).vector(3).rest())
    hello.take(2 + 32)  # legacy version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        hello.vector(width)
    server_name = ""
    protocols: tuple[str, ...] = ()
    extensions = hello.vector(2) if hello else _Cursor(b"")
    while extensions:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            server_name = _server_name(content.vector(2))
        elif kind == _ALPN:
            protocols = tuple(_protocols(content.vector(2)))
    return ClientHello(server_name, protocols)


def _server_name(names: _Cursor) -> str:
    while names:
        kind, content = names.number(1), names.vector(2).rest()
        if kind == 0:
            return content.decode("ascii", "replace")
    return ""


def _protocols(names: _Cursor) -> Iterator[str]:
    while names:
        yield names.vector(1).rest().decode("ascii", "replace")


async def read_client_hello(reader: asyncio.StreamReader) -> tuple[ClientHello, bytes]:
    """Read just as far as needed.

    Return the message and all bytes read. Raises NotClientHelloError and IncompleteReadError.
    """
    data = b""
    while (hello := parse(data)) is None:
        piece = await reader.read(LARGEST)
        if not piece:
            raise asyncio.IncompleteReadError(data, None)
        data += piece
    return hello, data
