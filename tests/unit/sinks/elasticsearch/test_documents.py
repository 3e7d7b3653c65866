"""Plain documents: a field has one type in all of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from event_handler.event import Event
from event_handler.sinks.elasticsearch.documents import OTHER, bulk_lines, make_document
from event_handler.sinks.elasticsearch.fields import FIELDS, Kind
from tests.event_samples import samples, shapes

TIME = 1_790_000_000.5
STAMP = {"@timestamp": "2026-09-21T14:13:20.500000Z"}
# What several event types use for different things, as far as a sample shows it.
MOVED = {"message", "target", "body", "payload", "connector", "addr", "status"}
KINDS = {"": Kind.TEXT, "~": Kind.TEXT, "?": Kind.BOOLEAN, "#": Kind.NUMBER, "@": Kind.DATE, "{}": Kind.OBJECT}


def plain(own: dict[str, Any], session_id: str = "") -> dict[str, Any]:
    made: dict[str, Any] = orjson.loads(make_document(Event("e", "u", TIME, 0, orjson.dumps(own), session_id), "plain"))
    return made


def other(document: dict[str, Any]) -> dict[str, Any]:
    moved: dict[str, Any] = orjson.loads(document[OTHER])
    return moved


def test_every_field_of_every_event_type_has_its_type() -> None:
    for type_, fields in shapes().items():
        for name, suffix in fields.items():
            if name in MOVED or name in ("version", "action"):
                continue
            assert name in FIELDS, (type_, name)
            assert FIELDS[name] is KINDS.get(suffix, FIELDS[name]), (type_, name)


@pytest.mark.parametrize("event", samples(), ids=lambda event: event["event"])
def test_an_event_of_any_type_stays_as_it_is_but_for_names_that_are_used_for_different_things(
    event: dict[str, Any],
) -> None:
    document = plain(event)
    moved = other(document) if OTHER in document else {}
    assert set(moved) <= MOVED
    assert {**document, **moved} == STAMP | event | ({OTHER: document[OTHER]} if moved else {})


@pytest.mark.parametrize(
    "own",
    [
        {"message": {"method": "tools/call"}},
        {"status": {"success": True}},
        {"body": {"query": {}}},
        {"user": [{"name": "a"}]},
        {"user": [["a"]]},
        {"success": "true"},
        {"ei": True},
        {"ei": [1, False]},
        {"time": 5},
        {"time": {"seconds": 1}},
        {"identity": "x"},
        {"identity": None},
        {"identity": [None]},
        {"addr": "127.0.0.1:8080"},
        {"addr": {"remote": {"a": 1}}},
        {"": 1},
        {" ": 1},
        {"a.b": 1},
        {"user.name": "a"},
        {"_id": "a"},
        {"@timestamp": "2001-01-01T00:00:00Z"},
        {OTHER: "a"},
        {"teleport_session_id": "a"},
        {"identity": {"a\0b": 1}},
        {"identity": {"a": "z" * 9_000}},
        {"identity": {"k" * 9_000: 1}},
    ],
    ids=str,
)
def test_what_does_not_have_its_fields_type_is_kept_as_text_apart(own: dict[str, Any]) -> None:
    document = plain(own | {"event": "e"}, "sid")
    assert document == STAMP | {"event": "e", "teleport_session_id": "sid", OTHER: document[OTHER]}
    assert other(document) == own


def nested(levels: int) -> dict[str, Any]:
    return {"n": nested(levels - 1)} if levels else {"end": 1}


@pytest.mark.parametrize("name", ["identity", "unknown"])
def test_a_field_that_is_nested_too_deep_is_kept_as_text_apart(name: str) -> None:
    assert plain({name: nested(10)}) == STAMP | {name: nested(10)}
    assert other(plain({name: nested(40)})) == {name: nested(40)}


def test_an_event_that_cannot_be_read_is_kept_as_text() -> None:
    deep = b'{"a":' * 2_000 + b"1" + b"}" * 2_000
    document = orjson.loads(make_document(Event("e", "u", TIME, 0, deep), "plain"))
    assert document == STAMP | {OTHER: deep.decode()}


def test_a_body_that_fits_goes_byte_by_byte() -> None:
    body = b'{"ei":1e3, "event":"e","unknown":{"a":[1,{"b":null}]}}'
    assert (
        make_document(Event("e", "u", TIME, 0, body), "plain")
        == b'{"@timestamp":"2026-09-21T14:13:20.500000Z",' + body[1:]
    )


def test_the_index_is_named_in_the_lines_when_asked() -> None:
    event = Event("e", "u", TIME, 0, b"{}")
    assert orjson.loads(bulk_lines([event], "plain", "t").splitlines()[0]) == {"create": {"_index": "t", "_id": "u"}}
    assert orjson.loads(bulk_lines([event], "plain").splitlines()[0]) == {"create": {"_id": "u"}}
