"""Writes the protobuf of an export request by hand: a library's objects would cost ten times as much.

Facts: opentelemetry-proto v1, collector/logs/v1/logs_service.proto, logs/v1/logs.proto and common/v1/common.proto;
the semantic conventions for events, users, sessions and clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import pack
from typing import Any, Final

import orjson

from event_handler.event import Event
from event_handler.sinks.fields import SESSION_FIELD, with_session

INFO, WARN, ERROR = 9, 13, 17  # SeverityNumber
SEVERITIES: Final = {"I": (INFO, "INFO"), "W": (WARN, "WARN"), "E": (ERROR, "ERROR")}  # by the last letter of a code
ATTRIBUTES: Final = {  # of the semantic conventions where these have a name for it, by the field of the event
    "user": "user.name",
    "sid": "session.id",
    "server_hostname": "host.name",
    "cluster_name": "teleport.cluster",
    "code": "teleport.code",
    "login": "teleport.login",
}
LATEST_MOMENT = 18_446_744_073.0  # seconds; fixed64 holds no more nanoseconds


def varint(number: int) -> bytes:
    """A base-128 number (protobuf, "Encoding"): looked up where it is the length of nearly everything."""
    if 0 <= number < len(SHORT_VARINTS):
        return SHORT_VARINTS[number]
    return _varint(number)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


SHORT_VARINTS: Final = [_varint(number) for number in range(4096)]


def field(number: int, content: bytes) -> bytes:
    """A field with a length: text, bytes or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def text_attribute(name: str, value: str) -> bytes:
    """A KeyValue with text, without its own tag."""
    return _keyed(field(1, name.encode()), value)


def _keyed(key: bytes, value: str) -> bytes:
    """The same, with its key as a field."""
    text = value.encode("utf-8", "replace")
    size = varint(len(text))
    return b"%b\x12%b\x0a%b%b" % (key, varint(1 + len(size) + len(text)), size, text)


def _record_attribute(name: str) -> Callable[[str], bytes]:
    """What makes a field of a record of that attribute's value."""
    key = field(1, name.encode())

    def made(value: str) -> bytes:
        return field(6, _keyed(key, value))

    return made


def any_value(value: Any) -> bytes:
    """An AnyValue as JSON's value says: text 1, bool 2, int 3, double 4, array 5, map 6; nothing for null."""
    if isinstance(value, str):
        return field(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10" + varint(int(value))
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, int | float):
        return b"\x21" + pack("<d", float(value))
    if isinstance(value, list):
        return field(5, b"".join(field(1, any_value(one)) for one in value))
    if isinstance(value, dict):
        return field(6, key_values(1, value))
    return b""


def key_values(number: int, content: Mapping[str, Any]) -> bytes:
    """Fields of that number, each a KeyValue."""
    return b"".join(
        field(number, field(1, name.encode("utf-8", "replace")) + field(2, any_value(value)))
        for name, value in content.items()
    )


class Encoder:
    """Makes requests. `structured`: the body is a map of values, else the event as JSON text.

    `resource` are attributes of all events, `scope` is the name of who wrote them.
    """

    def __init__(self, resource: Mapping[str, str], scope: str, *, structured: bool) -> None:
        self._resource = field(1, b"".join(field(1, text_attribute(name, value)) for name, value in resource.items()))
        self._scope = field(1, field(1, scope.encode()))
        self._structured = structured

    def request(self, events: Sequence[Event], observed: float) -> bytes:
        """An ExportLogsServiceRequest; `observed` is now, in seconds since the epoch."""
        seen = b"\x59" + _nanoseconds(observed)  # observed_time_unix_nano = 11
        records = b"".join(field(2, self._record(event, seen)) for event in events)
        return field(1, self._resource + field(2, self._scope + records))

    def _record(self, event: Event, seen: bytes) -> bytes:
        content: dict[str, Any] = orjson.loads(event.body)
        number, text = severity(content)
        if self._structured:
            session = {SESSION_FIELD: event.session_id} if event.session_id else {}
            body = field(6, key_values(1, {**session, **content}))
        else:
            body = field(1, with_session(event))
        return b"".join(
            (
                b"\x09" + _nanoseconds(event.time),  # time_unix_nano = 1
                b"\x10" + varint(number),  # severity_number = 2
                field(3, text.encode()),
                field(5, body),
                _attributes(event, content),
                field(12, event.type.encode("utf-8", "replace")),  # event_name
                seen,
            )
        )


UID_ATTRIBUTE, SESSION_ATTRIBUTE, CLIENT_ATTRIBUTE = map(
    _record_attribute, ("log.record.uid", "session.id", "client.address")
)
RECORD_ATTRIBUTES: Final = [(name, _record_attribute(attribute)) for name, attribute in ATTRIBUTES.items()]


def _attributes(event: Event, content: Mapping[str, Any]) -> bytes:
    """The attributes of a record, as its fields."""
    made = UID_ATTRIBUTE(event.id)
    if event.session_id:
        made += SESSION_ATTRIBUTE(event.session_id)
    for name, attribute in RECORD_ATTRIBUTES:
        value = content.get(name)
        if isinstance(value, str) and value and not (event.session_id and name == "sid"):
            made += attribute(value)
    address = content.get("addr.remote")
    if isinstance(address, str) and address:
        host, _, port = address.rpartition(":")
        made += CLIENT_ATTRIBUTE(host.strip("[]") if port.isdigit() and host else address)
    return made


def severity(content: Mapping[str, Any]) -> tuple[int, str]:
    """Number and text, by the code of the event, and at least a warning where something failed."""
    code = content.get("code")
    found = SEVERITIES.get(code[-1:], SEVERITIES["I"]) if isinstance(code, str) else SEVERITIES["I"]
    return max(found, SEVERITIES["W"]) if content.get("success") is False else found


def _nanoseconds(moment: float) -> bytes:
    """fixed64, to the microsecond: a float does not hold more."""
    known = min(max(moment, 0.0), LATEST_MOMENT)
    return (round(known * 1e6) * 1000).to_bytes(8, "little")


def rejected(answer: bytes) -> tuple[int, str]:
    """`rejected_log_records` and `error_message` of an ExportLogsServiceResponse; (0, "") for whatever is none."""
    try:
        for number, content in _fields(answer):
            if number == 1 and isinstance(content, bytes):
                found = dict(_fields(content))
                count, text = found.get(1, 0), found.get(2, b"")
                if isinstance(count, int) and isinstance(text, bytes):
                    return count, text.decode("utf-8", "replace")
    except (IndexError, ValueError):
        pass
    return 0, ""


def _fields(data: bytes) -> Iterable[tuple[int, int | bytes]]:
    """The fields of a message. Raises IndexError or ValueError for what is none."""
    place = 0
    while place < len(data):
        tag, place = _read_varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _read_varint(data, place)
            yield tag >> 3, value
        elif kind == 2:
            length, place = _read_varint(data, place)
            if place + length > len(data):
                raise ValueError("the message is cut off")
            yield tag >> 3, data[place : place + length]
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"there is no wire type {kind}")


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = data[place]
        place += 1
        found |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return found, place
        if shift > 63:
            raise ValueError("a number is too long")
