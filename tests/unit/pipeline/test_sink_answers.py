"""Whatever a sink answers, every event is delivered or kept, and the receiver is not overwhelmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import pytest

from event_handler.event import Event
from event_handler.pipeline import concurrency
from event_handler.pipeline.pauses import RetryPolicy
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import Delivered, Retry, Verdict
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import CHUNK, mark, positions
from tests.support.events import ids, wire
from tests.support.passing_time import in_passing_time
from tests.support.pipelines import pipeline
from tests.support.sinks import ScriptedSink


async def test_an_outage_is_waited_out_and_loses_nothing(store: SqliteStore) -> None:
    sink = ScriptedSink()
    sink.failures = 5
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(30)]), mark("p"))
        await line.drain_all()
        assert line.counters.retries == 5
    assert sorted(sink.delivered) == sorted(ids(30))


async def test_a_sink_that_raises_is_repeated_and_does_not_stop_the_line(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = ScriptedSink()
    deliver, calls = sink.deliver, iter([True])

    async def raise_once(events: Sequence[Event]) -> Verdict:
        if next(calls, False):
            raise ZeroDivisionError("a fault of the sink")
        return await deliver(events)

    monkeypatch.setattr(sink, "deliver", raise_once)
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a")]), mark("p"))
        await line.drain_all()
    assert sink.delivered == ["a"]


async def test_a_sink_is_sent_few_requests_at_first_and_one_at_a_time_while_it_cannot_take_them(
    store: SqliteStore,
) -> None:
    sink = ScriptedSink(events=1, requests=64)
    sink.hold = asyncio.Event()
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(100)]), mark("p"))
        await asyncio.sleep(0.05)
        assert sink.calls == concurrency.START
        sink.failures = 10**6
        sink.hold.set()
        async with asyncio.timeout(10):
            while line.load.allowed > 1:
                await asyncio.sleep(0.01)
        sink.failures = 0
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(100))


async def test_batches_that_wait_for_the_receiver_are_sent_in_the_order_of_their_waiting(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "START", 1)
    sink = ScriptedSink(events=1, requests=5)
    sink.hold = asyncio.Event()
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(5)]), mark("p"))
        await asyncio.sleep(0.05)
        assert sink.calls == 1
        sink.hold.set()
        await line.drain_all()
    assert sink.delivered == ids(5)


@in_passing_time
async def test_a_bad_event_is_isolated_and_kept_and_the_stream_goes_on(store: SqliteStore) -> None:
    sink = ScriptedSink(events=16)
    sink.poison = {"e5"}
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(32)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(set(ids(32)) - {"e5"})
    assert await store.dead_letters() == 1
    assert await positions(store) == {CHUNK: "p"}


async def test_of_a_partial_answer_only_the_rest_is_sent_again(store: SqliteStore) -> None:
    sink = ScriptedSink(events=16, requests=1)
    sink.itemwise, sink.busy, sink.poison = True, {"e3": 2, "e9": 1}, {"e5"}
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(16)]), mark("p"))
        await line.drain_all()
        assert (line.counters.delivered, line.counters.dead, line.counters.retries) == (15, 1, 2)
        assert line.failing == ""
    assert sorted(sink.delivered) == sorted(set(ids(16)) - {"e5"})
    assert sink.calls == 3
    assert await store.dead_letters() == 1
    assert await positions(store) == {CHUNK: "p"}


async def test_no_position_passes_what_a_partial_answer_left_out(store: SqliteStore) -> None:
    sink = ScriptedSink(events=4, requests=1)
    sink.itemwise, sink.busy = True, {"e1": 10**6}
    async with pipeline(sink, store) as line:
        tracker = CheckpointTracker()
        await line.put(tracker, raw_events([wire("e0")]), mark("first"))
        await line.put(tracker, raw_events([wire("e1"), wire("e2"), wire("e3")]), mark("second"))
        async with asyncio.timeout(10):
            while await positions(store) != {CHUNK: "first"}:
                await asyncio.sleep(0.01)
        assert line.counters.delivered == 3
        assert line.failing == "scripted congestion"
        assert not tracker.drained
    assert await positions(store) == {CHUNK: "first"}


async def test_answers_that_only_a_person_can_correct_use_up_no_room_for_requests(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, taking = ScriptedSink(events=1, requests=4), ScriptedSink.deliver
    refusals = iter(range(5 * concurrency.START))

    async def deliver(events: Sequence[Event]) -> Verdict:
        return await taking(sink, events) if next(refusals, None) is None else Retry("scripted 401", misconfigured=True)

    monkeypatch.setattr(sink, "deliver", deliver)
    policy = RetryPolicy(first=0.0001, misconfigured=0.001)
    async with asyncio.timeout(20), pipeline(sink, store, policy=policy) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(10)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(10))


async def test_a_receiver_that_asks_for_a_pause_gets_it(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, asked = ScriptedSink(), []

    async def deliver(events: Sequence[Event]) -> Verdict:
        asked.append(monotonic())
        return Retry("scripted 429", after=0.3) if len(asked) == 1 else Delivered()

    monkeypatch.setattr(sink, "deliver", deliver)
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a")]), mark("p"))
        await line.drain_all()
    assert asked[1] - asked[0] >= 0.3


async def test_a_batch_that_is_too_large_is_halved_until_it_fits(store: SqliteStore) -> None:
    sink = ScriptedSink(events=16)
    sink.most = 3
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(16)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(16))


@in_passing_time
async def test_a_sink_that_never_answers_is_asked_again_after_the_time_that_it_has(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.limits = replace(sink.limits, timeout=60.0)
    sink.hold = asyncio.Event()
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a")]), mark("p"))
        await asyncio.sleep(59.0)
        assert (sink.calls, line.failing) == (1, "")
        await asyncio.sleep(2.0)
        assert line.failing == "the sink gave no answer within 60 s"
        sink.hold.set()
        await line.drain_all()
    assert sink.delivered == ["a"]
