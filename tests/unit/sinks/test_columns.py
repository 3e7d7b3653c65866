"""Rows that are written together are those that each event has by itself."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from event_handler.event import Event
from event_handler.sinks.columns import WRITTEN_TOGETHER, json_lines, row_of

TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(['},{"time":', "\n", '"}', "\\", '\\"},{"time":'])


@given(st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["", "s1"])), min_size=1, max_size=9), st.booleans())
def test_any_events(of_each: list[tuple[str, str, str]], many: bool) -> None:
    events = [
        Event(text, id, 1.5, place, orjson.dumps({"user": text, "a": {"time": id}}), session)
        for place, (text, id, session) in enumerate(of_each * (WRITTEN_TOGETHER if many else 1))
    ]
    lines = json_lines(events).split(b"\n")
    assert [orjson.loads(line) for line in lines] == [row_of(event)._asdict() for event in events]
