"""What each transform makes of an event: never of its id, and never of the one that it was given."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import TransformError
from event_handler.event import Event
from event_handler.pipeline.transforms.add_fields import AddFields, AddFieldsOptions
from event_handler.pipeline.transforms.chain import Chain
from event_handler.pipeline.transforms.drop_fields import DropFields, DropFieldsOptions

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", max_size=3), inner, max_size=3),
    max_leaves=10,
)
OBJECT = st.dictionaries(st.text("ab.", max_size=3), JSON, max_size=4)


def event(**content: Any) -> Event:
    return Event("user.login", "e1", 7.0, 3, orjson.dumps(content), "s1")


def added(fields: dict[str, Any], **content: Any) -> Any:
    changed = AddFields(AddFieldsOptions(fields=fields), "x").apply(event(**content))
    assert changed is not None
    return orjson.loads(changed.body)


def dropped(*paths: str, **content: Any) -> Any:
    changed = DropFields(DropFieldsOptions(fields=paths), "x").apply(event(**content))
    assert changed is not None
    return orjson.loads(changed.body)


def test_a_field_is_added() -> None:
    assert added({"env": "prod", "deep": {"a": [1]}}, uid="e1") == {"env": "prod", "deep": {"a": [1]}, "uid": "e1"}


def test_what_teleport_wrote_is_not_replaced() -> None:
    assert added({"user": "constant", "env": "prod"}, user="alice") == {"user": "alice", "env": "prod"}


@pytest.mark.parametrize(
    ("path", "content", "left"),
    [
        ("a", {"a": 1, "b": 2}, {"b": 2}),
        ("a", {"a": None, "b": 2}, {"b": 2}),
        ("addr.remote", {"addr.remote": "1.2.3.4:5", "uid": "x"}, {"uid": "x"}),
        ("a.b", {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        ("a.b", {"a": [{"b": 1}, {"b": 2, "c": 3}, 4]}, {"a": [{}, {"c": 3}, 4]}),
        ("a.b.c", {"a.b": {"c": 1, "d": 2}, "a": {"b.c": 3, "b": {"c": 4}}}, {"a.b": {"d": 2}, "a": {"b": {}}}),
        ("a.b", {"a": "text"}, {"a": "text"}),
        ("nothing", {"a": 1}, {"a": 1}),
    ],
)
def test_a_path_is_taken_out_wherever_it_is(path: str, content: dict[str, Any], left: dict[str, Any]) -> None:
    assert dropped(path, **content) == left


def test_an_event_without_the_field_is_the_same_event() -> None:
    given_event = event(a=1)
    assert DropFields(DropFieldsOptions(fields=("b",)), "x").apply(given_event) is given_event


@given(OBJECT, OBJECT, st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=3))
def test_the_identity_stays_and_so_does_the_given_event(
    content: dict[str, Any], fields: dict[str, Any], paths: list[str]
) -> None:
    first = Event("user.login", "e1", 7.0, 3, orjson.dumps(content), "s1")
    body = first.body
    chain = Chain(
        [
            AddFields(AddFieldsOptions(fields=fields), "add"),
            DropFields(DropFieldsOptions(fields=tuple(paths)), "drop"),
        ]
    )
    changed = chain.apply(first)
    assert changed is not None
    assert first.body == body
    named = [(e.type, e.id, e.time, e.index, e.session_id) for e in (first, changed)]
    assert named[0] == named[1]
    assert not set(paths) & set(orjson.loads(changed.body))


class Picky:
    name = "picky"

    def apply(self, event: Event) -> Event | None:
        if event.type == "bad":
            raise KeyError("user")
        return None if event.type == "unwanted" else event


def test_a_chain_ends_where_an_event_is_not_wanted() -> None:
    chain = Chain([Picky(), AddFields(AddFieldsOptions(fields={"a": 1}), "add")])
    assert chain.apply(Event("unwanted", "e1", 0.0, 0, b"{}")) is None


def test_a_transform_that_fails_is_named() -> None:
    with pytest.raises(TransformError, match=r"the transform picky failed \(KeyError: 'user'\)"):
        Chain([Picky()]).apply(Event("bad", "e1", 0.0, 0, b"{}"))
