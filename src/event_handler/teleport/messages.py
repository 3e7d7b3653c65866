"""The few protobuf messages of the cluster's audit log service, written and read by hand from their field numbers.

Only what the client needs is here; unknown fields are skipped. The content of an event (a Struct) stays undecoded bytes until the
event has been selected. Source: teleport/auditlog/v1/auditlog.proto and proto/authservice.proto of Teleport 15 to 19.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from event_handler.errors import MalformedEventError

OLDEST_FIRST = 0  # the enum's names say the opposite; a real server answers 0 with the oldest first
NEWEST_FIRST = 1


@dataclass(slots=True)
class RawEvent:
    """An EventUnstructured whose content is still wire bytes. `time` is in seconds since the epoch (UTC)."""

    type: str
    id: str
    time: float
    index: int
    content: bytes


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


def read_fields(wire: bytes) -> list[tuple[int, int | bytes]]:
    """Split a message into (field number, value) pairs: numbers for varints, bytes for all that has a length.

    Raises MalformedEventError when the bytes are no protobuf message.
    """
    fields: list[tuple[int, int | bytes]] = []
    at, end = 0, len(wire)
    try:
        while at < end:
            tag = wire[at]  # one byte, like most lengths: reading those in place saves a third of the time
            at += 1
            if tag > 0x7F:
                tag, at = read_varint(wire, at - 1)
            kind = tag & 7
            if kind == 2:
                size = wire[at]
                at += 1
                if size > 0x7F:
                    size, at = read_varint(wire, at - 1)
                stop = at + size
                if stop > end:
                    raise ValueError("a field runs past the end")
                fields.append((tag >> 3, wire[at:stop]))
                at = stop
            elif kind == 0:
                number, at = read_varint(wire, at)
                fields.append((tag >> 3, number))
            elif kind in (1, 5):
                stop = at + (8 if kind == 1 else 4)
                if stop > end:
                    raise ValueError("a field runs past the end")
                fields.append((tag >> 3, wire[at:stop]))
                at = stop
            else:
                raise ValueError(f"wire type {kind}")
    except (IndexError, ValueError, struct.error) as error:
        raise MalformedEventError(f"the cluster sent bytes that are no protobuf message ({error})") from None
    return fields


def read_varint(wire: bytes, at: int) -> tuple[int, int]:
    """The varint at `at` and the place after it. Raises ValueError or IndexError when there is none."""
    value = wire[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = wire[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 10 bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(value: int | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _seconds(wire: int | bytes) -> float:
    seconds = nanos = 0
    if isinstance(wire, bytes):
        for field, value in read_fields(wire):
            if isinstance(value, int):
                if field == 1:
                    seconds = _signed(value)
                elif field == 2:
                    nanos = value
    return seconds + nanos / 1e9


def read_event(wire: bytes) -> RawEvent:
    """Read the envelope of an EventUnstructured; a message that is none raises MalformedEventError."""
    kind = identity = ""
    time, index, content = 0.0, 0, b""
    for field, value in read_fields(wire):
        if field == 5 and isinstance(value, bytes):
            content = value
        elif field == 1:
            kind = _text(value)
        elif field == 2:
            identity = _text(value)
        elif field == 3:
            time = _seconds(value)
        elif field == 4 and isinstance(value, int):
            index = _signed(value)
    return RawEvent(kind, identity, time, index, content)


def event_time(wire: bytes) -> float:
    """The time of an EventUnstructured in seconds since the epoch, 0 when the message is malformed."""
    try:
        return read_event(wire).time
    except MalformedEventError:
        return 0.0


def event_id(wire: bytes) -> str:
    """The id of an EventUnstructured, "" when the message is malformed."""
    try:
        return read_event(wire).id
    except MalformedEventError:
        return ""


def event_index(wire: bytes) -> int:
    """The index of an EventUnstructured within its session, -1 when the message is malformed."""
    try:
        return read_event(wire).index
    except MalformedEventError:
        return -1


def read_exported(wire: bytes) -> tuple[bytes, str]:
    """Split an ExportEventUnstructured into the event's own bytes and the cursor that resumes after it."""
    event, cursor = b"", ""
    for field, value in read_fields(wire):
        if field == 1 and isinstance(value, bytes):
            event = value
        elif field == 2:
            cursor = _text(value)
    return event, cursor


def read_page(wire: bytes) -> tuple[list[bytes], str]:
    """Split an EventsUnstructured into the bytes of its events and the next key."""
    events: list[bytes] = []
    key = ""
    for field, value in read_fields(wire):
        if field == 1 and isinstance(value, bytes):
            events.append(value)
        elif field == 2:
            key = _text(value)
    return events, key


def read_text_field(wire: bytes, wanted: int) -> str:
    """The last text under field number `wanted`, "" where there is none."""
    text = ""
    for field, value in read_fields(wire):
        if field == wanted:
            text = _text(value)
    return text
