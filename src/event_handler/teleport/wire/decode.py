"""Reads the cluster's answers: the few protobuf messages from their field numbers, and an event's Struct as one JSON
object.

Wire bytes become JSON once, without protobuf objects in between, and only when the event has been selected; unknown
fields are skipped. This is where most of the CPU goes: the file is typed, pure Python that the build compiles with
mypyc where a C compiler is at hand, with the same results. For that the constants are Final, or the compiled code would
look them up by name.

Keys are sorted by their bytes, as Go's protojson does: the server writes map entries in random order, so only sorting
makes the text the same on every read. Numbers are doubles and are printed in the shortest form that reads back equal:
whole numbers without a point, exponents only below 1e-6 and from 1e21 on. JSON has no NaN or infinity; they are written
as the strings "NaN", "Infinity" and "-Infinity" (the protobuf JSON mapping of doubles), so that such an event is
delivered and not stuck. Source of the field numbers: teleport/auditlog/v1/auditlog.proto and proto/authservice.proto of
Teleport 15 to 19, google/protobuf/struct.proto.
"""

from __future__ import annotations

import base64
import math
import struct
from typing import Final

import orjson

from event_handler.errors import MalformedEventError
from event_handler.event import Event, RawEvent, Unreadable, fingerprint, named

MAX_DEPTH: Final = 200  # levels; orjson writes at most 254, and the server's own events stay below 20
EXACT_INTEGER: Final = 2.0**53  # doubles below it hold every whole number
SMALLEST_PLAIN: Final = 1e-4  # below it orjson prints an exponent where Go does not
PAST_END: Final = "a field runs past the end"
NO_MESSAGE: Final = "the cluster sent bytes that are not a protobuf message"
_read_double: Final = struct.Struct("<d").unpack_from
UNDECODABLE = "undecodable"  # key of a dead letter's body that holds the bytes as they came
COMPILED = not __file__.endswith(".py")  # whether this runs as machine code


class WireEvent(RawEvent):
    """An EventUnstructured, in wire bytes until its content is asked for."""

    def __init__(self, type: str, id: str, time: float, index: int, content: bytes, wire: bytes) -> None:
        self.type = type
        self.id = id
        self.time = time
        self.index = index
        self.session_id = ""
        self.content = content
        self._wire = wire
        self._key = b""  # until it is asked for
        self._event: Event | None = None
        self._uid = ""

    def code(self) -> str:
        return read_code(self.content)

    def dedup_key(self) -> bytes:
        key = self._key
        if key:
            return key
        name = self.id
        if not _has_uid(self.content, name):
            event = self.event()
            # The server's id of an event without uid is made up for this one read, but in a recording it is a hash of
            # the content.
            of_content = self.session_id and not self._uid.strip() and name.strip()
            name = name if of_content else event.id
        self._key = key = fingerprint(f"{self.session_id}/{self.index}/{name}" if self.session_id else name)
        return key

    def event(self) -> Event:
        event = self._event
        if event is None:
            body, self._uid = convert(self.content)
            event = Event(self.type, named(self._uid, body), self.time, self.index, body, self.session_id)
            self._event = event
        return event

    def unreadable(self, reason: str) -> Unreadable:
        return undecodable(self._wire, reason, self.session_id)


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
                    raise ValueError(PAST_END)
                fields.append((tag >> 3, wire[at:stop]))
                at = stop
            elif kind == 0:
                number, at = read_varint(wire, at)
                fields.append((tag >> 3, number))
            elif kind in (1, 5):
                stop = at + (8 if kind == 1 else 4)
                if stop > end:
                    raise ValueError(PAST_END)
                fields.append((tag >> 3, wire[at:stop]))
                at = stop
            else:
                raise ValueError(f"wire type {kind}")
    except (IndexError, ValueError) as error:
        raise MalformedEventError(f"{NO_MESSAGE} ({error})") from None
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


def read_event(wire: bytes) -> WireEvent:
    """Read the envelope of an EventUnstructured; a message that is none raises MalformedEventError."""
    kind = identity = ""
    time, index, content = 0.0, 0, b""
    at, end = 0, len(wire)
    try:
        while at < end:
            tag = wire[at]
            if tag == 0x0A or tag == 0x12 or tag == 0x1A or tag == 0x2A:
                at, stop = _span(wire, at + 1, end)
                if tag == 0x2A:
                    content = wire[at:stop]
                elif tag == 0x1A:
                    time = _seconds(wire, at, stop)
                elif tag == 0x12:
                    identity = wire[at:stop].decode("utf-8", "replace")
                else:
                    kind = wire[at:stop].decode("utf-8", "replace")
                at = stop
            elif tag == 0x20:
                index, at = read_varint(wire, at + 1)
            else:
                tag, at = read_varint(wire, at)
                at = _skip(wire, at, end, tag & 7)
    except (IndexError, ValueError) as error:
        raise MalformedEventError(f"{NO_MESSAGE} ({error})") from None
    return WireEvent(kind, identity, time, _signed(index), content, wire)


