"""Columns are arrays that PostgreSQL reads back as they were, whatever is in them."""

from __future__ import annotations

from struct import unpack_from

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from event_handler.event import Event
from event_handler.sinks.columns import COLUMNS
from event_handler.sinks.postgresql.arrays import JSONB_TYPE, NUL_SHOWN, TEXT_TYPE, arrays


def elements(data: bytes, kind: int) -> list[bytes]:
    """The elements of an array in binary form: dimensions, whether there is a NULL, type, number, first index; then
    each with its length.
    """
    dimensions, nulls, of, count, first = unpack_from("!5i", data)
    assert (dimensions, nulls, of, first) == (1, 0, kind, 1)
    found, place = [], 20
    while place < len(data):
        (length,) = unpack_from("!i", data, place)
        found.append(data[place + 4 : place + 4 + length])
        place += 4 + length
    assert len(found) == count
    return found


@given(st.lists(st.text(), min_size=1, max_size=5))
@example(["one\ntwo", '","'])
@example(["\\", '"', "\0", ""])
def test_each_text_is_read_back(ids: list[str]) -> None:
    uids = arrays([Event("print", id_, 0.0, 0, b"{}") for id_ in ids])[COLUMNS.index("uid")]
    assert isinstance(uids, bytes)
    assert [one.decode() for one in elements(uids, TEXT_TYPE)] == [id_.replace("\0", NUL_SHOWN) for id_ in ids]


@given(st.lists(st.dictionaries(st.text(), st.text()), min_size=1, max_size=4))
@example([{"a": "\0"}, {"a": "\\u0000"}, {"a": "\\\\u0000"}])
def test_each_body_is_a_version_and_the_json_without_nul(contents: list[dict[str, str]]) -> None:
    bodies = arrays([Event("print", "a", 0.0, 0, orjson.dumps(content)) for content in contents])[-1]
    assert isinstance(bodies, bytes)
    for element, content in zip(elements(bodies, JSONB_TYPE), contents, strict=True):
        assert element[:1] == b"\x01"
        read = orjson.loads(element[1:])
        assert orjson.dumps(read) == orjson.dumps(content).replace(b"\\u0000", NUL_SHOWN.encode()) or "\\u0000" in str(
            content
        )


def test_times_numbers_and_truths_are_words() -> None:
    columns = arrays(
        [
            Event("a", "1", 0.5, 7, b'{"success":true}'),
            Event("a", "2", 1.0, 8, b'{"success":false}'),
            Event("a", "3", 2.0, 9, b"{}"),
        ]
    )
    assert columns[COLUMNS.index("success")] == "{True,False,NULL}"
    assert columns[COLUMNS.index("event_index")] == "{7,8,9}"
    assert columns[0] == "{1970-01-01T00:00:00.500000Z,1970-01-01T00:00:01.000000Z,1970-01-01T00:00:02.000000Z}"
