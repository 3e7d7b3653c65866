"""A state that cannot be read or written for a while stops the line and loses nothing."""

from __future__ import annotations

import asyncio

import pytest

from event_handler.errors import StateError
from event_handler.pipeline import engine
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import Commit
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import CHUNK, mark, positions
from tests.support.events import ids, wire
from tests.support.passing_time import in_passing_time
from tests.support.pipelines import pipeline
from tests.support.sinks import ScriptedSink


class AilingStore(SqliteStore):
    """In memory; commits fail while `ill`, and so do looks at the dead letters while `blind`."""

    def __init__(self) -> None:
        super().__init__(None)
        self.ill = False
        self.blind = False

    async def commit(self, group: Commit) -> None:
        _check(self.ill)
        await super().commit(group)

    async def dead_letter_totals(self) -> tuple[int, int]:
        _check(self.blind)
        return await super().dead_letter_totals()


def _check(fault: bool) -> None:
    if fault:
        raise StateError("scripted disk fault")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LOOK_FOR_ROOM_EVERY", 0.01)


@in_passing_time
async def test_a_refused_event_waits_for_the_state_and_the_line_goes_on_afterwards() -> None:
    sink, store = ScriptedSink(events=1, requests=1), AilingStore()
    sink.poison = {"e1"}
    async with asyncio.timeout(20), pipeline(sink, store) as line:
        store.ill = store.blind = True
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(4)]), mark("p"))
        await asyncio.sleep(0.05)
        store.ill = store.blind = False
        await line.drain_all()
    assert sorted(sink.delivered) == ["e0", "e2", "e3"]
    assert await store.dead_letters() == 1
    assert await positions(store) == {CHUNK: "p"}


async def test_undecodable_bytes_wait_for_the_state_and_hide_no_event() -> None:
    sink, store = ScriptedSink(), AilingStore()
    async with asyncio.timeout(20), pipeline(sink, store) as line:
        store.ill = store.blind = True
        putting = asyncio.create_task(line.put(CheckpointTracker(), raw_events([b"\xff\xff", wire("a")]), mark("p")))
        await asyncio.sleep(0.05)
        store.ill = store.blind = False
        await putting
        await line.drain_all()
    assert sink.delivered == ["a"]
    assert await store.dead_letters() == 1


async def test_what_cannot_be_remembered_stays_in_flight_until_it_can() -> None:
    sink, store = ScriptedSink(), AilingStore()
    async with asyncio.timeout(20), pipeline(sink, store, 3000) as line:
        store.ill = True
        putting = asyncio.create_task(
            line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(40)]), mark("p"))
        )
        await asyncio.sleep(0.1)
        assert not putting.done()
        store.ill = False
        await putting
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(40))
    assert await positions(store) == {CHUNK: "p"}


async def test_positions_and_recordings_of_all_streams_are_remembered_together_after_commits_that_failed() -> None:
    sink, store = ScriptedSink(), AilingStore()
    async with asyncio.timeout(20), pipeline(sink, store) as line:
        store.ill = True
        await line.put(CheckpointTracker(), raw_events([wire("a")]), None)
        await line.put(CheckpointTracker(), raw_events([wire("u", "session.upload", sid="s-1")]), mark("p"))
        while len(sink.delivered) < 2:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)  # commits fail
        assert await positions(store) == {}
        store.ill = False
        await line.drain_all()
        assert await positions(store, "") == {CHUNK: "p"}
        assert [item.session_id for item in await store.due_recordings(2e9, 5)] == ["s-1"]


@in_passing_time
async def test_a_letter_whose_commit_fails_is_kept_when_the_state_works_again() -> None:
    sink, store = ScriptedSink(events=1, requests=1), AilingStore()
    sink.poison = {"e0"}
    async with pipeline(sink, store) as line:
        store.ill = True
        await line.put(CheckpointTracker(), raw_events([wire("e0"), wire("e1")]), mark("p"))
        await asyncio.sleep(600)
        assert line.counters.dead == 1
        store.ill = False
        await line.drain_all()
    assert await store.dead_letters() == 1


@in_passing_time
async def test_a_refused_event_is_not_acknowledged_while_there_is_no_room_for_its_letter() -> None:
    sink, store = ScriptedSink(events=1, requests=1), AilingStore()
    sink.poison = {"e0"}
    store.blind = True
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("e0"), wire("e1")]), mark("p"))
        await asyncio.sleep(600)
        assert await positions(store) == {}
        store.blind = False
        await line.drain_all()
    assert await positions(store) == {CHUNK: "p"}


async def test_a_fault_of_our_own_code_ends_the_line_and_never_leaves_it_standing() -> None:
    class Faulty(AilingStore):
        faults = 1

        async def commit(self, group: Commit) -> None:
            if self.faults:
                self.faults -= 1
                raise MemoryError("scripted fault")
            await super().commit(group)

    async def delivering() -> None:
        async with asyncio.timeout(20), pipeline(ScriptedSink(), Faulty()) as line:
            await line.put(CheckpointTracker(), raw_events([wire("a")]), mark("p"))
            await line.drain_all()

    with pytest.raises(ExceptionGroup) as raised:
        await delivering()
    assert raised.group_contains(MemoryError)


async def test_an_error_of_whoever_uses_the_line_is_raised_as_it_is() -> None:
    with pytest.raises(StateError, match="scripted disk fault"):
        async with pipeline(ScriptedSink(), AilingStore()):
            _check(True)
