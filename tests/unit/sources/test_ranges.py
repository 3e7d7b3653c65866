"""A backlog is cut so that three searches have something to do from its beginning to its end, however its events are
spread.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from itertools import accumulate
from typing import Any

import pytest

from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.sources import ranges
from event_handler.sources.search import SearchPace, SearchSource
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.messages import OLDEST_FIRST
from tests.support.passing_time import BEGIN, PassingLoop
from tests.support.scripted_cluster import wire_at
from tests.unit.sources.interrupted import SlowSink, page_of, run

HOUR = 3600.0
EVENTS = 6000
PAGE = 30  # events
SCALE = 2600 // PAGE  # a real page has so many times the events
ALONE, TOGETHER = 54e-6 * SCALE, 32e-6 * SCALE  # seconds that an event takes in one search, and in three side by side


def spread(kind: str) -> list[float]:
    """Times of the events of the last twenty hours, in seconds since the epoch."""
    shares = {
        "evenly": [1.0] * 20,
        "in one hour": [0.0] * 11 + [1.0] + [0.0] * 8,
        "at the end": [0.1] * 19 + [40.0],
        "in bursts": [1.0, 0.0, 0.0, 30.0, 0.0, 2.0, 9.0, 0.0, 0.0, 0.1] * 2,
    }[kind]
    total = sum(shares)
    ends = [round(part / total * EVENTS) for part in accumulate(shares)]
    times, before = [], 0
    for hour, end in enumerate(ends):
        times += [BEGIN - (20 - hour) * HOUR + HOUR * number / (end - before) for number in range(end - before)]
        before = end
    return times


class PacedClient(Client):
    """Searches at the cost of a real server: each at ALONE an event, all together at TOGETHER."""

    def __init__(self, loop: PassingLoop, times: list[float]) -> None:
        self.loop = loop
        self.events = [wire_at(f"e{number}", time) for number, time in enumerate(times)]
        self.due = 0.0
        self.given = 0
        self.busy = 0

    async def search(
        self,
        since: float,
        until: float,
        *,
        limit: int,
        key: str = "",
        types: tuple[str, ...] = (),
        order: int = OLDEST_FIRST,
    ) -> tuple[list[bytes], str]:
        events, following = page_of(self.events, since, until, key, order, min(limit, PAGE))
        self.given += len(events)
        begun = self.loop.time()
        self.due = max(self.due, begun) + TOGETHER * len(events)
        await asyncio.sleep(max(self.due - begun, ALONE * len(events), 0.001))
        return events, following


def paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range has as many pages as a real one."""
    for name in ("EVENTS_OF_A_RANGE", "MOST_OF_A_RANGE", "WORTH_A_CUT", "FARTHEST_AHEAD"):
        monkeypatch.setattr(ranges, name, getattr(ranges, name) // SCALE)


@pytest.mark.proof
@pytest.mark.parametrize(
    "kind",
    ["in bursts", *(pytest.param(kind, marks=pytest.mark.soak) for kind in ("evenly", "in one hour", "at the end"))],
)
def test_a_backlog_shorter_than_the_window_takes_hardly_longer_than_three_equal_ranges(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    paced(monkeypatch)
    taken: dict[str, Any] = {}

    async def work(loop: PassingLoop) -> None:
        sink, client = SlowSink(0.0), PacedClient(loop, spread(kind))
        with closing(SqliteStore(None)) as store:
            window = DuplicateWindow()
            async with Pipeline(sink, store, Selector("slow", window), PipelineLimits(3, 1_000_000)) as line:
                source = SearchSource(
                    client,
                    line,
                    store,
                    start=BEGIN - 21 * HOUR,
                    window=24 * HOUR,
                    page=0,
                    types=(),
                    look_back=300.0,
                    poll=2.0,
                    until_caught_up=True,
                    pace=SearchPace(rest=0.0),
                )
                reading = asyncio.create_task(source.run())
                while len(set(sink.delivered)) < EVENTS:
                    await asyncio.sleep(0.01)
                taken.update(seconds=loop.time(), given=client.given)
                await reading
        assert len(sink.delivered) == EVENTS

    run(work)
    assert EVENTS * TOGETHER / taken["seconds"] >= 0.9
    assert taken["given"] < 1.1 * EVENTS
