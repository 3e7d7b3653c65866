"""The columns of events, each as the text of an array.

Facts: PostgreSQL's documentation, "Array Input and Output".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from event_handler.event import Event
from event_handler.sinks.columns import Row, row_of

NUL_SHOWN: Final = "\u2400"  # ␀: PostgreSQL stores no NUL, neither in text nor in jsonb
# As it stands in JSON, and no escaped backslash with u0000 behind it.
NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def arrays(events: Sequence[Event]) -> list[str]:
    """In the order of columns.COLUMNS."""
    columns: list[Any] = list(zip(*[_stored(event) for event in events], strict=True))
    return [_texts(column) if isinstance(column[0], str) else _words(column) for column in columns]


def _stored(event: Event) -> Row:
    row = row_of(event)
    if "\\u0000" not in row.body:
        return row
    return row._replace(body=NUL.sub(rf"\1{NUL_SHOWN}", row.body))


def _texts(column: Sequence[str]) -> str:
    """Escaped as one text, in a third of the time: JSON has no line breaks, and names seldom have one."""
    joined = "\n".join(column)
    if joined.count("\n") != len(column) - 1:
        elements = '","'.join([_escaped(text) for text in column])
    else:
        elements = _escaped(joined).replace("\n", '","')
    return f'{{"{elements}"}}'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\0", NUL_SHOWN)


def _words(column: Sequence[int | bool | None]) -> str:
    return f"{{{','.join(['NULL' if value is None else str(value) for value in column])}}}"
