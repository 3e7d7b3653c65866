"""The columns that an event has in a table: one layout for every database, decided here once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from event_handler.event import Event
from event_handler.sinks.fields import with_session
from event_handler.sinks.moments import rfc3339

LARGEST_COLUMN_INDEX = 2**63 - 1  # of a column with 64 bits
WRITTEN_TOGETHER: Final = 200  # rows; one by one the JSON of each is copied several times, and all at once need memory


class Row(NamedTuple):
    """An event as a row.

    `time` is in RFC 3339 in UTC; `uid` is the event's id; `session_id` is that of the recording, or the event's `sid`;
    `event_index` is its place in the session; `success` is None where the event tells nothing of it; `body` is the
    whole event as JSON. A text that the event lacks is "". `time`, `uid`, `session_id` and `event_index` together are
    the same for every try of an event, and for no other event.
    """

    time: str
    event: str
    code: str
    uid: str
    session_id: str
    event_index: int
    username: str
    cluster: str
    success: bool | None
    body: str


COLUMNS = Row._fields


def row_of(event: Event) -> Row:
    """Never raises: what cannot be read has no columns of its own, and the database says what it thinks of it."""
    try:
        content: Any = orjson.loads(event.body)
    except ValueError:
        content = None
    known: dict[str, Any] = content if isinstance(content, dict) else {}
    success = known.get("success")
    return Row(
        rfc3339(event.time).decode(),
        event.type,
        _text(known, "code"),
        event.id,
        event.session_id or _text(known, "sid"),
        min(max(event.index, 0), LARGEST_COLUMN_INDEX),
        _text(known, "user"),
        _text(known, "cluster_name"),
        success if isinstance(success, bool) else None,
        with_session(event).decode("utf-8", "replace"),
    )


def json_lines(events: Sequence[Event]) -> bytes:
    """Each event as a row, a JSON object in a line of its own."""
    return b"\n".join(_json_lines(events))


def _json_lines(events: Sequence[Event]) -> Iterator[bytes]:
    for start in range(0, len(events), WRITTEN_TOGETHER):
        rows = [row_of(event)._asdict() for event in events[start : start + WRITTEN_TOGETHER]]
        # Within a text every quote is escaped, and a row has no object in it, so that is nothing but the next row.
        yield orjson.dumps(rows)[1:-1].replace(b'},{"time":', b'}\n{"time":')


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""
