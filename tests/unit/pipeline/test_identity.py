"""Which events are the same one: those with the same uid, or where they have none, with the same content."""

from __future__ import annotations

import pytest
from google.protobuf import json_format, struct_pb2

from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.select import Selector
from event_handler.teleport.wire.messages import write_number, write_text, write_time, write_varint
from event_handler.teleport.wire.raw import raw_events

NOTHING: dict[str, object] = {}


def event(envelope_id: str, index: int = 0, kind: str = "user.login", **content: object) -> bytes:
    struct = struct_pb2.Struct()
    json_format.ParseDict({"event": kind, **content}, struct)
    data = struct.SerializeToString()
    head = (
        write_text(1, kind)
        + (write_text(2, envelope_id) if envelope_id else b"")
        + write_time(3, 5.0)
        + write_number(4, index)
    )
    return head + b"\x2a" + write_varint(len(data)) + data


def taken(*wires: bytes, session_id: str = "") -> int:
    """How many of the events are delivered when they are read one after the other, and all of them once more."""
    selector = Selector("desk", DuplicateWindow())
    first = sum(len(selector.select(raw_events([wire], session_id)).events) for wire in wires)
    assert sum(len(selector.select(raw_events([wire], session_id)).events) for wire in wires) == 0
    return first


@pytest.mark.parametrize("session_id", ["", "s"], ids=["audit log", "recording"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (event("", uid="a"), event("", uid="b")),
        (event(" ", uid="a"), event(" ", uid="b")),
        (event("same", uid="a"), event("same", uid="b")),
        (event("a", uid="a"), event("a", uid="b", other="a")),
        (event("", uid="abc"), event("", uid="ABC")),
        (event("abc", uid="abc"), event("ABC", uid="ABC")),
        (event("", uid=1), event("", uid=2)),
        (event("", uid=None, user="a"), event("", uid=None, user="b")),
        (event("", uid=" ", user="a"), event("", uid=" ", user="b")),
        (event("", uid="", user="a"), event("", uid="", user="b")),
        (event("", user="a"), event("", user="b")),
        (event("", uid={"x": "a"}), event("", uid={"x": "b"})),
        (event("x" * 300, uid="x" * 300), event("x" * 300, uid="x" * 299 + "y")),
    ],
    ids=lambda _: "event",  # its bytes have maps in random order: no name for a test
)
def test_events_that_differ_are_both_delivered_once(first: bytes, second: bytes, session_id: str) -> None:
    assert taken(first, second, session_id=session_id) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (event("made up", user="a"), event("made up again", user="a")),
        (event("", uid="a"), event("a", uid="a")),
        (event("a", uid="a"), event("", uid="a")),
        (event("made up", uid="a"), event("a", uid="a")),
        (event("", user="a"), event("made up", user="a")),
        (
            event("a", uid="a", ei=1),
            event("a", uid="a", ei=2),
        ),  # one whose place collided is stored under another one (DynamoDB)
    ],
    ids=lambda _: "event",
)
def test_an_event_of_the_audit_log_is_the_same_however_it_is_sent(first: bytes, second: bytes) -> None:
    assert taken(first, second) == 1


def test_in_a_recording_the_place_tells_events_apart_and_the_audit_log_has_them_too() -> None:
    assert taken(event("a", 1, uid="a"), event("a", 2, uid="a"), session_id="s") == 2
    assert taken(event("hash", 1, "print"), event("hash", 2, "print"), session_id="s") == 2
    selector = Selector("desk", DuplicateWindow())
    wire = event("a", 1, uid="a")
    assert [len(selector.select(raw_events([wire], session)).events) for session in ("", "s", "t", "", "s", "t")] == [
        1,
        1,
        1,
        0,
        0,
        0,
    ]


def test_the_id_that_receivers_get_is_never_blank() -> None:
    selector = Selector("desk", DuplicateWindow())
    ids = [
        selector.select(raw_events([event("", uid=uid, n=n)])).events[0][0].id
        for n, uid in enumerate((" ", "", None, 7, "real"))
    ]
    assert ids[-1] == "real"
    assert all(len(name) == 64 for name in ids[:-1])


def test_events_that_announce_recordings_nobody_can_ask_for_are_kept_each_for_itself() -> None:
    selector = Selector("desk", DuplicateWindow())
    wires = [event("", kind="session.upload", uid=uid, sid="../x") for uid in ("a", "b")]
    assert [letter.id for letter in selector.select(raw_events(wires)).dead] == ["a", "b"]


def test_without_recordings_no_session_is_announced_and_the_events_are_delivered() -> None:
    selector = Selector("desk", DuplicateWindow(), recordings=False)
    wires = [event("a", kind="session.upload", uid="a", sid="s"), event("b", kind="session.end", uid="b", sid="../x")]
    chosen = selector.select(raw_events(wires))
    assert (chosen.recordings, chosen.dead, len(chosen.events)) == ([], [], 2)