def _seconds(wire: bytes, at: int, end: int) -> float:
    """The Timestamp in `wire[at:end]`."""
    seconds = nanos = 0
    while at < end:
        tag = wire[at]
        if tag == 0x08:
            seconds, at = read_varint(wire, at + 1)
        elif tag == 0x10:
            nanos, at = read_varint(wire, at + 1)
        else:
            tag, at = read_varint(wire, at)
            at = _skip(wire, at, end, tag & 7)
    if at > end:
        raise ValueError(PAST_END)
    return _signed(seconds) + nanos / 1e9


def read_envelope(beginning: bytes) -> WireEvent:
    """Read what stands before the content, of an EventUnstructured that is not whole. Raises MalformedEventError."""
    at, end = 0, len(beginning)
    try:
        while at < end and beginning[at] != 0x2A:
            tag, at = read_varint(beginning, at)
            at = _skip(beginning, at, end, tag & 7)
    except (IndexError, ValueError) as error:
        raise MalformedEventError(f"{NO_MESSAGE} ({error})") from None
    return read_event(beginning[:at])


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


def event_place(wire: bytes) -> tuple[str, int]:
    """The type of an EventUnstructured and its index within its session, "" and -1 when the message is malformed."""
    try:
        event = read_event(wire)
        return event.type, event.index
    except MalformedEventError:
        return "", -1


def read_exported(wire: bytes) -> tuple[bytes, str]:
    """Split an ExportEventUnstructured into the event's own bytes and the cursor that resumes after it."""
    event, cursor = b"", ""
    at, end = 0, len(wire)
    try:
        while at < end:
            tag = wire[at]
            if tag == 0x0A or tag == 0x12:
                at, stop = _span(wire, at + 1, end)
                if tag == 0x0A:
                    event = wire[at:stop]
                else:
                    cursor = wire[at:stop].decode("utf-8", "replace")
                at = stop
            else:
                tag, at = read_varint(wire, at)
                at = _skip(wire, at, end, tag & 7)
    except (IndexError, ValueError) as error:
        raise MalformedEventError(f"{NO_MESSAGE} ({error})") from None
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


def convert(wire: bytes) -> tuple[bytes, str]:
    """Return the JSON text of the Struct in `wire` and the event's uid, "" where it has none.

    Raises MalformedEventError when the bytes are no Struct, or one without a single field: no event is like that.
    """
    try:
        fields = _struct(wire, 0, len(wire), 0)
        if not fields:
            raise ValueError("it is empty")
        # orjson's own bytes keep the 8 KiB that it began with; a copy has the size that it shows.
        body = bytes(memoryview(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)))
    except (IndexError, ValueError, struct.error, orjson.JSONEncodeError) as error:
        raise MalformedEventError(f"the event's content cannot be decoded ({error})") from None
    uid = fields.get("uid")
    return body, uid if isinstance(uid, str) else ""


def read_code(wire: bytes) -> str:
    """The code (`T1000I`) of the event in `wire`, "" where it has none. Other fields are passed over, not decoded.

    Raises MalformedEventError when the bytes are no Struct.
    """
    code: object = ""
    try:
        for field, entry in read_fields(wire):
            if field == 1 and isinstance(entry, bytes) and b"code" in entry:
                parts = dict(read_fields(entry))
                value = parts.get(2, b"")
                if parts.get(1) == b"code" and isinstance(value, bytes):
                    code = _value(value, 0, len(value), 0)
    except (IndexError, ValueError, struct.error) as error:
        raise MalformedEventError(f"the event's content cannot be decoded ({error})") from None
    return code if isinstance(code, str) else ""


def undecodable(wire: bytes, reason: str, session_id: str) -> Unreadable:
    """The bytes `wire` as something that is no event."""
    body = orjson.dumps({UNDECODABLE: base64.b64encode(wire).decode()})
    return Unreadable(reason, body, "", "", 0.0, 0, session_id)


def _has_uid(content: bytes, uid: str) -> bool:
    """Whether the Struct `content` has the entry `uid` with that value, as its bytes are usually laid out.

    The id beside the content is the uid again. Where it is missing or another one, the content decides: events that
    differ there are different events.
    """
    data = uid.encode()
    size = len(data)
    if size > 120 or not uid.strip():  # the lengths below have one byte
        return False
    return b"\x0a\x03uid\x12" + bytes((size + 2, 0x1A, size)) + data in content


def _span(wire: bytes, at: int, end: int) -> tuple[int, int]:
    size, at = read_varint(wire, at)
    stop = at + size
    if stop > end:
        raise ValueError(PAST_END)
    return at, stop


def _skip(wire: bytes, at: int, end: int, wire_type: int) -> int:
    if wire_type == 0:
        return read_varint(wire, at)[1]
    if wire_type == 2:
        return _span(wire, at, end)[1]
    if wire_type in (1, 5):
        at += 8 if wire_type == 1 else 4
        if at <= end:
            return at
    raise ValueError(f"wire type {wire_type}")


