"""Columns are arrays that PostgreSQL reads back as they were, whatever is in them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from event_handler.event import Event
from event_handler.sinks.postgresql.arrays import NUL_SHOWN, arrays


def elements(text: str) -> list[str]:
    """The elements of an array whose elements are all quoted (PostgreSQL, "Array Input and Output Syntax")."""
    assert text[0] + text[-1] == "{}"
    found, rest = [], text[1:-1]
    while rest:
        assert rest[0] == '"'
        element, place = "", 1
        while rest[place] != '"':
            place += rest[place] == "\\"
            element += rest[place]
            place += 1
        found.append(element)
        rest = rest[place + 1 :].removeprefix(",")
    return found


@given(st.lists(st.text(), min_size=1, max_size=5))
@example(["one\ntwo", '","'])
@example(["\\", '"', "\0", ""])
def test_each_element_is_read_back(ids: list[str]) -> None:
    uids = arrays([Event("print", id_, 0.0, 0, b"{}") for id_ in ids])[3]
    assert elements(uids) == [id_.replace("\0", NUL_SHOWN) for id_ in ids]
