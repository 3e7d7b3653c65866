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
