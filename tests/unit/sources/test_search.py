"""Search: what is asked of the server stays small when nothing happens, and a clock that goes wrong hides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import time
from typing import Any

import pytest

from event_handler.errors import RpcError
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.ports import Commit
from event_handler.sources import pages, ranges, search
from event_handler.sources.search import AHEAD, SearchPace, SearchSource
from event_handler.state.keys import SEARCH as STREAM
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import event_id, event_time
from event_handler.teleport.wire.messages import OLDEST_FIRST, write_time
from tests.support.checkpoints import places, read_position
from tests.support.events import wire
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until
from tests.unit.sources.test_pages import Paged

DAY = 86_400.0
LOOK_BACK = 300.0


class SearchedClient(Client):
    """Has `events`, in any order, and keeps the windows that were `asked` for, oldest first."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.asked: list[tuple[float, float]] = []

    def between(self, since: float, until: float) -> list[bytes]:
        return sorted((event for event in self.events if since <= event_time(event) <= until), key=event_time)

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
        await asyncio.sleep(0)
        found = self.between(since, until)
        if order == OLDEST_FIRST:
            self.asked.append((since, until))
        else:
            found.reverse()
        return found[:limit], ""


def at(moment: float, uid: str) -> bytes:
    return wire(uid) + write_time(3, moment)


def source_of(
    client: Client,
    line: Pipeline,
    store: SqliteStore,
    *,
    start: float,
    window: float,
    look_back: float = LOOK_BACK,
    sweep: float = 60.0,
    deep: float = 3600.0,
) -> SearchSource:
    return SearchSource(
        client,
        line,
        store,
        start=start,
        window=window,
        page=0,
        types=(),
        look_back=look_back,
        poll=0.01,
        until_caught_up=False,
        pace=SearchPace(sweep, deep),
    )


@asynccontextmanager
async def reading(client: Client, sink: ScriptedSink, store: SqliteStore, **how: float) -> AsyncIterator[None]:
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), PipelineLimits(3, 1_000_000)) as line:
        running = asyncio.create_task(source_of(client, line, store, **how).run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("events", [0, 3])
async def test_a_log_in_which_nothing_happens_is_searched_back_for_little_more_than_an_hour(events: int) -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    now = time()
    client.events = [at(now - DAY + number, f"old{number}") for number in range(events)]
    async with reading(client, sink, store, start=now - 2 * DAY, window=10 * DAY):
        await until(lambda: len(client.asked) > 8)  # the past, a sweep, and some polls
    since, _ = client.asked[-1]
    assert now - AHEAD - 2 * LOOK_BACK < since < now - AHEAD - LOOK_BACK
    position = await read_position(store)
    assert position is not None
    assert position == pytest.approx(now - (DAY if events else 2 * DAY), abs=30)
    assert len(sink.delivered) == events


async def test_an_event_of_a_server_whose_clock_is_behind_is_found_after_the_past_was_read() -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    now = time()
    async with reading(client, sink, store, start=now - 2 * DAY, window=DAY, sweep=0.05):
        await until(lambda: len(client.asked) > 5)
        client.events = [at(now - AHEAD / 2, "of a slow clock")]
        await until(lambda: sink.delivered == ["of a slow clock"])


async def test_an_event_that_appears_as_late_as_the_look_back_is_found_though_newer_ones_were_read() -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    now = time()
    client.events = [at(now, "new")]
    async with reading(client, sink, store, start=now - 2 * DAY, window=DAY, sweep=0.05):
        await until(lambda: len(client.asked) > 5)
        client.events.append(at(now - LOOK_BACK + 10, "late"))
        await until(lambda: sink.delivered == ["new", "late"])


async def test_an_event_that_was_late_when_nobody_was_reading_is_found() -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    position = time() - 3 * AHEAD
    await store.commit(Commit(places({STREAM: repr(position)})))
    client.events = [at(position - LOOK_BACK + 10, "late")]
    async with reading(client, sink, store, start=time() - DAY, window=AHEAD / 2):
        await until(lambda: sink.delivered == ["late"])


async def test_an_event_that_is_late_between_two_sweeps_is_found_however_much_newer_the_newest_is_at_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed = [0.0]
    monkeypatch.setattr(search, "time", lambda: time() + passed[0])
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    begun = time()
    client.events = [at(begun, "new")]
    async with reading(client, sink, store, start=begun - DAY, window=DAY, sweep=0.3):
        await until(lambda: sink.delivered == ["new"])
        passed[0] = LOOK_BACK
        client.events += [at(begun - LOOK_BACK + 10, "late"), at(begun + LOOK_BACK, "newer")]
        await until(lambda: "newer" in sink.delivered)
        await until(lambda: "late" in sink.delivered)


@pytest.mark.parametrize("look_back", [0.0, LOOK_BACK, 5 * AHEAD])
async def test_what_comes_late_after_the_past_was_read_up_to_now_is_found(look_back: float) -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    now = time()
    client.events = [at(now - 2.0, "new")]
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), PipelineLimits(3, 1_000_000)) as line:
        source = source_of(client, line, store, start=now - 2 * DAY, window=AHEAD, look_back=look_back, sweep=0.05)
        running = asyncio.create_task(source.run())
        await until(lambda: sink.delivered == ["new"])
        client.events.append(at(now - max(look_back - 1.0, 0.0), "late"))
        await until(lambda: sink.delivered == ["new", "late"])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("ahead", [-20 * 3600.0, -1800.0, -60.0, 60.0, 1800.0, 5 * 3600.0, 20 * 3600.0])
