"""A recording is queued by the event that announces it, whatever the filters."""

from __future__ import annotations

from time import time

import pytest

from event_handler.pipeline import committer
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.messages import write_time
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import mark
from tests.support.events import wire
from tests.support.pipelines import pipeline
from tests.support.sinks import ScriptedSink


async def test_an_announced_recording_is_queued_even_when_its_event_is_filtered(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with pipeline(sink, store, types=("user.login",)) as line:
        await line.put(CheckpointTracker(), raw_events([wire("u", "session.upload", sid="s-1")]), mark("p"))
        await line.drain_all()
    assert [item.session_id for item in await store.due_recordings(2e9, 5)] == ["s-1"]


async def test_the_end_of_a_session_on_a_server_whose_clock_is_a_day_ahead_waits_no_longer_than_any_other(
    store: SqliteStore,
) -> None:
    async with pipeline(ScriptedSink(), store) as line:
        await line.put(
            CheckpointTracker(),
            raw_events([write_time(3, time() + 86_400) + wire("u", "session.end", sid="s-1")]),
            mark("p"),
        )
        await line.drain_all()
    assert [item.session_id for item in await store.due_recordings(time() + 31, 5)] == ["s-1"]


async def test_a_session_that_ended_tomorrow_by_its_own_clock_is_asked_for_as_soon_as_any_other(
    store: SqliteStore,
) -> None:
    async with pipeline(ScriptedSink(), store) as line:
        tomorrow = write_time(3, time() + 86_400.0)
        await line.put(CheckpointTracker(), raw_events([tomorrow + wire("u", "session.end", sid="s-1")]), mark("p"))
        await line.drain_all()
    (item,) = await store.due_recordings(time() + committer.END_GRACE, 5)
    assert item.announced <= time()


@pytest.mark.parametrize("sid", ["", "../../etc", "a/b", 7, "x" * 65])
async def test_a_recording_that_cannot_be_asked_for_is_kept_as_a_dead_letter(store: SqliteStore, sid: object) -> None:
    sink = ScriptedSink()
    async with pipeline(sink, store) as line:
        for _ in range(2):
            await line.put(CheckpointTracker(), raw_events([wire("u", "session.upload", sid=sid)]), mark("p"))
        await line.drain_all()
    assert sink.delivered == ["u"]
    assert await store.waiting_recordings() == (0, 0)
    assert await store.dead_letters() == 1


async def test_an_upload_is_asked_for_at_once_and_the_end_of_a_session_waits_for_it_a_while(store: SqliteStore) -> None:
    async with pipeline(ScriptedSink(), store) as line:
        events = [
            wire("u", "session.upload", sid="uploaded"),
            write_time(3, time()) + wire("e", "session.end", sid="ended"),
        ]
        await line.put(CheckpointTracker(), raw_events(events), mark("p"))
        await line.drain_all()
    assert [item.session_id for item in await store.due_recordings(time() + committer.END_GRACE - 5.0, 5)] == [
        "uploaded"
    ]
