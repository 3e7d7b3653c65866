"""Turns the wire bytes of a google.protobuf.Struct into one JSON object, without protobuf objects in between.

Keys are sorted by their bytes, as Go's protojson does: the server writes map entries in random order, so only sorting makes the
text the same on every read. Numbers are doubles and are printed in the shortest form that reads back equal: whole numbers
without a point, exponents only below 1e-6 and from 1e21 on. JSON has no NaN or infinity; they are written as the strings
"NaN", "Infinity" and "-Infinity" (the protobuf JSON mapping of doubles), so that such an event is delivered and not stuck.
Source of the field numbers: google/protobuf/struct.proto.
"""

from __future__ import annotations

import hashlib
import math
import struct

import orjson

from event_handler.errors import MalformedEventError
from event_handler.teleport.messages import read_fields, read_varint

MAX_DEPTH = 200  # levels; orjson writes at most 254, and the server's own events stay below 20
EXACT_INTEGER = 2.0**53  # doubles below it hold every whole number
SMALLEST_PLAIN = 1e-4  # below it orjson prints an exponent where Go does not
PAST_END = "a field runs past the end"
_FLOAT64 = struct.Struct("<d")


def convert(wire: bytes) -> tuple[bytes, str]:
    """Return the JSON text of the Struct in `wire` and the event's uid, "" where it has none.

    Raises MalformedEventError when the bytes are no Struct.
    """
    try:
        fields = _struct(wire, 0, len(wire), 0)
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


def stable_id(body: bytes) -> str:
    """The id of an event that has no uid: the same body gives the same id on every read."""
    return hashlib.sha256(body).hexdigest()


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
    """The fields of the Struct in `wire[at:end]`. Lengths of one byte and plain texts are read in place: they are nearly all."""
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
            return wire[begin:end].decode("utf-8", "replace")
    elif tag == 0x11 and size == 9:
        return _number(_FLOAT64.unpack_from(wire, at + 1)[0])
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
            value = _number(_FLOAT64.unpack_from(wire, at)[0])
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
    if value.is_integer():
        if -EXACT_INTEGER < value < EXACT_INTEGER:
            whole = int(value)
            return whole if whole or math.copysign(1.0, value) > 0 else orjson.Fragment(b"-0")
        return orjson.Fragment(_go_number(value))
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if abs(value) >= SMALLEST_PLAIN else orjson.Fragment(_go_number(value))


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
