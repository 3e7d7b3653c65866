"""Reading waits while too much is in flight, nobody waits for ever, and who gives up hides nothing."""

from __future__ import annotations

import asyncio

from event_handler.pipeline.budget import Budget
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import Limits
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import CHUNK, mark, positions
from tests.support.events import ids, wire
from tests.support.pipelines import pipeline
from tests.support.sinks import ScriptedSink


async def test_reading_waits_while_too_many_bytes_are_in_flight(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    line = pipeline(sink, store, 2000)
    async with line:
        putting = asyncio.create_task(
            line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(20)]), mark("p"))
        )
        await asyncio.sleep(0.05)
        assert not putting.done()
        sink.hold.set()
        await putting
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(20))


async def test_a_large_event_is_not_overtaken_for_ever_by_small_ones_of_other_streams(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1)
    async with pipeline(sink, store, 20_000) as line:
        arrived = False

        async def small(stream: str) -> None:
            number = 0
            while not arrived:
                await line.put(
                    CheckpointTracker(),
                    raw_events([wire(f"{stream}-{number}-{part}") for part in range(10)]),
                    mark("p"),
                )
                number += 1

        others = [asyncio.create_task(small(stream)) for stream in ("a", "b", "c")]
        async with asyncio.timeout(30):
            while not sink.delivered:
                await asyncio.sleep(0.01)
            await line.put(CheckpointTracker(), raw_events([wire("large", text="x" * 15_000)]), mark("p"))
        arrived = True
        await asyncio.gather(*others)
        await line.drain_all()
    assert "large" in sink.delivered


async def test_a_cancelled_reader_does_not_hide_what_it_had_not_handed_on(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    line = pipeline(sink, store, 2000)
    async with line:
        tracker = CheckpointTracker()
        putting = asyncio.create_task(line.put(tracker, raw_events([wire(uid) for uid in ids(20)]), mark("p")))
        await asyncio.sleep(0.02)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        assert not tracker.drained
        sink.hold.set()
        await line.drain(tracker)
        assert await positions(store) == {}
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(20)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(20))
    assert await positions(store) == {CHUNK: "p"}


async def test_a_reader_that_was_cancelled_before_it_handed_anything_on_leaves_nothing_to_wait_for(
    store: SqliteStore,
) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    async with asyncio.timeout(20), pipeline(sink, store, 1000) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a")]), None)
        tracker = CheckpointTracker()
        putting = asyncio.create_task(line.put(tracker, raw_events([wire("b", text="x" * 500)]), mark("p")))
        await asyncio.sleep(0.02)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        await line.drain(tracker)
        sink.hold.set()
    assert await positions(store) == {}


async def test_who_comes_later_waits_behind_a_large_event_also_when_there_is_room_for_a_small_one(
    store: SqliteStore,
) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    async with asyncio.timeout(20), pipeline(sink, store, 5000) as line:
        await line.put(CheckpointTracker(), raw_events([wire("first")]), None)
        large = asyncio.create_task(line.put(CheckpointTracker(), raw_events([wire("large", text="x" * 3000)]), None))
        await asyncio.sleep(0.02)
        small = asyncio.create_task(line.put(CheckpointTracker(), raw_events([wire("small")]), None))
        await asyncio.sleep(0.05)
        assert not small.done()
        sink.hold.set()
        await asyncio.gather(large, small)
        await line.drain_all()
    assert sink.delivered == ["first", "large", "small"]


async def test_what_is_larger_than_the_budget_has_room_when_nothing_else_is_in_flight() -> None:
    budget = Budget(100)
    assert budget.try_take(500)
    assert not budget.try_take(1)
    await budget.give_back(500)
    assert budget.try_take(1)
    assert not budget.try_take(100)
    assert budget.used == 1


async def test_nobody_overtakes_who_waits_for_room() -> None:
    budget = Budget(100)
    await budget.take(60)
    large = asyncio.create_task(budget.take(100))
    await asyncio.sleep(0)
    assert not budget.try_take(10)
    await budget.give_back(60)
    await large
    assert budget.used == 100


async def test_who_was_cancelled_while_waiting_has_taken_nothing_and_holds_up_nobody() -> None:
    budget = Budget(100)
    await budget.take(60)
    waiting = asyncio.create_task(budget.take(100))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert budget.try_take(40)
    assert budget.used == 100


def patient_sink() -> ScriptedSink:
    """A sink that would wait an hour for a batch of ten thousand."""
    sink = ScriptedSink()
    sink.limits = Limits(10_000, 1_000_000, 3, 3600.0)
    return sink


async def test_the_end_does_not_wait_for_events_that_will_not_come(store: SqliteStore) -> None:
    sink = patient_sink()
    async with pipeline(sink, store) as line, asyncio.timeout(20):
        tracker = CheckpointTracker()
        await line.put(tracker, raw_events([wire(uid) for uid in ids(5)]), mark("p"))
        await line.drain(tracker)
        await line.put(tracker, raw_events([wire(f"more-{uid}") for uid in ids(5)]), mark("q"))
        await line.drain_all()
    assert sink.calls == 2


async def test_a_sink_that_would_like_more_than_there_is_room_for_gets_what_there_is(store: SqliteStore) -> None:
    sink = patient_sink()
    async with pipeline(sink, store, 20_000) as line, asyncio.timeout(20):
        for number in range(20):
            some = [wire(f"{number}-{uid}") for uid in ids(10)]
            await line.put(CheckpointTracker(), raw_events(some), mark("p"))
        await line.drain_all()
    assert len(sink.delivered) == 200
    assert sink.calls < 20
