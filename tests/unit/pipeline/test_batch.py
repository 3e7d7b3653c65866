"""Batches are cut by count, by bytes and by age, each sink by its own limits.

Where order is kept, a lane's batches go one by one.
"""

from __future__ import annotations

import pytest

from event_handler.event import Event
from event_handler.pipeline.batch import SESSION_PARTITIONS, Batch, Batcher, partition_of
from event_handler.pipeline.entry import Entry
from event_handler.pipeline.tracker import CheckpointTracker, Span
from event_handler.ports import Limits

AGE = 0.5


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def batcher(clock: Clock, events: int = 1000, size: int = 10**6, ordered: bool = False, share: int = 10**9) -> Batcher:
    return Batcher(Limits(events, size, 4, AGE, ordered), share, clock)


def entry(uid: str, body: bytes = b"{}", recording: str = "") -> Entry:
    return Entry(Event("user.login", uid, 0.0, 0, body, recording), b"", Span(CheckpointTracker(), None, 1))


def of_session(uid: str, sid: str) -> Entry:
    return entry(uid, b'{"sid":"%b"}' % sid.encode())


def ready(made: Batcher) -> list[list[str]]:
    return [[e.event.id for e in batch.entries] for batch in take(made)]


def take(made: Batcher) -> list[Batch]:
    return [made.ready.get_nowait() for _ in range(made.ready.qsize())]


def test_a_batch_is_handed_on_when_it_has_the_events_of_the_limit(clock: Clock) -> None:
    made = batcher(clock, events=3)
    for number in range(7):
        made.add(entry(f"e{number}"))
    assert ready(made) == [["e0", "e1", "e2"], ["e3", "e4", "e5"]]


def test_a_batch_takes_no_more_than_its_share_of_the_budget_unless_one_event_does(clock: Clock) -> None:
    made = batcher(clock, share=2 * entry("e1").size)
    for uid, body in (("e1", b"{}"), ("e2", b"{}"), ("e3", b"{}"), ("large", b"{%b}" % (b" " * 5000)), ("e4", b"{}")):
        made.add(entry(uid, body))
    made.close_all()
    assert ready(made) == [["e1", "e2"], ["e3"], ["large"], ["e4"]]


def test_a_batch_never_has_more_bytes_than_the_limit_unless_one_event_has(clock: Clock) -> None:
    made = batcher(clock, size=100)
    for uid, size in (("a", 60), ("b", 40), ("c", 1), ("huge", 500), ("d", 1)):
        made.add(entry(uid, b"x" * size))
    assert ready(made) == [["a", "b"], ["c"], ["huge"]]


def test_an_incomplete_batch_waits_for_its_age_and_no_longer(clock: Clock) -> None:
    made = batcher(clock)
    made.add(entry("a"))
    clock.now += 0.3
    made.add(entry("b", recording="r"))
    assert made.close_due() == pytest.approx(0.2)
    assert ready(made) == []
    clock.now += 0.2
    assert made.close_due() == pytest.approx(0.3)
    assert ready(made) == [["a"]]
    clock.now += 0.3
    assert made.close_due() == AGE
    assert ready(made) == [["b"]]


def test_the_age_is_that_of_the_first_event_and_a_batch_after_a_full_one_has_its_own(clock: Clock) -> None:
    made = batcher(clock, events=2)
    made.add(entry("a"))
    clock.now += 0.4
    made.add(entry("b"))
    made.add(entry("c"))
    assert made.close_due() == pytest.approx(AGE)
    assert ready(made) == [["a", "b"]]


def test_each_recording_has_batches_of_its_own(clock: Clock) -> None:
    made = batcher(clock, events=2)
    for uid, recording in (("a", "r1"), ("b", "r2"), ("c", "r1"), ("d", "")):
        made.add(entry(uid, recording=recording))
    assert ready(made) == [["a", "c"]]


def test_where_order_is_kept_the_next_batch_of_a_lane_waits_for_the_answer_and_other_lanes_do_not(clock: Clock) -> None:
    made = batcher(clock, events=1, ordered=True)
    for uid, recording in (("a", "r1"), ("b", "r1"), ("c", "r1"), ("d", "r2"), ("e", "")):
        made.add(entry(uid, recording=recording))
    first, other, none = take(made)
    assert [batch.entries[0].event.id for batch in (first, other, none)] == ["a", "d", "e"]
    made.finished(first)
    made.finished(other)
    (second,) = take(made)
    assert second.entries[0].event.id == "b"
    made.add(entry("f", recording="r1"))
    made.finished(second)
    (third,) = take(made)
    made.finished(third)
    assert ready(made) == [["f"]]


def test_events_of_one_session_are_in_one_lane_and_those_of_none_in_another() -> None:
    partitions = {partition_of(of_session("e", f"session-{number}").event, ordered=True) for number in range(500)}
    assert len(partitions) == SESSION_PARTITIONS
    assert partition_of(of_session("a", "s").event, True) == partition_of(of_session("b", "s").event, True)
    assert {partition_of(entry("e", body).event, True) for body in (b"{}", b'{"sid":""}', b'{"sid":7}')} == {""}
    assert partition_of(entry("e", b'{"sid":"s"}', recording="r").event, True) == "r"


def test_without_order_all_events_of_the_audit_log_share_a_lane() -> None:
    assert partition_of(of_session("e", "s").event, ordered=False) == ""


def test_what_waits_for_more_can_be_handed_on_at_once(clock: Clock) -> None:
    made = batcher(clock)
    for uid, recording in (("e0", ""), ("e1", "r1"), ("e2", "")):
        made.add(entry(uid, recording=recording))
    made.close_all()
    assert ready(made) == [["e0", "e2"], ["e1"]]
    assert made.idle
