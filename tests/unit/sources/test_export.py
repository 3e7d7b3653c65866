"""Bulk export: no chunk holds up another, nothing is remembered too early, and old days are rarely asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta
from time import time
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from event_handler.checkpoint import DONE, day_of
from event_handler.errors import ConnectError, RpcError
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.ports import Commit
from event_handler.sources import export, stall_detector
from event_handler.sources.export import LISTINGS_AT_ONCE, BulkSource
from event_handler.state.keys import CLOSED_DAYS, FIRST_DAY
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import places, positions, remember
from tests.support.events import ids, wire
from tests.support.scripted_cluster import ScriptedClient, wire_at
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until

DAY = 86_400.0


@asynccontextmanager
async def reading(
    client: ScriptedClient,
    sink: ScriptedSink,
    store: SqliteStore,
    *,
    days: int = 0,
    to_the_end: bool = False,
    poll: float = 0.01,
) -> AsyncIterator[asyncio.Task[None]]:
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), PipelineLimits(3, 1_000_000)) as line:
        start = time() - days * DAY
        source = BulkSource(
            client, line, store, start=start, late_days=3, poll=poll, until_caught_up=to_the_end, longest_wait=0.01
        )
        running = asyncio.create_task(source.run())
        try:
            yield running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def day(ago: int) -> str:
    return str(day_of(time() - ago * DAY))


def noon(ago: int) -> float:
    return (time() - ago * DAY) // DAY * DAY + DAY / 2


def chunk_name(made: float) -> str:
    """A UUIDv7 of that time (seconds since the epoch), as Athena names its chunks."""
    return str(UUID(int=int(made * 1000) << 80 | 7 << 76 | 0b10 << 62))


class WritesCounted(SqliteStore):
    """Counts the statements that write, each of which is a commit of its own."""

    writes = 0

    async def close_days(self, first: date) -> None:
        self.writes += 1
        await super().close_days(first)


async def test_a_chunk_that_stands_still_holds_up_neither_the_others_nor_the_listing() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    today = str(day_of(time()))
    client.days[today] = ["stuck"]
    client.exports = {"stuck": [wire("x")], "later": [wire("y")]}
    client.stuck = {"stuck"}
    async with reading(client, sink, store):
        await until(lambda: "x" in sink.delivered)
        client.days[today].append("later")
        await until(
            lambda: positions(store, "bulk/"),
            lambda found: found == {f"bulk/{today}/stuck": "a1:1", f"bulk/{today}/later": DONE},
        )


async def test_a_chunk_that_is_listed_anew_is_not_done_while_its_events_are_in_flight() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[str(day_of(time()))] = ["chunk"]
    client.exports["chunk"] = [wire(uid) for uid in ids(5)]
    client.breaks["chunk"] = ["NOT_FOUND"]
    sink.hold = asyncio.Event()
    async with reading(client, sink, store):
        await until(lambda: client.asked == [("chunk", ""), ("chunk", "a1:5")])
        await asyncio.sleep(0.1)
        assert await positions(store, "bulk/") == {}
        sink.hold.set()
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert sorted(sink.delivered) == ids(5)


async def test_days_before_yesterday_are_listed_at_every_sixth_poll_only() -> None:
    client = ScriptedClient()
    async with reading(client, ScriptedSink(), SqliteStore(None), days=3):
        await until(lambda: len(client.listed) >= 60)
    today = day(0)
    counts = Counter(client.listed)
    old = min(counts.values())
    assert counts.keys() == {day(ago) for ago in range(-1, 4)}  # a clock that is behind has its tomorrow today
    assert counts[today] - 1 <= counts[day(1)] <= counts[today] + 1
    assert 5 * old <= counts[today] <= 6 * old + 1


async def test_an_interrupted_chunk_goes_on_at_its_cursor_and_is_not_asked_for_from_its_start() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    client.exports["chunk"] = [wire(uid) for uid in ids(50)]
    client.breaks["chunk"] = ["UNAVAILABLE", "INTERNAL", "UNAVAILABLE"]
    async with reading(client, sink, store):
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert client.asked == [("chunk", "")] + 3 * [("chunk", "a1:50")]
    assert sorted(sink.delivered) == sorted(ids(50))


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED"])
async def test_a_chunk_that_cannot_be_read_is_searched_for_and_holds_up_neither_the_end_nor_its_day(code: str) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    broken, whole = chunk_name(noon(5)), chunk_name(noon(5) + 60)
    client.days[day(5)] = [broken, whole]
    client.exports = {whole: [wire_at("w1", noon(5) + 30)]}
    if code != "NOT_FOUND":
        client.exports[broken] = [wire_at("b1", noon(5) - 40)]
        client.breaks[broken] = [code] * 1000
    client.log = [wire_at("b1", noon(5) - 40), wire_at("b2", noon(5) - 30), wire_at("late", noon(5) - 4000)]
    async with reading(client, sink, store, days=5, to_the_end=True) as running:
        await asyncio.wait_for(running, 20)
    assert sorted(sink.delivered) == ["b1", "b2", "late", "w1"]
    assert await store.note(FIRST_DAY) == day(3)


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"])
async def test_a_cluster_that_lets_nobody_read_chunks_is_waited_for(code: str) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    client.exports["chunk"] = [wire("e1")]
    client.breaks["chunk"] = [code] * 100
    async with reading(client, sink, store):
        await until(lambda: client.breaks["chunk"] == [])
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert (sink.delivered, client.searched) == (["e1"], [])


async def test_a_chunk_that_can_neither_be_read_nor_searched_for_is_tried_in_both_ways_again() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    client.breaks["search"] = ["PERMISSION_DENIED"] * 1000
    async with reading(client, sink, store):
        await until(lambda: len(client.searched) >= 2)
        assert await positions(store, "bulk/") == {}
        client.exports["chunk"] = [wire("e1")]
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert sink.delivered == ["e1"]


async def test_an_empty_chunk_that_was_written_a_day_late_is_searched_for_in_its_own_day() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    late = chunk_name(noon(1))
    client.days[day(2)] = [late]
    client.exports[late] = []
    client.log = [wire_at("e1", noon(2))]
    async with reading(client, sink, store, days=2):
        await until(lambda: sink.delivered == ["e1"])


async def test_the_late_event_of_a_chunk_that_is_given_empty_is_found_though_a_neighbours_event_is_found_first() -> (
    None
):
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    late, neighbour, slow = (chunk_name(noon(2) + seconds) for seconds in (0, 1, 2))
    client.days[day(2)] = [late, neighbour, slow]
    client.exports = {late: [], neighbour: [wire_at("n", noon(2) - 30)], slow: [wire_at("s", noon(2) - 20)]}
    client.stuck = {slow}
    client.log = [
        wire_at("late", noon(2) - 7200),
        wire_at("n", noon(2) - 30),
        wire_at("s", noon(2) - 20),
        wire_at("s2", noon(2) - 19),
    ]
    async with reading(client, sink, store, days=2):
        await until(lambda: sorted(sink.delivered) == ["n", "s"])
        await asyncio.sleep(0.05)
        assert client.searched == []  # while another chunk is being read, nobody knows whose events a search brings
    client.stuck, client.exports[slow] = set(), [wire_at("s", noon(2) - 20), wire_at("s2", noon(2) - 19)]
    async with reading(client, sink, store, days=2, to_the_end=True) as running:
        await asyncio.wait_for(running, 20)
    assert set(sink.delivered) == {"n", "s", "s2", "late"}
    assert set((await positions(store, "bulk/")).values()) == {DONE}


async def test_each_of_several_chunks_that_are_given_empty_gets_its_event() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    names = client.days[day(2)] = [chunk_name(noon(2) + 600 * number) for number in range(3)]
    client.exports = {name: [] for name in names}
    client.log = [wire_at("e0", noon(2) - 30), wire_at("late", noon(2) - 7200), wire_at("e2", noon(2) + 1170)]
    async with reading(client, sink, store, days=2, to_the_end=True) as running:
        await asyncio.wait_for(running, 20)
    assert sorted(sink.delivered) == ["e0", "e2", "late"]


async def test_a_whole_day_is_not_searched_when_the_event_is_where_the_name_of_its_empty_chunk_says() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    name = chunk_name(noon(2))
    client.days[day(2)] = [name]
    client.exports[name] = []
    client.log = [wire_at("e1", noon(2) - 30), wire_at("elsewhere", noon(2) - 7200)]
    async with reading(client, sink, store, days=2, to_the_end=True) as running:
        await asyncio.wait_for(running, 20)
    assert sink.delivered == ["e1"]


async def test_where_order_is_kept_chunks_are_read_one_by_one_in_the_order_in_which_they_were_made() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(requests=1), SqliteStore(None)
    sink.limits = replace(sink.limits, ordered=True)
    names = [chunk_name(noon(1) + number) for number in range(8)]
    client.days = {day(1): list(reversed(names[:5])), day(0): list(reversed(names[5:]))}
    client.exports = {name: [wire(f"{place}-{n}") for n in range(3)] for place, name in enumerate(names)}
    client.breaks[names[2]] = ["UNAVAILABLE", "INTERNAL"]
    async with reading(client, sink, store, days=1, to_the_end=True) as running:
        await asyncio.wait_for(running, 20)
    assert sink.delivered == [f"{place}-{n}" for place in range(8) for n in range(3)]
    assert [name for name, _ in client.asked] == [*names[:2], *[names[2]] * 3, *names[3:]]


async def test_a_start_time_years_ago_costs_one_commit_for_all_empty_days_and_no_wait() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), WritesCounted(None)
    client.days[day(1)] = ["chunk"]
    client.exports["chunk"] = [wire("first")]
    before = store.writes
    async with reading(client, sink, store, days=5 * 365):
        await until(lambda: sink.delivered == ["first"])
        await until(lambda: store.note(FIRST_DAY), lambda found: found == day(3))
        assert store.writes - before <= 2
    assert client.listed.count(day(5 * 365)) == 1


async def test_days_that_are_done_are_remembered_also_when_the_listing_fails_on_the_way() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.breaks[day(20)] = ["UNAVAILABLE"]
    async with reading(client, sink, store, days=100) as running:
        with pytest.raises(ExceptionGroup):
            await running
    done = day_of(time()) - date.fromisoformat(await store.note(FIRST_DAY))
    assert timedelta(20) <= done < timedelta(20 + LISTINGS_AT_ONCE)


async def test_a_day_stays_open_until_each_of_its_chunks_is_read_and_delivered() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days = {day(6): ["whole", "slow"], day(5): ["next"]}
    client.exports = {"whole": [wire("w")], "slow": [wire("s1")], "next": [wire("n")]}
    client.stuck = {"slow"}
    async with reading(client, sink, store, days=6):
        await until(lambda: sorted(sink.delivered) == ["n", "s1", "w"])
        await until(lambda: client.listed.count(day(6)) > 2)
        assert await store.note(FIRST_DAY) == ""
    sink.hold, client.stuck = asyncio.Event(), set()
    client.exports["slow"].append(wire("s2"))
    async with reading(client, sink, store, days=6):
        asked = len(client.listed)
        await until(lambda: len(client.listed) > asked + 30)
        assert await store.note(FIRST_DAY) == ""
        sink.hold.set()
        await until(lambda: store.note(FIRST_DAY), lambda found: found == day(3))
        assert "s2" in sink.delivered
        assert await positions(store, "bulk/") == {}  # of days that are closed


async def test_days_are_closed_by_the_clusters_time_and_not_by_a_clock_that_is_ahead() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.newest = -10 * DAY
    client.days = {day(11): ["early"], day(10): ["today"]}
    client.exports = {"early": [wire("e")], "today": [wire("t")]}
    async with reading(client, sink, store, days=12):
        await until(lambda: sorted(sink.delivered) == ["e", "t"])
        await until(lambda: client.listed.count(day(11)) > 2)
        assert await store.note(FIRST_DAY) == ""
        client.days[day(11)].append("late")
        client.exports["late"] = [wire("l")]
        await until(lambda: "l" in sink.delivered)


@pytest.mark.parametrize("probe", [True, False])
async def test_a_clock_that_is_behind_by_days_hides_no_event(probe: bool) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.newest = 5 * DAY if probe else None  # a server that does not tell is followed day by day
    client.days = {day(-ahead): [f"c{ahead}"] for ahead in range(6)}
    client.exports = {f"c{ahead}": [wire(f"e{ahead}")] for ahead in range(6)}
    async with reading(client, sink, store):
        await until(lambda: sorted(sink.delivered) == [f"e{ahead}" for ahead in range(6)])


async def test_a_start_time_of_a_clock_that_is_ahead_begins_where_the_log_is() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.newest = -5 * DAY
    async with reading(client, sink, store):
        await until(lambda: day(5) in client.listed)
        client.days[day(4)] = ["next"]
        client.exports["next"] = [wire("n")]
        await until(lambda: sink.delivered == ["n"])


async def test_a_clock_that_is_set_while_reading_is_logged_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    client, sink, store, set_by = ScriptedClient(), ScriptedSink(), SqliteStore(None), [0.0]
    monkeypatch.setattr(export, "time", lambda: time() + set_by[0])
    client.days = {day(0): ["first"]}
    client.exports = {"first": [wire("f")], "second": [wire("s")], "late": [wire("l")]}
    with capture_logs() as lines:
        async with reading(client, sink, store, days=1):
            await until(lambda: sink.delivered == ["f"])
            for jump in (9 * DAY, -9 * DAY):
                set_by[0] = jump
                client.listed.clear()
                await until(lambda: len(client.listed) > 40)
            client.days = {day(0): ["first", "second"], day(1): ["late"]}
            await until(lambda: sorted(sink.delivered) == ["f", "l", "s"])
    assert [line["seconds"] for line in lines if "clock was set" in line["event"]] == [9 * DAY, -18 * DAY]


async def test_new_chunks_whose_events_are_hours_away_from_the_clock_are_told_once() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = []
    with capture_logs() as lines:
        async with reading(client, sink, store):
            await until(lambda: len(client.listed) > 2)
            for number in range(5):
                client.exports[f"c{number}"] = [wire_at(f"e{number}", time() + 7200.0)]
                client.days[day(0)].append(f"c{number}")
                await until(lambda: len(sink.delivered) == len(client.exports))
    told = [line for line in lines if "far from this machine's clock" in line["event"]]
    assert [line["hours"] for line in told] == [2.0]


async def test_days_that_the_go_plugin_had_finished_are_not_listed_again() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    await remember(store, FIRST_DAY, day(6))
    await remember(store, CLOSED_DAYS, f"{day(5)} {day(4)}")
    async with reading(client, sink, store):
        await until(lambda: store.note(FIRST_DAY), lambda found: found == day(3))
    assert set(client.listed) == {day(6), day(3), day(2), day(1), day(0), day(-1)}


async def test_a_chunk_that_gives_an_event_at_each_try_is_read_to_its_end_however_often_it_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hesitant(ScriptedClient):
        async def export(self, day: float, chunk: str, cursor: str) -> AsyncIterator[tuple[list[bytes], str]]:
            begin = int(cursor.partition(":")[2] or 0)
            self.asked.append((chunk, cursor))
            await asyncio.sleep(0)
            if begin < 2 * export.UNREADABLE_TRIES:
                yield [wire(str(begin))], f"a1:{begin + 1}"
                raise RpcError("ExportUnstructuredEvents", "INTERNAL", "scripted")

    waits: list[int] = []

    def counted(attempt: int, longest: float) -> float:
        waits.append(attempt)
        return 0.0

    monkeypatch.setattr(export, "backoff", counted)
    client, sink, store = Hesitant(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    async with reading(client, sink, store):
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert len(sink.delivered) == 2 * export.UNREADABLE_TRIES
    assert (client.searched, set(waits)) == ([], {1})


async def test_a_chunk_whose_cursor_is_refused_again_and_again_is_read_from_its_start() -> None:

    class Forgetful(ScriptedClient):
        async def export(self, day: float, chunk: str, cursor: str) -> AsyncIterator[tuple[list[bytes], str]]:
            self.asked.append((chunk, cursor))
            await asyncio.sleep(0)
            if cursor:
                raise RpcError("ExportUnstructuredEvents", "INVALID_ARGUMENT", "scripted: unsupported cursor format")
            yield [wire("a"), wire("b")], "a1:2"

    client, sink, store = Forgetful(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    await store.commit(Commit(places({f"bulk/{day(0)}/chunk": "b9:1"})))
    async with reading(client, sink, store):
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert client.asked == [("chunk", "b9:1")] * (export.REFUSED_CURSOR_TRIES + 1) + [("chunk", "")]
    assert sink.delivered == ["a", "b"]


async def test_a_chunk_that_is_listed_twice_at_a_time_is_read_once() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk", "chunk"]
    client.exports["chunk"] = [wire("e1")]
    async with reading(client, sink, store, to_the_end=True) as running:
        await asyncio.wait_for(running, 20)
    assert (sink.delivered, client.asked) == (["e1"], [("chunk", "")])


async def test_days_are_not_listed_again_and_again_while_what_they_have_is_read_to_the_end() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    client.exports["chunk"] = [wire("e1")]
    sink.hold = asyncio.Event()
    async with reading(client, sink, store, days=2, to_the_end=True, poll=20.0) as running:
        await until(lambda: sink.calls == 1)
        await asyncio.sleep(0.7)
        assert client.listed == [day(2), day(1), day(0), day(-1)]
        sink.hold.set()
        await asyncio.wait_for(running, 20)
    assert client.listed == [day(2), day(1), day(0), day(-1)] * 2


async def test_no_more_days_are_listed_ahead_than_can_be_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LISTED_AHEAD", 40)
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    for ago in range(60):
        names = client.days[day(ago)] = [f"{ago}-{number}" for number in range(10)]
        client.exports |= {name: [wire(name)] for name in names}
    sink.hold = asyncio.Event()
    async with reading(client, sink, store, days=59):
        await until(lambda: len(client.asked) >= 30)
        await asyncio.sleep(0.1)
        assert len(set(client.listed)) <= 40 / 10 + 2 * LISTINGS_AT_ONCE
        sink.hold.set()
        await until(lambda: len(sink.delivered) == 600)
        await until(lambda: store.note(FIRST_DAY), lambda found: found == day(3))


async def test_a_list_that_stands_still_ends_the_source_so_that_it_connects_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stall_detector, "QUIET", 0.05)
    monkeypatch.setattr(stall_detector, "MARGIN", 0.0)
    monkeypatch.setattr(stall_detector, "VISIBLE_AFTER", 0.0)
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    client.exports["chunk"] = [wire("before")]
    async with reading(client, sink, store) as running:
        await until(lambda: sink.delivered == ["before"])
        client.log = [wire_at("after", time())]
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.wait_for(running, 20)
    assert raised.group_contains(ConnectError, match="no new chunk")