def _struct(wire: bytes, at: int, end: int, depth: int) -> dict[str, object]:
    """The fields of the Struct in `wire[at:end]`.

    Lengths of one byte and plain texts are read in place: they are nearly all.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    fields: dict[str, object] = {}
    while at < end:
        if wire[at] != 0x0A:  # not field 1 of Struct, an entry of the map
            tag, at = read_varint(wire, at)
            at = _skip(wire, at, end, tag & 7)
            continue
        size = wire[at + 1]
        at += 2
        if size > 0x7F:
            size, at = read_varint(wire, at - 1)
        stop = at + size
        if stop > end:
            raise ValueError(PAST_END)
        key = ""
        value: object = None
        while at < stop:
            tag = wire[at]
            if tag != 0x0A and tag != 0x12:
                tag, at = read_varint(wire, at)
                at = _skip(wire, at, stop, tag & 7)
                continue
            size = wire[at + 1]
            at += 2
            if size > 0x7F:
                size, at = read_varint(wire, at - 1)
            upto = at + size
            if upto > stop:
                raise ValueError(PAST_END)
            if tag == 0x0A:
                try:  # the strict way is the fast one, and nearly every text is valid
                    key = wire[at:upto].decode()
                except UnicodeDecodeError:
                    key = wire[at:upto].decode("utf-8", "replace")
            else:
                value = _value(wire, at, upto, depth)
            at = upto
        if at != stop:
            raise ValueError(PAST_END)
        fields[key] = value
    if at != end:
        raise ValueError(PAST_END)
    return fields


def _value(wire: bytes, at: int, end: int, depth: int) -> object:
    """The Value in `wire[at:end]`: the usual forms with one field first, then any that the wire format allows."""
    size = end - at
    if size == 0:
        return None
    tag = wire[at]
    if tag == 0x1A and size > 1:
        length = wire[at + 1]
        if length < 0x80:
            begin = at + 2
        else:
            length, begin = read_varint(wire, at + 1)
        if begin + length == end:
            try:
                return wire[begin:end].decode()
            except UnicodeDecodeError:
                return wire[begin:end].decode("utf-8", "replace")
    elif tag == 0x11 and size == 9:
        return _number(_read_double(wire, at + 1)[0])
    elif tag == 0x20 and size == 2 and wire[at + 1] < 2:
        return wire[at + 1] == 1
    return _any_value(wire, at, end, depth)


def _any_value(wire: bytes, at: int, end: int, depth: int) -> object:
    value: object = None
    while at < end:
        tag, at = read_varint(wire, at)
        if tag == 0x1A or tag == 0x2A or tag == 0x32:
            at, upto = _span(wire, at, end)
            if tag == 0x1A:
                value = wire[at:upto].decode("utf-8", "replace")
            elif tag == 0x2A:
                value = _struct(wire, at, upto, depth + 1)
            else:
                value = _list(wire, at, upto, depth + 1)
            at = upto
        elif tag == 0x11:
            value = _number(_read_double(wire, at)[0])
            at += 8
        elif tag == 0x20:
            flag, at = read_varint(wire, at)
            value = flag != 0
        elif tag == 0x08:
            _, at = read_varint(wire, at)
            value = None
        else:
            at = _skip(wire, at, end, tag & 7)
    if at != end:
        raise ValueError(PAST_END)
    return value


def _list(wire: bytes, at: int, end: int, depth: int) -> list[object]:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    values: list[object] = []
    while at < end:
        tag, at = read_varint(wire, at)
        if tag == 0x0A:
            at, upto = _span(wire, at, end)
            values.append(_value(wire, at, upto, depth))
            at = upto
        else:
            at = _skip(wire, at, end, tag & 7)
    if at != end:
        raise ValueError(PAST_END)
    return values


def _number(value: float) -> object:
    if -EXACT_INTEGER < value < EXACT_INTEGER:
        whole = int(value)
        if whole == value:
            return whole if whole or math.copysign(1.0, value) > 0 else orjson.Fragment(b"-0")
        return value if abs(value) >= SMALLEST_PLAIN else orjson.Fragment(_go_number(value))
    if math.isfinite(value):  # a double as large as this is a whole number
        return orjson.Fragment(_go_number(value))
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _go_number(value: float) -> bytes:
    """Print `value` as Go's strconv does in JSON: shortest digits, exponent form below 1e-6 and from 1e21 on."""
    sign = "-" if value < 0 else ""
    mantissa, _, exponent_text = f"{abs(value)!r}".partition("e")
    exponent = int(exponent_text or 0)
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0") if whole == "0" else whole + fraction
    point = len(whole) + exponent if whole != "0" else exponent - (len(fraction) - len(fraction.lstrip("0")))
    digits = digits.rstrip("0") or "0"
    if 1e-6 <= abs(value) < 1e21:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}".encode()
        if point >= len(digits):
            return f"{sign}{digits}{'0' * (point - len(digits))}".encode()
        return f"{sign}{digits[:point]}.{digits[point:]}".encode()
    head = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    power = point - 1
    return f"{sign}{head}e{'+' if power > 0 else '-'}{abs(power)}".encode()
