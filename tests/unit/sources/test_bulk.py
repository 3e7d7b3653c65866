"""Bulk export: no chunk holds up another, nothing is remembered too early, and old days are rarely asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time

from event_handler.pipeline.duplicates import DuplicateWindow
from event_handler.pipeline.engine import LineLimits, Pipeline
from event_handler.pipeline.select import Selector
from event_handler.sources.bulk import DONE, BulkSource, day_of
from event_handler.state.store import Store
from tests.unit.pipeline.test_engine import ScriptedSink, ids, wire
from tests.unit.sources.scripted import ScriptedClient
from tests.unit.sources.test_recordings import until

DAY = 86_400.0


@asynccontextmanager
async def reading(client: ScriptedClient, sink: ScriptedSink, store: Store, *, days: int = 0) -> AsyncIterator[None]:
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), LineLimits(3, 1_000_000)) as line:
        start = time() - days * DAY
        source = BulkSource(client, line, store, start=start, late_days=3, poll=0.01, until_caught_up=False)
        running = asyncio.create_task(source.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_chunk_that_stands_still_holds_up_neither_the_others_nor_the_listing() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    today = str(day_of(time()))
    client.days[today] = ["stuck"]
    client.exports = {"stuck": [wire("x")], "later": [wire("y")]}
    client.stuck = {"stuck"}
    async with reading(client, sink, store):
        await until(lambda: "x" in sink.delivered)
        client.days[today].append("later")
        await until(lambda: store.positions("bulk/") == {f"bulk/{today}/stuck": "a1:1", f"bulk/{today}/later": DONE})


async def test_a_chunk_that_is_listed_anew_is_not_done_while_its_events_are_in_flight() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    client.days[str(day_of(time()))] = ["chunk"]
    client.exports["chunk"] = [wire(uid) for uid in ids(5)]
    client.breaks["chunk"] = ["NOT_FOUND"]
    sink.hold = asyncio.Event()
    async with reading(client, sink, store):
        await until(lambda: client.asked == [("chunk", ""), ("chunk", "a1:5")])
        await asyncio.sleep(0.1)
        assert store.positions("bulk/") == {}
        sink.hold.set()
        await until(lambda: list(store.positions("bulk/").values()) == [DONE])
    assert sorted(sink.delivered) == ids(5)


async def test_days_before_yesterday_are_listed_at_every_sixth_poll_only() -> None:
    client = ScriptedClient()
    async with reading(client, ScriptedSink(), Store(None), days=3):
        await until(lambda: len(client.listed) >= 60)
    today = max(client.listed)
    counts = Counter(client.listed)
    old = min(counts.values())
    assert len(counts) == 4
    assert 5 * old <= counts[today] <= 6 * old + 1
