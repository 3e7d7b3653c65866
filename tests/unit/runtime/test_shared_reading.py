"""One reading for several sinks: who is detached when, how it joins again, and what is remembered for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from time import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from event_handler.checkpoint import DONE, Chunk, Mode, Progress, Recording, day_of
from event_handler.errors import StateError
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.delivery import Delivery
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.ports import Commit, RecordingItem, StateStore
from event_handler.runtime import fan_out, merged_state, shared_reading, supervise, worker
from event_handler.runtime.fan_out import FanOut, Member
from event_handler.runtime.merged_state import MergedState
from event_handler.runtime.shared_reading import SharedReading
from event_handler.runtime.sinks import Filters, PlannedSink
from event_handler.runtime.worker import KeptWorker
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import places
from tests.support.events import wire
from tests.support.scripted_cluster import ScriptedClient, wire_at
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until
from tests.unit.runtime.test_session import SETTINGS

TODAY = str(day_of(time()))
ALL = [f"e{number}" for number in range(40)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(fan_out, "PATIENCE", 0.05)
    monkeypatch.setattr(worker, "FIRST_ALONE", 0.02)
    monkeypatch.setattr(worker, "BETWEEN", 0.01)
    monkeypatch.setattr(shared_reading, "OPENED_WITHIN", 5.0)


class Named(ScriptedSink):
    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(**options)
        self.name = name


def a_cluster() -> ScriptedClient:
    client = ScriptedClient()
    client.days[TODAY] = ["chunk"]
    client.exports["chunk"] = [wire(uid) for uid in ALL]
    return client


def more(client: ScriptedClient, name: str, count: int = 40) -> list[str]:
    """Another chunk appears; returns the ids of its events."""
    ids = [f"{name}-{number}" for number in range(count)]
    client.exports[name] = [wire(uid) for uid in ids]
    client.days[TODAY].append(name)
    return ids


@asynccontextmanager
async def shared(
    client: ScriptedClient,
    *sinks: Named,
    size: int = 1_000_000,
    stores: dict[str, SqliteStore] | None = None,
    **changes: Any,
) -> AsyncIterator[list[KeptWorker]]:
    """The sinks at work on one reading."""
    settings = replace(SETTINGS, **changes)
    reading = SharedReading(lambda: client, settings, len(sinks))
    workers = [
        KeptWorker(
            PlannedSink(sink, Filters((), (), ())),
            (stores or {}).get(sink.name) or SqliteStore(None),
            lambda: client,
            settings,
            size,
            reading,
        )
        for sink in sinks
    ]
    tasks = [asyncio.create_task(one.run()) for one in workers]
    tasks.append(asyncio.create_task(reading.run()))
    try:
        async with asyncio.timeout(20):
            yield workers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_chunk_is_asked_for_once() -> None:
    client, sinks = a_cluster(), [Named(name) for name in "abc"]
    async with shared(client, *sinks):
        await until(lambda: all(set(sink.delivered) == set(ALL) for sink in sinks))
        new = more(client, "next")
        await until(lambda: all(set(sink.delivered) == {*ALL, *new} for sink in sinks))
    assert [name for name, _ in client.asked] == ["chunk", "next"]
    assert client.pinged == 1


async def test_a_run_to_the_last_event_ends_when_all_have_everything() -> None:
    client, sinks = a_cluster(), [Named(name) for name in "abc"]
    client.recordings["s1"] = [wire("r1")]
    stores = {name: SqliteStore(None) for name in "abc"}
    for store in stores.values():
        await store.commit(Commit(recordings=[RecordingItem("s1", time(), True, 0, 0.0, 0)]))
    async with shared(client, *sinks, stores=stores, exit_on_last_event=True) as workers:
        await until(lambda: all(worker.audit.delivered == len(ALL) for worker in workers))
        await until(lambda: all(worker.recordings.delivered == 1 for worker in workers))
    assert len([name for name, _ in client.asked if name == "s1"]) <= 2  # two looks, for its end is not in it
    assert all(sorted(sink.delivered) == sorted([*ALL, "r1"]) for sink in sinks)


async def test_one_that_takes_nothing_is_detached_catches_up_and_shares_again() -> None:
    client, good, bad = a_cluster(), Named("good", events=1), Named("bad", events=1)
    bad.hold = asyncio.Event()
    with capture_logs() as lines:
        async with shared(client, good, bad, size=4_000) as (_, behind):
            await until(lambda: set(good.delivered) == set(ALL))
            new = more(client, "next")
            await until(lambda: set(good.delivered) == {*ALL, *new})
            assert not bad.delivered
            bad.hold.set()
            await until(lambda: set(bad.delivered) == {*ALL, *new})
            await until(behind.facts, lambda facts: facts["reading"] == "shared")
            last = more(client, "last")
            await until(lambda: set(bad.delivered) == set(good.delivered) == {*ALL, *new, *last})
    told = [line["event"] for line in lines if line.get("sink") == "bad"]
    assert any("reading of its own" in event for event in told)
    assert any("shares their reading" in event for event in told)
    assert [name for name, _ in client.asked].count("last") == 1
    assert len(good.delivered) == len(set(good.delivered))
    assert len(bad.delivered) == len(set(bad.delivered))


async def test_where_all_are_slow_nobody_is_detached() -> None:
    client, sinks = a_cluster(), [Named("a", events=1), Named("b", events=1)]
    for sink in sinks:
        sink.hold = asyncio.Event()
    with capture_logs() as lines:
        async with shared(client, *sinks, size=4_000):
            await until(lambda: all(sink.calls for sink in sinks))
            await asyncio.sleep(0.2)
            for sink in sinks:
                assert sink.hold is not None
                sink.hold.set()
            await until(lambda: all(set(sink.delivered) == set(ALL) for sink in sinks))
    assert not [line for line in lines if "reading of its own" in line["event"]]


async def test_a_fault_in_one_sinks_pipeline_stops_no_other_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    client, good, bad, sane = a_cluster(), Named("good"), Named("bad"), Delivery.run
    faults = 3

    async def odd(self: Delivery, batcher: Any) -> None:
        nonlocal faults
        if self.sink is bad and faults:
            faults -= 1
            raise LookupError("scripted fault")
        await sane(self, batcher)

    monkeypatch.setattr(Delivery, "run", odd)
    with capture_logs():
        async with shared(client, good, bad):
            await until(lambda: set(good.delivered) == set(bad.delivered) == set(ALL))
    assert len(good.delivered) == len(ALL)


async def test_a_new_sink_beside_an_old_one_reads_the_past_for_itself_first() -> None:
    client, old, new = a_cluster(), Named("old"), Named("new")
    done = SqliteStore(None)
    today = day_of(time())
    progress = Progress(Mode.BULK, first_day=today, chunks={Chunk(today, "chunk"): DONE})
    await done.commit(Commit(start=1.0, progress=progress))
    async with shared(client, old, new, stores={"old": done}) as (_, second):
        await until(lambda: set(new.delivered) == set(ALL))
        await until(second.facts, lambda facts: facts["reading"] == "shared")
        last = more(client, "last")
        await until(lambda: set(last) <= set(new.delivered) and set(last) == set(old.delivered))
    assert [name for name, _ in client.asked].count("last") == 1


class Group:
    """Members with pipelines that are open, and their fan-out."""

    def __init__(self, fan: FanOut, members: dict[str, Member], sinks: dict[str, Named]) -> None:
        self.fan = fan
        self.members = members
        self.sinks = sinks
        self.state = MergedState(fan)

    def store(self, name: str) -> StateStore:
        return self.members[name].store

    async def have(self, **progress: Progress) -> None:
        """How far each of them is, at the beginning of a reading."""
        for name, one in progress.items():
            await self.store(name).commit(Commit(progress=one))
        await self.state.progress()


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    members, sinks = {}, {name: Named(name) for name in "ab"}
    async with Opened(sinks["a"], ()) as a, Opened(sinks["b"], ("user.login",)) as b:
        members = {"a": a, "b": b}
        yield Group(FanOut(list(members.values())), members, sinks)


class Opened:
    def __init__(self, sink: Named, skip: tuple[str, ...]) -> None:
        self._store = SqliteStore(None)
        selector = Selector(sink.name, DuplicateWindow(), skip_types=skip)
        self._pipeline = Pipeline(sink, self._store, selector, PipelineLimits(3, 1_000_000))
        self._name = sink.name

    async def __aenter__(self) -> Member:
        await self._pipeline.__aenter__()
        return Member(self._name, self._store, self._pipeline, self._pipeline, 1_000_000.0, (), lambda _: None)

    async def __aexit__(self, *_: object) -> None:
        await self._pipeline.__aexit__()


async def test_what_is_new_does_not_depend_on_filters(group: Group) -> None:
    branch = group.fan.audit
    group.members["a"].detach()  # then there is only one that wants none of them
    stream = await branch.track()
    assert await branch.put(stream, raw_events([wire("x"), wire("y")]), None) == 2
    assert await branch.put(stream, raw_events([wire("y"), wire("z")]), None) == 1
    await branch.drain(stream)
    assert group.sinks["b"].delivered == []


ONE = Chunk(date(2026, 3, 5), "one")


async def test_who_has_had_all_of_a_chunk_gets_no_more_of_it(group: Group) -> None:
    await group.have(a=Progress(Mode.BULK, chunks={ONE: DONE}), b=Progress(Mode.BULK))
    assert await group.state.take(ONE) == ""
    stream = await group.fan.audit.track(ONE)
    assert [member.name for member in stream.trackers] == ["b"]


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ({ONE: DONE}, {ONE: DONE}, {ONE: DONE}),
        ({ONE: DONE}, {}, {ONE: ""}),
        ({ONE: "a1:5"}, {ONE: "a1:5"}, {ONE: "a1:5"}),
        ({ONE: "a1:5"}, {ONE: "a1:9"}, {ONE: ""}),
        ({ONE: DONE}, {ONE: "a1:9"}, {ONE: "a1:9"}),
    ],
)
def test_a_chunk_goes_on_where_all_have_come_to(
    first: dict[Chunk, str], second: dict[Chunk, str], both: dict[Chunk, str]
) -> None:
    members = [Progress(Mode.BULK, chunks=chunks) for chunks in (first, second)]
    assert merged_state.merged(members).chunks == both


async def test_days_that_one_has_closed_are_read_for_the_other_only(group: Group) -> None:
    third, fourth, fifth = (date(2026, 3, day) for day in (3, 4, 5))
    await group.have(
        a=Progress(Mode.BULK, first_day=fifth),
        b=Progress(Mode.BULK, first_day=third, closed_days=frozenset({fourth})),
    )
    together = await group.state.progress()
    assert (together.first_day, together.closed_days) == (third, frozenset())
    assert await group.state.take(Chunk(third, "x")) == ""
    stream = await group.fan.audit.track(Chunk(third, "x"))
    assert [member.name for member in stream.trackers] == ["b"]
    await group.state.close_days(fourth)
    assert [(await group.store(name).progress()).first_day for name in "ab"] == [fifth, fourth]


async def test_a_new_member_never_gets_days_before_its_start(group: Group) -> None:
    await group.store("a").close_days(date(1970, 1, 5))
    await group.state.agree_on_days()
    assert (await group.store("b").progress()).first_day == date(1970, 1, 12)


async def test_a_search_goes_on_where_the_last_one_is(group: Group) -> None:
    assert (await group.state.progress()).searched is None
    await group.store("a").commit(Commit(places({"search": "900.5"})))
    assert (await group.state.progress()).searched is None
    await group.store("b").commit(Commit(places({"search": "1000.0"})))
    assert (await group.state.progress()).searched == 900.5


async def pending(store: StateStore, **changes: Any) -> None:
    await store.commit(Commit(recordings=[replace(RecordingItem("s1", 5.0, True, 0, 0.0, 0), **changes)]))


async def test_a_recording_waits_until_all_know_of_it_but_not_for_ever(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pending(group.store("a"))
    assert await group.state.due_recordings(10.0, 10) == []
    await pending(group.store("b"), announced=4.0, next_index=7)
    (item,) = await group.state.due_recordings(10.0, 10)
    assert (item.announced, item.next_index) == (4.0, 0)
    await group.state.recording_done("s1")
    assert await group.state.due_recordings(10.0, 10) == []
    await group.store("a").commit(Commit(recordings=[RecordingItem("s2", 5.0, True, 0, 0.0, 0)]))
    monkeypatch.setattr(merged_state, "ANNOUNCED_TO_ALL", 0.0)
    assert [item.session_id for item in await group.state.due_recordings(10.0, 10)] == ["s2"]
    stream = await group.fan.recordings.track(Recording("s2"))
    assert [member.name for member in stream.trackers] == ["a"]


async def test_a_state_that_fails_detaches_its_sink_and_the_last_one_says_why(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing() -> Progress:
        raise StateError("the disk is full")

    monkeypatch.setattr(group.store("b"), "progress", failing)
    with capture_logs() as lines:
        assert (await group.state.progress()).searched is None
    assert [(line["sink"], line["reason"]) for line in lines] == [("b", "the disk is full")]
    assert [member.name for member in group.fan.members] == ["a"]
    monkeypatch.setattr(group.store("a"), "progress", failing)
    with pytest.raises(StateError, match="the disk is full"):
        await group.state.progress()


async def test_a_state_that_does_not_answer_holds_up_no_other_sink(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hanging() -> Progress:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(group.store("b"), "progress", hanging)
    with capture_logs() as lines:
        await group.state.progress()
    assert [(line["sink"], line["reason"]) for line in lines] == [("b", "its state does not answer")]


async def test_by_search_one_that_is_far_behind_does_not_hold_up_the_others_start() -> None:
    client, ahead, behind = ScriptedClient(), Named("ahead"), Named("behind")
    client.bulk = False
    now = time()
    client.log = [wire_at(f"e{number}", now - 7200.0 + number) for number in range(40)]
    stores = {}
    for name, seconds in (("ahead", 7161.0), ("behind", 12_000.0)):
        stores[name] = SqliteStore(None)
        await stores[name].commit(Commit(start=1.0, progress=Progress(Mode.SEARCH, searched=now - seconds)))
    with capture_logs() as lines:
        async with shared(client, ahead, behind, stores=stores) as (_, second):
            await until(lambda: set(behind.delivered) == set(ALL))
            await until(second.facts, lambda facts: facts["reading"] == "shared")
            client.log.append(wire_at("new", time()))
            await until(lambda: "new" in ahead.delivered and "new" in behind.delivered)
    assert "behind" in {line.get("sink") for line in lines if "behind the others" in line["event"]}
