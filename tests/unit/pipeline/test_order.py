"""With `ordered`, events of a session arrive in the order they were read, through failures and splits, while others
are under way.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence

import orjson
import pytest

from event_handler.event import Event
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import Delivered, Limits, Reject, Retry, Split, Verdict
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import mark
from tests.support.events import wire
from tests.support.passing_time import in_passing_time
from tests.support.pipelines import QUICK

EVENTS = 400
SESSIONS = 30


class Unsteady:
    """Answers after a random number of turns, often with a failure.

    Keeps what it took, and how many requests it had at a time.
    """

    name = "unsteady"

    def __init__(self, *, ordered: bool, events: int, poison: frozenset[str] = frozenset()) -> None:
        self.limits = Limits(events, 1_000_000, 8, 0.001, ordered)
        self.random = random.Random(7)
        self.poison = poison
        self.took: dict[str, list[int]] = defaultdict(list)
        self.at_a_time = self.most = 0

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        self.at_a_time += 1
        self.most = max(self.most, self.at_a_time)
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)
        self.at_a_time -= 1
        if self.random.random() < 0.3:
            return Retry("scripted congestion")
        if len(events) > 1 and self.random.random() < 0.2:
            return Split("scripted limit")
        if self.poison & {event.id for event in events}:
            return Reject("scripted refusal")
        for event in events:
            content = orjson.loads(event.body)
            self.took[event.session_id or content.get("sid", "")].append(int(event.id))
        return Delivered()

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


async def deliver_all(sink: Unsteady, store: SqliteStore) -> None:
    """Events of many sessions and of none, mixed, in runs of ten."""
    sids = [f"session-{number % SESSIONS}" if number % 3 else "" for number in range(EVENTS)]
    wires = [wire(str(number), **({"sid": sid} if sid else {})) for number, sid in enumerate(sids)]
    limits = PipelineLimits(sink.limits.requests, 10**6)
    async with (
        asyncio.timeout(600),
        Pipeline(sink, store, Selector("unsteady", DuplicateWindow()), limits, policy=QUICK) as line,
    ):
        tracker = CheckpointTracker()
        for begin in range(0, EVENTS, 10):
            await line.put(tracker, raw_events(wires[begin : begin + 10]), mark(str(begin)))
        await line.drain_all()
        assert line.counters.retries > 0


@pytest.mark.parametrize("events", [1, 7])
async def test_each_session_and_what_belongs_to_none_arrives_in_the_order_read(events: int) -> None:
    sink = Unsteady(ordered=True, events=events)
    await deliver_all(sink, SqliteStore(None))
    assert {sid: numbers for sid, numbers in sink.took.items() if numbers != sorted(numbers)} == {}
    assert sorted(number for numbers in sink.took.values() for number in numbers) == list(range(EVENTS))
    assert sink.most > 1


@in_passing_time
async def test_an_event_that_is_refused_does_not_change_the_order_of_the_others() -> None:
    sink = Unsteady(ordered=True, events=7, poison=frozenset({"31", "32", "200"}))
    store = SqliteStore(None)
    await deliver_all(sink, store)
    assert {sid: numbers for sid, numbers in sink.took.items() if numbers != sorted(numbers)} == {}
    assert await store.dead_letters() == 3


async def test_without_it_a_failing_sink_mixes_them() -> None:
    sink = Unsteady(ordered=False, events=1)
    await deliver_all(sink, SqliteStore(None))
    assert any(numbers != sorted(numbers) for numbers in sink.took.values())


async def test_recordings_keep_their_order_and_go_at_the_same_time() -> None:
    sink = Unsteady(ordered=True, events=3)
    limits = PipelineLimits(sink.limits.requests, 10**6)
    async with (
        asyncio.timeout(60),
        Pipeline(sink, SqliteStore(None), Selector("unsteady", DuplicateWindow()), limits, policy=QUICK) as line,
    ):
        for number in range(0, 200, 5):
            for session in ("r1", "r2", "r3"):
                wires = [wire(str(at), "print", number=at) for at in range(number, number + 5)]
                await line.put(CheckpointTracker(), raw_events(wires, session), mark(str(number)))
        await line.drain_all()
    assert sink.took == {session: list(range(200)) for session in ("r1", "r2", "r3")}
    assert sink.most > 1
