"""The columns of events, each as an array: texts in binary form, which nobody has to escape and to read again.

Facts: PostgreSQL's documentation, "Array Input and Output"; array_recv, textrecv and jsonb_recv in its source for the
binary forms, which it documents nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from struct import pack
from typing import Final

from event_handler.event import Event
from event_handler.sinks.columns import Row, row_of

NUL_SHOWN: Final = "\u2400"  # ␀: PostgreSQL stores no NUL, neither in text nor in jsonb
# As it stands in JSON, and no escaped backslash with u0000 behind it.
NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
TEXT_TYPE: Final = 25  # object ids of types: pg_type.dat
JSONB_TYPE: Final = 3802
JSONB_VERSION: Final = b"\x01"  # the only one there is


def arrays(events: Sequence[Event]) -> list[bytes | str]:
    """In the order of columns.COLUMNS: `text[]` and `jsonb[]` in binary form, the others as text."""
    rows = [_stored(event) for event in events]
    return [
        _words([row.time for row in rows]),
        _texts([row.event for row in rows]),
        _texts([row.code for row in rows]),
        _texts([row.uid for row in rows]),
        _texts([row.session_id for row in rows]),
        _words([row.event_index for row in rows]),
        _texts([row.username for row in rows]),
        _texts([row.cluster for row in rows]),
        _words([row.success for row in rows]),
        _array(JSONB_TYPE, [JSONB_VERSION + row.body.encode("utf-8", "replace") for row in rows]),
    ]


def _stored(event: Event) -> Row:
    row = row_of(event)
    if "\\u0000" not in row.body:
        return row
    return row._replace(body=NUL.sub(rf"\1{NUL_SHOWN}", row.body))


def _texts(column: Sequence[str]) -> bytes:
    encoded = []
    for text in column:
        if "\0" in text:
            text = text.replace("\0", NUL_SHOWN)
        encoded.append(text.encode("utf-8", "replace"))
    return _array(TEXT_TYPE, encoded)


def _array(kind: int, elements: Sequence[bytes]) -> bytes:
    """One dimension, no NULL, its elements from 1 on, each with its length before it."""
    parts = [pack("!5i", 1, 0, kind, len(elements), 1)]
    for element in elements:
        parts.append(len(element).to_bytes(4, "big"))
        parts.append(element)
    return b"".join(parts)


def _words(column: Sequence[str | int | bool | None]) -> str:
    """An array in text form, of what has no character that means something there."""
    return f"{{{','.join(['NULL' if value is None else str(value) for value in column])}}}"
