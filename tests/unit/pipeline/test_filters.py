"""Filters: plain entries mean what they mean to the Go plugin, and patterns, exceptions and codes disturb none of
them.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.event import Event
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.filters import Filter
from event_handler.pipeline.select import Selector
from event_handler.teleport.wire.raw import raw_events
from tests.support.events import wire

# What event types of Teleport 15 to 19 are made of, and codes.
kinds = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", max_size=8) | st.sampled_from(
    ["session.start", "session.end", "user.login"]
)
codes = st.from_regex(r"T[A-Z]{0,3}[0-9]{3}[IWE]", fullmatch=True)
lists = st.lists(kinds, max_size=4)


@given(kinds, codes, lists, lists)
def test_plain_entries_are_compared_as_the_plugin_does(kind: str, code: str, types: list[str], skip: list[str]) -> None:
    made = Filter(types, skip)
    assert made.wants(kind, code) == ((not types or kind in types) and kind not in skip)
    assert not made.needs_code
    assert set(made.exact_types()) == set(types)


@given(kinds, codes, lists, lists)
def test_the_order_of_entries_is_of_no_account(kind: str, code: str, types: list[str], exceptions: list[str]) -> None:
    entries = [*types, *(f"!{entry}" for entry in exceptions)]
    assert Filter(entries).wants(kind, code) == Filter(entries[::-1]).wants(kind, code)
    assert Filter(skip=entries).wants(kind, code) == Filter(skip=entries[::-1]).wants(kind, code)


@given(kinds, codes, lists)
def test_an_exception_is_the_opposite_of_its_entry(kind: str, code: str, entries: list[str]) -> None:
    exceptions = [f"!{entry}" for entry in entries]
    assert Filter(exceptions).wants(kind, code) == (kind not in entries)
    assert Filter(skip=["*", *exceptions]).wants(kind, code) == (kind in entries)
    assert Filter(skip=exceptions).wants(kind, code), "exceptions alone skip nothing"


@given(kinds, kinds, codes)
def test_a_pattern_covers_the_whole_type(begin: str, end: str, code: str) -> None:
    assert Filter([f"{begin}*"]).wants(begin + end, code)
    assert Filter([f"*{end}"]).wants(begin + end, code)
    assert Filter([f"{begin}*{end}"]).wants(begin + end, code)
    assert Filter([f"{begin}*"]).wants(end, code) == end.startswith(begin)


@given(kinds, codes, codes)
def test_a_code_names_the_events_that_have_it(kind: str, code: str, other: str) -> None:
    assert Filter([code]).needs_code
    assert Filter([code]).wants(kind, other) == (code == other)
    assert Filter(skip=[code]).wants(kind, other) == (code != other)
    assert Filter([code]).exact_types() == ()


@pytest.mark.parametrize(
    ("types", "skip", "wanted"),
    [
        (["session.*"], [], {"session.start", "session.end"}),
        (["session.*", "!session.end"], [], {"session.start"}),
        (["!session.end"], [], {"session.start", "user.login T1000I", "user.login T1000W"}),
        (["session.*", "T1000W"], ["session.end"], {"session.start", "user.login T1000W"}),
        (["*W", "*E"], [], {"user.login T1000W"}),
        (["user.login", "!T1000W"], [], {"user.login T1000I"}),
        ([], ["session.*", "!session.end"], {"session.end", "user.login T1000I", "user.login T1000W"}),
        (["session.start"], ["session.*"], set()),
        (["Session.Start"], [], set()),
        ([" session.start"], [], set()),
        ([""], [], set()),
    ],
)
def test_examples(types: list[str], skip: list[str], wanted: set[str]) -> None:
    there = {"session.start T2000I", "session.end T2004I", "user.login T1000I", "user.login T1000W"}
    found = {event for event in there if Filter(types, skip).wants(*event.split())}
    assert {event if event.startswith("user") else event.split()[0] for event in found} == wanted


@pytest.mark.parametrize(
    ("entries", "asked"),
    [
        (["a.b", "c"], ("a.b", "c")),
        (["a.b", "c", "a.b", "!c"], ("a.b", "c")),
        (["a.b", "c*"], ()),
        (["a.b", "T1000I"], ()),
        (["!a.b"], ()),
        ([], ()),
    ],
)
def test_only_exact_types_can_be_asked_of_a_server(entries: list[str], asked: tuple[str, ...]) -> None:
    assert Filter(entries, ["x"]).exact_types() == asked


def selected(selector: Selector, wires: list[bytes], session: str = "") -> list[Event]:
    return [event for event, _ in selector.select(raw_events(wires, session)).events]


def test_a_selector_filters_the_audit_log_and_recordings_by_code_too() -> None:
    selector = Selector(
        "desk", DuplicateWindow(), types=["T1000*"], skip_types=["*W"], skip_session_types=["T2*I", "!T2004I"]
    )
    failed, fine = wire("1", "user.login", code="T1000W"), wire("2", "user.login", code="T1000I")
    start, end = wire("3", "session.start", code="T2000I"), wire("4", "session.end", code="T2004I")
    assert [event.id for event in selected(selector, [failed, fine, start, end])] == ["2"]
    assert [event.id for event in selected(selector, [failed, fine, start, end], "s-1")] == ["1", "2", "4"]


@pytest.mark.parametrize(
    "lists", [{"types": ["user.login"]}, {"skip_types": ["session.*"]}, {"skip_types": ["T2005I"]}]
)
def test_an_upload_that_is_not_delivered_announces_its_recording(lists: dict[str, Any]) -> None:
    selection = Selector("desk", DuplicateWindow(), **lists).select(
        raw_events([wire("u", "session.upload", sid="s-1", code="T2005I")])
    )
    assert selection.events == []
    assert [announced.session_id for announced in selection.recordings] == ["s-1"]
