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
    a string.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._quoted = f'"{name}"'.encode()
        self._length = len(self._quoted)

    def of(self, body: bytes) -> bytes:
        start = body.find(self._quoted)
        if start < 0:
            return b""
        behind = start + self._length
        if start > 0 and body[start - 1] in b"{," and body.startswith(b':"', behind):
            begin = behind + 2
            if _is_outermost(body, start, begin):
                found = body[begin : body.index(b'"', begin)]
                if b"\\" not in found:
                    return found
        value = orjson.loads(body).get(self._name)
        return value.encode() if isinstance(value, str) else b""


class FalseField:
    """Tells whether a field of JSON objects is false, found as a text is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._written = f'"{name}":false'.encode()

    def of(self, body: bytes) -> bool:
        start = body.find(self._written)
        if start < 0:
            return False
        if body[start - 1] in b"{," and _is_outermost(body, start, start + len(self._written)):
            return True
        return bool(orjson.loads(body).get(self._name) is False)


def _is_outermost(body: bytes, start: int, end: int) -> bool:
    """Whether what stands there surely is in no inner object: with no other brace before it, or but the last behind."""
    return body.find(b"{", 1, start) < 0 or body.find(b"}", end, len(body) - 1) < 0