async def test_a_clock_that_is_wrong_loses_no_new_event(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    monkeypatch.setattr(search, "time", lambda: time() + ahead)
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    client.events = [at(time() - DAY, "old")]
    async with reading(client, sink, store, start=time() - 10 * DAY, window=DAY, sweep=0.1, deep=0.3):
        await until(lambda: sink.delivered == ["old"])
        calls = len(client.asked)
        await until(lambda: len(client.asked) > calls + 4)  # it has reached the present
        client.events.append(at(time(), "new"))
        await until(lambda: sink.delivered == ["old", "new"])
    async with reading(client, sink, store, start=time() - 10 * DAY, window=DAY, sweep=0.1, deep=0.3):
        client.events.append(at(time(), "after a restart"))
        await until(lambda: "after a restart" in sink.delivered)


async def test_an_event_of_the_future_hides_none_of_the_present() -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    client.events = [at(time() + AHEAD / 2, "future")]
    async with reading(client, sink, store, start=time() - DAY, window=DAY, sweep=0.1):
        await until(lambda: sink.delivered == ["future"])
        client.events.append(at(time(), "present"))
        await until(lambda: sink.delivered == ["future", "present"])
        position = await read_position(store)
    assert position is not None
    assert position <= time()


async def test_all_that_an_event_hides_which_is_too_large_is_found_from_the_end() -> None:
    now = time()
    client, sink, store = Paged(*(now - 100.0 + number for number in range(9))), ScriptedSink(), SqliteStore(None)
    client.hides = {"e0"}
    async with reading(client, sink, store, start=now - DAY, window=DAY):
        await until(lambda: len(sink.delivered) == 8)
    assert set(sink.delivered) == {f"e{number}" for number in range(1, 9)}


async def test_events_before_the_start_time_are_not_delivered() -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    client.events = [at(time() - 100.0, "before"), at(time() - 1.0, "after")]
    async with reading(client, sink, store, start=time() - 50.0, window=DAY):
        await until(lambda: sink.delivered == ["after"])
        await until(lambda: len(client.asked) > 3)
    assert sink.delivered == ["after"]


async def test_a_start_time_years_ago_costs_few_calls_to_reach_the_first_event() -> None:
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    client.events = [at(time() - DAY, "first")]
    async with reading(client, sink, store, start=time() - 5 * 365 * DAY, window=DAY):
        await until(lambda: sink.delivered == ["first"])
    assert len(client.asked) < 80


async def test_late_events_are_found_also_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [3600.0]
    monkeypatch.setattr(search, "time", lambda: time() + wrong[0])
    client, sink, store = SearchedClient(), ScriptedSink(), SqliteStore(None)
    client.events = [at(time() - 1.0, "newest")]
    async with reading(client, sink, store, start=time() - DAY, window=DAY, sweep=0.2):
        await until(lambda: sink.delivered == ["newest"])
        wrong[0] = 0.0
        client.events.append(at(time() - 200.0, "late"))
        await until(lambda: sink.delivered == ["newest", "late"])


class PagedClient(SearchedClient):
    """Gives two events a page, with the id of the last as key.

    Every `refused`-th key is refused, or `forgotten`: an empty page.
    """

    def __init__(self, refused: int, *, forgotten: bool) -> None:
        super().__init__()
        self._every = refused
        self._forgotten = forgotten
        self._calls = 0

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
        found, _ = await super().search(since, until, limit=limit, order=order)
        if key:
            self._calls += 1
            if self._calls % self._every == 0:
                if self._forgotten:
                    return [], ""
                raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: no such key")
            found = found[[event_id(wire) for wire in found].index(key) + 1 :]
        return found[:2], event_id(found[1]) if len(found) > 2 else ""


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("refused", [1, 2, 3])
async def test_a_page_key_that_is_refused_or_forgotten_costs_no_event(refused: int, forgotten: bool) -> None:
    client, sink, store = PagedClient(refused, forgotten=forgotten), ScriptedSink(), SqliteStore(None)
    now = time()
    client.events = [at(now - 2 * DAY + number, f"e{number}") for number in range(24)]
    async with reading(client, sink, store, start=now - 3 * DAY, window=DAY):
        await until(lambda: len(sink.delivered) == 24)
    assert sink.delivered == [f"e{number}" for number in range(24)]


async def test_a_server_that_refuses_large_pages_is_asked_for_smaller_ones_by_each_window_and_stays_connected() -> None:
    class SmallPages(SearchedClient):
        async def search(self, since: float, until: float, *, limit: int, **options: object) -> tuple[list[bytes], str]:
            await asyncio.sleep(0)
            if limit > pages.SMALLER_PAGE:
                self.asked.append((since, until))
                raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: limit is too large")
            return self.between(since, until), ""

    client, sink, store = SmallPages(), ScriptedSink(), SqliteStore(None)
    now = time()
    client.events = [at(now - 9 * DAY + number * DAY / 2, f"e{number}") for number in range(16)]
    async with reading(client, sink, store, start=now - 10 * DAY, window=DAY):
        await until(lambda: len(sink.delivered) == 16)
    assert len(client.asked) == ranges.RANGES_AT_ONCE


class GatedClient(SearchedClient):
    """Answers the first search of the past when the gate is open, the others at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def search(self, since: float, until: float, *, limit: int, **options: Any) -> tuple[list[bytes], str]:
        if limit > 1:
            self.asked.append((since, until))
            if len(self.asked) == 1:
                await self.gate.wait()
        return self.between(since, until), ""


@pytest.mark.parametrize("days", [0.5, 10])
async def test_the_past_is_read_in_ranges_side_by_side_and_remembered_in_the_order_of_time(days: float) -> None:
    client, sink, store = GatedClient(), ScriptedSink(), SqliteStore(None)
    now = time()
    client.events = [at(now - days * DAY * (1 - number / 18) + 1.0, f"e{number}") for number in range(17)]
    async with reading(client, sink, store, start=now - days * DAY, window=DAY):
        await until(lambda: len(client.asked) >= ranges.RANGES_AT_ONCE)
        behind = {event_id(event) for event in client.between(client.asked[0][1], now)}
        assert 0 < len(behind) < 17
        await until(lambda: set(sink.delivered) == behind)
        position = await read_position(store)
        assert position is None or position == now - days * DAY
        client.gate.set()
        await until(lambda: len(sink.delivered) == 17)
        await until(
            lambda: read_position(store), lambda found: (found or 0.0) > now - days * DAY / 9 - 1.0
        )  # the newest event
    assert len(client.asked) >= ranges.RANGES_AT_ONCE


async def test_where_order_is_kept_the_past_is_read_one_range_after_the_other() -> None:
    client, sink, store = GatedClient(), ScriptedSink(requests=1), SqliteStore(None)
    sink.limits = replace(sink.limits, ordered=True)
    now = time()
    client.events = [at(now - 9 * DAY + number * DAY / 2, f"e{number}") for number in range(16)]
    async with reading(client, sink, store, start=now - 10 * DAY, window=DAY):
        await until(lambda: len(client.asked) == 1)
        client.gate.set()
        await until(lambda: len(sink.delivered) == 16)
    assert sink.delivered == [f"e{number}" for number in range(16)]


async def test_a_range_that_fails_ends_the_reading_and_what_the_others_had_brought_is_not_sent_again() -> None:
    class FailingClient(SearchedClient):
        fails = 2

        async def search(self, since: float, until: float, *, limit: int, **options: Any) -> tuple[list[bytes], str]:
            if limit > 1:
                self.asked.append((since, until))
                number = len(self.asked)
                if number > 2:
                    await until_delivered()
                if number > self.fails:
                    raise RpcError("GetUnstructuredEvents", "UNAVAILABLE", "scripted")
            return self.between(since, until), ""

    client, sink, store = FailingClient(), ScriptedSink(), SqliteStore(None)

    async def until_delivered() -> None:
        await until(lambda: {"e0", "e1"} <= set(sink.delivered))

    now = time()
    client.events = [at(now - 10 * DAY + 60 + number * DAY, f"e{number}") for number in range(9)]
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), PipelineLimits(3, 1_000_000)) as line:
        source = source_of(client, line, store, start=now - 10 * DAY, window=DAY)
        with pytest.raises(ExceptionGroup) as raised:
            await source.run()
        assert raised.group_contains(RpcError, match="scripted")
        await line.drain_all()
        assert {"e0", "e1"} <= set(sink.delivered) < {f"e{number}" for number in range(9)}
        position = await read_position(store)
        assert position is not None
        assert position < now - 8 * DAY + 61
        client.fails = 1_000_000
        again = asyncio.create_task(source_of(client, line, store, start=now - 10 * DAY, window=DAY).run())
        await until(lambda: len(sink.delivered) == 9)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
