"""Search: a clock that is wrong by minutes loses nothing, and an empty history costs few calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time

import pytest

from event_handler.pipeline.duplicates import DuplicateWindow
from event_handler.pipeline.engine import LineLimits, Pipeline
from event_handler.pipeline.select import Selector
from event_handler.sources import search
from event_handler.sources.search import SearchSource
from event_handler.state.store import Store
from tests.unit.pipeline.test_engine import ScriptedSink
from tests.unit.sources.scripted import ScriptedClient, wire_at
from tests.unit.sources.test_recordings import until

DAY = 86_400.0


@asynccontextmanager
async def reading(client: ScriptedClient, sink: ScriptedSink, store: Store, *, days: float) -> AsyncIterator[None]:
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), LineLimits(3, 1_000_000)) as line:
        source = SearchSource(
            client,
            line,
            store,
            start=time() - days * DAY,
            window=DAY,
            page=0,
            types=(),
            look_back=300.0,
            poll=0.01,
            until_caught_up=False,
        )
        running = asyncio.create_task(source.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("ahead", [-20 * 3600.0, -1800.0, -60.0, 60.0, 1800.0])
async def test_a_clock_that_is_wrong_loses_no_new_event(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    monkeypatch.setattr(search, "time", lambda: time() + ahead)
    monkeypatch.setattr(search, "SWEEP_EVERY", 0.1)
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    client.log = [wire_at("old", time() - DAY)]
    async with reading(client, sink, store, days=10):
        await until(lambda: sink.delivered == ["old"])
        calls = len(client.searched)
        await until(lambda: len(client.searched) > calls + 4)  # it has reached the present
        client.log.append(wire_at("new", time()))
        await until(lambda: sink.delivered == ["old", "new"])
    async with reading(client, sink, store, days=10):
        client.log.append(wire_at("after a restart", time()))
        await until(lambda: "after a restart" in sink.delivered)


async def test_a_start_time_years_ago_costs_few_calls_to_reach_the_first_event() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    client.log = [wire_at("first", time() - DAY)]
    async with reading(client, sink, store, days=5 * 365):
        await until(lambda: sink.delivered == ["first"])
    assert len(client.searched) < 80


async def test_late_events_are_found_also_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [3600.0]
    monkeypatch.setattr(search, "time", lambda: time() + wrong[0])
    monkeypatch.setattr(search, "SWEEP_EVERY", 0.2)
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    client.log = [wire_at("newest", time() - 1.0)]
    async with reading(client, sink, store, days=1):
        await until(lambda: sink.delivered == ["newest"])
        wrong[0] = 0.0
        client.log.append(wire_at("late", time() - 200.0))
        await until(lambda: sink.delivered == ["newest", "late"])
