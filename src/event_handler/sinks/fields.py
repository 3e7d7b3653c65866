"""Puts fields into the text of a JSON object without reading it."""

from __future__ import annotations

import orjson

from event_handler.event import Event

SESSION_FIELD = "teleport_session_id"  # no field of Teleport's


def with_fields(body: bytes, fields: bytes) -> bytes:
    """Return the JSON object `body` with `fields` (`"name":value,…`) before its own."""
    return b"{" + fields + (b"}" if body == b"{}" else b"," + body[1:])


def session_field(session_id: str) -> bytes:
    """The field by which every sink names the recording that an event is from."""
    return b'"%b":%b' % (SESSION_FIELD.encode(), orjson.dumps(session_id))


def with_session(event: Event) -> bytes:
    """The body of an event; one of a recording names its session before its own fields."""
    if not event.session_id:
        return event.body
    return with_fields(event.body, session_field(event.session_id))


class TextField:
    """Reads the text of one field of JSON objects, as UTF-8; b"" where there is none.

    Mostly found without reading the JSON: a name in quotes right behind a comma or the first brace cannot stand inside
    a string, and with no other brace before it, it is no name of an inner object.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._quoted = f'"{name}"'.encode()
        self._opening = self._quoted + b':"'
        self._length = len(self._opening)

    def of(self, body: bytes) -> bytes:
        start = body.find(self._opening)
        if start > 0 and body[start - 1] in b"{," and body.find(b"{", 1, start) < 0:
            begin = start + self._length
            found = body[begin : body.index(b'"', begin)]
            if b"\\" not in found:
                return found
        elif start < 0 and self._quoted not in body:
            return b""
        value = orjson.loads(body).get(self._name)
        return value.encode() if isinstance(value, str) else b""
