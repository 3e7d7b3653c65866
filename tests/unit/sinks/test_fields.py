"""A field is found in the text of an event as reading the JSON would find it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.sinks.fields import FalseField, TextField
from tests.event_samples import samples

NAMES = ("user", "sid", "cluster_name", "a")
TEXTS = st.one_of(st.text(), st.sampled_from(['"user":"x"', ',"user":"', '{"user":"y"}', "\\", '\\"', *NAMES]))
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-9, 9), st.none(), st.booleans()),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES) | TEXTS, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES), st.sampled_from(NAMES), st.booleans())
def test_any_object(content: dict[str, Any], name: str, sort: bool) -> None:
    try:
        body = orjson.dumps(content, option=orjson.OPT_SORT_KEYS if sort else 0)
    except TypeError:  # a surrogate
        return
    value = content.get(name)
    assert TextField(name).of(body) == (value.encode() if isinstance(value, str) else b"")
    assert FalseField(name).of(body) is (value is False)


@pytest.mark.parametrize("name", ["user", "sid", "cluster_name", "uid"])
def test_every_type_of_event(name: str) -> None:
    for event in samples():
        body = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
        value = event.get(name, "")
        assert TextField(name).of(body) == (value.encode() if isinstance(value, str) else b"")
