"""What the cluster refuses is told with the next step and waited for, and what it garbles is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from event_handler.checkpoint import day_of
from event_handler.errors import (
    ConfigurationError,
    ConnectError,
    CredentialsError,
    MalformedEventError,
    RpcError,
    StateError,
)
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.ports import Commit, RecordingItem
from event_handler.runtime import session, supervise
from event_handler.runtime.fan_out import FanOut, Member
from event_handler.runtime.session import Follower, FollowSettings
from event_handler.sources.recordings import RecordingPace, RecordingSource
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.rpc.client import Client
from tests.support.events import wire
from tests.support.scripted_cluster import ScriptedClient
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until
from tests.unit.teleport.rpc.odd_server import CLUSTER, Answer, OddServer, odd_server, sane
from tests.unit.teleport.rpc.test_odd_answers import BROKEN, GREETINGS

SETTINGS = FollowSettings(
    cluster="scripted.test",
    start=time() - 3600.0,
    window=86_400.0,
    page=0,
    types=(),
    look_back=300.0,
    search_poll=0.01,
    bulk_poll=0.01,
    late_days=3,
    concurrency=5,
    missing_ttl=3600.0,
    recordings=True,
    startup_timeout=0.0,
    exit_on_last_event=False,
    recording_pace=RecordingPace(waits=(0.02,)),
    longest_wait=0.01,
)


@asynccontextmanager
async def follower_of(
    connect: Callable[[], Client], sink: ScriptedSink, store: SqliteStore | None = None, **changes: Any
) -> AsyncIterator[Follower]:
    store, selector, limits = (
        store or SqliteStore(None),
        Selector("scripted", DuplicateWindow()),
        PipelineLimits(3, 1_000_000),
    )
    async with Pipeline(sink, store, selector, limits) as audit, Pipeline(sink, store, selector, limits) as recordings:
        made = replace(SETTINGS, **changes)
        member = Member("scripted", store, audit, recordings, made.start, made.types, lambda _: None)
        yield Follower(connect, FanOut([member]), made)


@asynccontextmanager
async def following(
    client: Client, sink: ScriptedSink, store: SqliteStore | None = None, **changes: Any
) -> AsyncIterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as lines:
        async with follower_of(lambda: client, sink, store, **changes) as follower:
            running = asyncio.create_task(follower.run())
            try:
                yield lines
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.001)


async def test_a_role_that_may_not_read_the_log_is_an_error_that_names_the_rule_and_goes_on_when_it_may() -> None:
    client, sink = ScriptedClient(), ScriptedSink()
    client.days[day_of(time()).isoformat()] = ["chunk"]
    client.exports["chunk"] = [wire("e1")]
    client.breaks["ping"] = ["PERMISSION_DENIED"] * 3
    async with following(client, sink) as lines:
        await until(lambda: sink.delivered == ["e1"])
    told = [line for line in lines if line["event"] == "cannot read now, will try again"]
    assert [line["log_level"] for line in told] == ["error"]
    assert "resources [event, session], verbs [list, read]" in told[0]["next_step"]


async def test_an_answer_that_is_no_message_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client, sink = ScriptedClient(), ScriptedSink()
    client.days[day_of(time()).isoformat()] = ["chunk"]
    client.exports["chunk"] = [wire("e1")]
    faults = [MalformedEventError("scripted garbage")]

    async def garbled(_: float) -> bool:
        if faults:
            raise faults.pop()
        return True

    monkeypatch.setattr(client, "has_bulk_export", garbled)
    async with following(client, sink) as lines:
        await until(lambda: sink.delivered == ["e1"])
    assert any("scripted garbage" in line.get("error", "") for line in lines)


async def test_a_wish_to_stop_that_comes_while_the_connection_is_being_lost_is_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing = asyncio.Event()

    class Slow(ScriptedClient):
        """A stream of it takes a moment to close."""

        async def export(self, day: float, chunk: str, cursor: str) -> AsyncIterator[tuple[list[bytes], str]]:
            yield [wire("e1")], "a1:1"
            try:
                await asyncio.Event().wait()
            finally:
                closing.set()
                await asyncio.sleep(0.05)

    client, sink = Slow(), ScriptedSink()
    today = day_of(time()).isoformat()
    client.days[today] = ["chunk"]
    async with asyncio.timeout(20), following(client, sink):
        await until(lambda: sink.delivered == ["e1"])
        client.breaks[today] = ["UNAVAILABLE"]
        await closing.wait()


@pytest.mark.parametrize(
    "failure",
    [
        AttributeError("a fault of ours"),
        KeyError("k"),
        AssertionError(),
        NotImplementedError("Compression not implemented"),
        RecursionError(),
        OSError(5, "Input/output error"),
        ExceptionGroup("group", [ExceptionGroup("inner", [ValueError("v")])]),
        StateError("the disk is full"),
        CredentialsError("expired"),
        ConnectError("lost"),
        RpcError("Ping", "UNKNOWN", "odd"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("where", ["ping", "has_bulk_export", "chunks"])
async def test_no_error_of_any_kind_ends_the_reading_and_each_is_told(
    failure: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, sink = ScriptedClient(), ScriptedSink()
    client.days[day_of(time()).isoformat()] = ["chunk"]
    client.exports["chunk"] = [wire("e1")]
    sane, failures = getattr(client, where), [failure] * 3

    def odd(*asked: Any) -> Any:
        if failures:
            raise failures.pop()
        return sane(*asked)

    monkeypatch.setattr(client, where, odd)
    async with following(client, sink) as lines:
        await until(lambda: sink.delivered == ["e1"])
    assert failures == []
    told = [line for line in lines if line["event"].endswith("will try again")]
    assert len(told) == 1
    assert "next_step" not in told[0] or told[0]["next_step"]


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (ConnectError("refused", "Renew it.", conclusive=True), "error"),
        (CredentialsError("expired", "Renew it."), "error"),
        (ConnectError("away", "Wait."), "warning"),
    ],
    ids=repr,
)
async def test_an_error_that_a_person_must_repair_is_told_as_an_error_and_others_as_a_warning(
    failure: ConnectError | CredentialsError, level: str
) -> None:
    def connect() -> Client:
        raise failure

    with capture_logs() as lines:
        async with follower_of(connect, ScriptedSink()) as follower:
            running = asyncio.create_task(follower.run())
            await until(lambda: bool(lines))
            running.cancel()
    assert [(line["log_level"], line["error"], line["next_step"]) for line in lines] == [
        (level, failure.message, failure.hint)
    ]


async def test_what_fails_again_and_again_by_our_own_fault_ends_a_run_that_shall_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def odd(_: float) -> bool:
        raise AttributeError("a fault of ours")

    client = ScriptedClient()
    monkeypatch.setattr(client, "has_bulk_export", odd)
    with capture_logs():
        async with follower_of(lambda: client, ScriptedSink(), exit_on_last_event=True) as follower:
            with pytest.raises(AttributeError):
                await asyncio.wait_for(follower.run(), 20)
    assert client.pinged == session.MOST_FAULTS


async def test_another_cluster_than_that_of_the_state_is_refused_at_the_start_only() -> None:
    client, sink = ScriptedClient(), ScriptedSink()
    async with follower_of(lambda: client, sink, cluster="other.test") as follower:
        with pytest.raises(ConfigurationError, match=r"this is the cluster scripted\.test"):
            await asyncio.wait_for(follower.run(), 20)


async def test_fetching_recordings_that_fails_is_begun_again_and_the_audit_log_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    await store.commit(Commit(recordings=[RecordingItem("s1", time(), True, 0, 0.0, 0)]))
    client.recordings["s1"] = [wire("r1")]
    sane, failures = RecordingSource.run, [AttributeError("a fault of ours"), StateError("the disk is full")]

    async def odd(self: RecordingSource, client: Client) -> None:
        if failures:
            raise failures.pop()
        await sane(self, client)

    monkeypatch.setattr(RecordingSource, "run", odd)
    async with following(client, sink, store) as lines:
        await until(lambda: sink.delivered == ["r1"])
    assert [line["event"] for line in lines].count("fetching recordings failed and is started again") == 2
    assert [line["event"] for line in lines].count("connected to Teleport") == 1


@asynccontextmanager
async def tried_in_vain(tmp_path: Path, answer: Answer, greeting: Answer | None = None) -> AsyncIterator[OddServer]:
    """A follower of a server that is odd, until the body makes it sane."""
    async with odd_server(tmp_path) as (odd, connection):
        odd.answer, odd.greeting = answer, (lambda peer: greeting(peer, 0)) if greeting else None
        with capture_logs() as lines:
            async with follower_of(lambda: Client(connection), ScriptedSink(), cluster=CLUSTER) as follower:
                running = asyncio.create_task(follower.run())
                await until(lambda: any(line["event"] == "cannot read now, will try again" for line in lines))
                yield odd
                await until(lambda: any(line["event"] == "connected to Teleport" for line in lines))
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    "name", ["compressed", "cut off in the message", "no status", "farewell", "garbage", "headers only, no status"]
)
async def test_a_server_that_answers_oddly_is_read_when_it_is_sane_again(tmp_path: Path, name: str) -> None:
    async with tried_in_vain(tmp_path, BROKEN[name]) as odd:
        odd.answer = sane


@pytest.mark.parametrize("name", ["farewell", "farewell after the settings", "the end", "another protocol"])
async def test_a_server_that_ends_each_connection_at_once_is_read_when_it_is_sane_again(
    tmp_path: Path, name: str
) -> None:
    async with tried_in_vain(tmp_path, sane, GREETINGS[name]) as odd:
        odd.greeting = None
