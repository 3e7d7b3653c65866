"""What the cluster refuses is told with the next step and waited for, and what it garbles is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from time import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from event_handler.errors import MalformedEventError
from event_handler.pipeline.duplicates import DuplicateWindow
from event_handler.pipeline.engine import LineLimits, Pipeline
from event_handler.pipeline.select import Selector
from event_handler.sources import follow
from event_handler.sources.bulk import day_of
from event_handler.sources.follow import Follower, FollowSettings
from event_handler.state.store import Store
from tests.unit.pipeline.test_engine import ScriptedSink, wire
from tests.unit.sources.scripted import ScriptedClient
from tests.unit.sources.test_recordings import until

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
)


@asynccontextmanager
async def following(client: ScriptedClient, sink: ScriptedSink) -> AsyncIterator[list[MutableMapping[str, Any]]]:
    store, selector, limits = Store(None), Selector("scripted", DuplicateWindow()), LineLimits(3, 1_000_000)
    with capture_logs() as lines:
        async with Pipeline(sink, store, selector, limits) as audit, Pipeline(sink, store, selector, limits) as recordings:
            running = asyncio.create_task(Follower(lambda: client, audit, recordings, store, SETTINGS).run())
            try:
                yield lines
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LONGEST_WAIT", 0.01)


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


async def test_a_wish_to_stop_that_comes_while_the_connection_is_being_lost_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
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
