"""Makes of events the lines of a bulk request, in a form that a mapping cannot refuse."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from event_handler.event import Event
from event_handler.sinks.elasticsearch.fields import FIELDS, Kind
from event_handler.sinks.elasticsearch.options import Document
from event_handler.sinks.fields import SESSION_FIELD, session_field, with_fields
from event_handler.sinks.moments import rfc3339

LONGEST_ID = 512  # bytes that an `_id` may have
OTHER = "teleport_other"  # holds, as JSON text, what does not have its field's type
RESERVED_FIELDS = frozenset(
    {"@timestamp", OTHER, SESSION_FIELD, "addr"}
)  # ours, and the parent of `addr.remote`, which must stay an object
NOTHING = type(None)
OBJECTS = frozenset({dict})
# The types that each field takes; text in a date or in a number is ignored by the mapping, not refused.
TAKEN = {
    Kind.TEXT: frozenset({str, int, float, bool, NOTHING}),
    Kind.NUMBER: frozenset({int, float, str, NOTHING}),
    Kind.DATE: frozenset({str, NOTHING}),
    Kind.BOOLEAN: frozenset({bool, NOTHING}),
    Kind.OBJECT: OBJECTS,
}
FIELD_TYPES = {name: TAKEN[kind] for name, kind in FIELDS.items() if name not in RESERVED_FIELDS}
# A path and its value are one term in an index, of 32,766 bytes at most, and a character takes up to four.
LONGEST_LEAF = 8_000  # characters
DEEPEST = 16  # levels below a field; both products refuse more than 20 in a document by default
DEEP_SUSPECT = 32  # opening brackets in an event; one with fewer cannot be deep enough to look at more closely


def bulk_lines(events: Sequence[Event], document: Document, index: str = "") -> bytes:
    """Return the body of a bulk request. The action lines name `index`, when it is given."""
    where = b'"_index":%b,' % orjson.dumps(index) if index else b""
    lines = bytearray()
    for event in events:
        lines += b'{"create":{%b"_id":%b}}\n%b\n' % (
            where,
            orjson.dumps(document_id(event)),
            make_document(event, document),
        )
    return bytes(lines)


def document_id(event: Event) -> str:
    """The same for every try of an event.

    Events of recordings are told apart by their place, for some have equal content.
    """
    name = f"{event.session_id}/{event.index}/{event.id}" if event.session_id else event.id
    return name if len(name.encode()) <= LONGEST_ID else hashlib.sha256(name.encode()).hexdigest()


def make_document(event: Event, document: Document) -> bytes:
    fields = b'"@timestamp":"%b"' % rfc3339(event.time)
    if event.session_id:
        fields += b"," + session_field(event.session_id)
    if document == "message":
        return b'{%b,"message":%b}' % (fields, orjson.dumps(event.body.decode()))
    return _plain(event.body, fields)


def _plain(body: bytes, fields: bytes) -> bytes:
    """The event's own fields after ours. A field that does not have its type goes into OTHER: a field has one type in
    all documents, for Elasticsearch refuses each document in which it has another.
    """
    try:
        own: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError:  # nested deeper than a reader takes
        return b'{%b,"%b":%b}' % (fields, OTHER.encode(), orjson.dumps(body.decode("utf-8", "replace")))
    careful = len(body) > LONGEST_LEAF or body.count(b"{") + body.count(b"[") > DEEP_SUSPECT or b"\\u0000" in body
    # What is asked first is so for nearly every field, and a call for each would double the time that an event takes.
    other = {
        name: value
        for name, value in own.items()
        if (careful or type(value) not in FIELD_TYPES.get(name, ())) and not _fits(name, value, careful)
    }
    if not other:
        return with_fields(body, fields)
    kept = {name: value for name, value in own.items() if name not in other}
    text = orjson.dumps(orjson.dumps(other).decode())
    return with_fields(orjson.dumps(kept), b'%b,"%b":%b' % (fields, OTHER.encode(), text))


def _fits(name: str, value: Any, careful: bool) -> bool:
    """Whether a mapping with our types takes the field; `careful` looks into objects, which only an odd event needs."""
    types = FIELD_TYPES.get(name)
    if types is None:
        return _is_ordinary(name) and (not careful or _is_harmless(value, 0, DEEPEST))
    if type(value) not in types and not (type(value) is list and all(type(one) in types for one in value)):
        return False
    return not careful or types is not OBJECTS or _is_harmless(value, 0, DEEPEST)


def _is_ordinary(name: str) -> bool:
    """Whether an unknown field may have this name.

    A dot makes an object of what stands before it, `_` begins names of its own.
    """
    return bool(name.strip()) and "." not in name and name[0] != "_" and name not in RESERVED_FIELDS


def _is_harmless(value: Any, path: int, deepest: int) -> bool:
    """Whether an object is not too deep and has no name or value that an index cannot hold.

    `path` characters lead to it.
    """
    if isinstance(value, dict):
        return deepest > 0 and all(
            "\0" not in name and _is_harmless(one, path + len(name) + 1, deepest - 1) for name, one in value.items()
        )
    if isinstance(value, list):
        return deepest > 0 and all(_is_harmless(one, path, deepest - 1) for one in value)
    return path + (len(value) if isinstance(value, str) else 0) <= LONGEST_LEAF
