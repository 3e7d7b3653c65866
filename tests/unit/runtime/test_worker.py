"""A sink's line is opened again after a failure of any kind, loses nothing by that, and stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from event_handler.checkpoint import day_of
from event_handler.errors import ConfigurationError, ConnectError, StateError
from event_handler.pipeline.batch import Batcher
from event_handler.pipeline.committer import Committer
from event_handler.pipeline.dead_letters import DeadLetterRetry
from event_handler.pipeline.delivery import Delivery
from event_handler.ports import Commit, RecordingItem
from event_handler.runtime import supervise
from event_handler.runtime import worker as module
from event_handler.runtime.session import Follower
from event_handler.runtime.sinks import Filters, PlannedSink
from event_handler.runtime.worker import KeptWorker
from event_handler.sources.export import BulkSource
from event_handler.sources.recordings import RecordingSource
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.rpc.client import Client
from tests.support.events import wire
from tests.support.reports import report_of
from tests.support.required_metrics import OF_A_READING, OF_A_SINK, told_of
from tests.support.scripted_cluster import ScriptedClient, wire_at
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until
from tests.unit.runtime.test_session import SETTINGS

ALL = [f"e{number}" for number in range(40)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.001)


def a_cluster() -> ScriptedClient:
    """With one chunk of events and one recording."""
    client = ScriptedClient()
    client.days[day_of(time()).isoformat()] = ["chunk"]
    client.exports["chunk"] = [wire(uid) for uid in ALL]
    client.recordings["s1"] = [wire("r1")]
    return client


async def a_line(sink: ScriptedSink, client: Client, **changes: Any) -> KeptWorker:
    store = SqliteStore(None)
    await store.commit(Commit(recordings=[RecordingItem("s1", time(), True, 0, 0.0, 0)]))
    plan = PlannedSink(sink, Filters((), (), ()))
    return KeptWorker(plan, store, lambda: client, replace(SETTINGS, **changes), 1_000_000)


@asynccontextmanager
async def at_work(*lines: KeptWorker) -> AsyncIterator[list[asyncio.Task[None]]]:
    running = [asyncio.create_task(line.run()) for line in lines]
    try:
        yield running
    finally:
        for line, task in zip(lines, running, strict=True):
            line.stop(task, 5.0)
        await asyncio.gather(*running, return_exceptions=True)


# Everything that runs beside the reading of a line, by the method that is its body.
BACKGROUND = {
    "a deliverer": (Delivery, "_next"),
    "the closer of batches": (Batcher, "close_due"),
    "the committer": (Committer, "commit"),
    "the fetcher of recordings": (RecordingSource, "run"),
    "the source": (BulkSource, "run"),
    "the follower": (Follower, "run"),
}


@pytest.mark.parametrize(
    "failure", [AttributeError("a fault of ours"), KeyError("k"), StateError("the disk is full")], ids=repr
)
@pytest.mark.parametrize("name", BACKGROUND)
async def test_any_background_task_that_dies_is_told_and_the_line_loses_nothing(
    name: str, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, method = BACKGROUND[name]
    sane, failures = getattr(owner, method), [failure]

    def dies_once(*asked: Any) -> Any:
        if failures:
            raise failures.pop()
        return sane(*asked)

    monkeypatch.setattr(owner, method, dies_once)
    sink = ScriptedSink()
    with capture_logs() as lines:
        async with at_work(await a_line(sink, a_cluster())):
            await until(lambda: set(sink.delivered) == {*ALL, "r1"})
    assert any(str(failure) in line.get("error", "") for line in lines)


async def test_the_retry_of_dead_letters_that_dies_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sane, failures, runs = DeadLetterRetry.run, [AttributeError("a fault of ours")], [0]

    async def odd(*asked: Any) -> None:
        runs[0] += 1
        if failures:
            raise failures.pop()
        await sane(*asked)

    monkeypatch.setattr(DeadLetterRetry, "run", odd)
    with capture_logs() as lines:
        async with at_work(await a_line(ScriptedSink(), a_cluster())):
            await until(lambda: runs[0] == 2)
    assert [line["sink"] for line in lines if line["event"] == "retrying dead letters failed and is started again"] == [
        "scripted"
    ]


async def test_one_line_that_fails_for_ever_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = ScriptedSink(), ScriptedSink()
    sane = Delivery.run

    async def odd(self: Delivery, batcher: Batcher) -> None:
        if self.sink is bad:
            raise StateError("the disk is full")
        await sane(self, batcher)

    monkeypatch.setattr(Delivery, "run", odd)
    with capture_logs():
        async with at_work(await a_line(bad, a_cluster()), broken := await a_line(good, a_cluster())) as running:
            await until(lambda: set(good.delivered) == {*ALL, "r1"})
            assert not any(task.done() for task in running)
    assert bad.delivered == []
    assert (await broken.facts())["events"] == len(ALL)


async def test_a_line_that_fails_again_and_again_is_given_up_in_a_run_that_shall_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [0]

    async def odd(*_: Any) -> None:
        runs[0] += 1
        raise StateError("the disk is full")

    monkeypatch.setattr(Committer, "run", odd)
    line = await a_line(ScriptedSink(), a_cluster(), exit_on_last_event=True)
    with capture_logs(), pytest.raises(StateError):
        await asyncio.wait_for(line.run(), 20)
    assert runs[0] == 2 * module.MOST_FAILURES
    assert (await line.facts())["failing"] == "the disk is full"


@pytest.mark.parametrize("error", [ConfigurationError("another cluster"), ConnectError("not reached within 1 s")])
async def test_an_error_of_the_cluster_is_not_repeated(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def odd(_: Follower) -> None:
        raise error

    monkeypatch.setattr(Follower, "run", odd)
    with pytest.raises(type(error)):
        await asyncio.wait_for((await a_line(ScriptedSink(), a_cluster())).run(), 20)


async def test_a_line_is_stopped_when_what_is_in_flight_was_delivered_and_its_sink_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[bool] = []

    class Closing(ScriptedSink):
        async def close(self) -> None:
            closed.append(True)

    sink = Closing()
    sink.hold = asyncio.Event()
    line = await a_line(sink, a_cluster())
    running = asyncio.create_task(line.run())
    await until(lambda: sink.calls > 0)
    line.stop(running, 20.0)
    await asyncio.sleep(0)
    assert not running.done()
    sink.hold.set()
    await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), 20)
    assert running.cancelled()
    assert sink.delivered
    assert line.drained
    assert closed == [True]


async def test_a_sink_that_hangs_delays_the_end_by_the_time_given_only() -> None:
    sink = ScriptedSink()
    sink.hold = asyncio.Event()
    line = await a_line(sink, a_cluster())
    running = asyncio.create_task(line.run())
    await until(lambda: sink.calls > 0)
    line.stop(running, 0.05)
    await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), 20)
    assert not line.drained


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk export", "search"])
async def test_each_way_of_reading_tells_what_is_required(bulk: bool) -> None:
    client, sink = a_cluster(), ScriptedSink()
    client.bulk = bulk
    client.log = [wire_at(uid, time() - 60.0) for uid in ALL]
    line = await a_line(sink, client)
    async with at_work(line):
        await until(lambda: len(sink.delivered) >= len(ALL))
        await until(lambda: line.reading and line.reading.position and line.reading.position.caught_up)
        report = await line.report(time(), None)
        assert line.reading is not None
        told = told_of(replace(report_of(report), readings=(line.reading,)))
    names = {name for name, _ in told}
    assert names >= OF_A_READING | OF_A_SINK, (OF_A_READING | OF_A_SINK) - names
    assert told["reading_connected", ""] == told["reading_caught_up", ""] == told["reading_route", ""] == 1.0
    assert time() - told["reading_position_timestamp_seconds", ""] < 3600.0
    assert told["events_read_total", ""] >= told["events_delivered_total", ""] >= len(ALL)
