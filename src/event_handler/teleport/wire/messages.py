"""Writes the few protobuf messages that the cluster is asked with, by hand from their field numbers; `decode` reads the
answers.

Source: teleport/auditlog/v1/auditlog.proto and proto/authservice.proto of Teleport 15 to 19.
"""

from __future__ import annotations

OLDEST_FIRST = 0  # the enum's names say the opposite; a real server answers 0 with the oldest first
NEWEST_FIRST = 1


def write_varint(value: int) -> bytes:
    out = bytearray()
    value &= 0xFFFFFFFFFFFFFFFF
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_text(field: int, text: str) -> bytes:
    data = text.encode()
    return write_varint(field << 3 | 2) + write_varint(len(data)) + data if data else b""


def write_message(field: int, data: bytes) -> bytes:
    """A message inside a message, written also when it is empty."""
    return write_varint(field << 3 | 2) + write_varint(len(data)) + data


def write_number(field: int, value: int) -> bytes:
    return write_varint(field << 3) + write_varint(value) if value else b""


def write_time(field: int, seconds: float) -> bytes:
    """A google.protobuf.Timestamp, to the microsecond."""
    whole = int(seconds // 1)
    nanos = round((seconds - whole) * 1_000_000) * 1000
    if nanos >= 1_000_000_000:
        whole, nanos = whole + 1, 0
    data = write_number(1, whole) + write_number(2, nanos)
    return write_message(field, data)
