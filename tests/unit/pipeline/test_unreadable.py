"""What is no event, or too large a one, becomes a dead letter and hides no other event."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from event_handler.pipeline import engine
from event_handler.pipeline.dead_letters import DeadLetterRetry
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire import decode
from event_handler.teleport.wire.beginning import Beginning
from event_handler.teleport.wire.messages import write_text
from event_handler.teleport.wire.raw import raw_events, restored
from tests.support.checkpoints import CHUNK, mark, positions
from tests.support.events import ids, wire
from tests.support.passing_time import in_passing_time
from tests.support.pipelines import pipeline, stored
from tests.support.sinks import ScriptedSink


async def test_bytes_that_are_no_event_become_a_dead_letter(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with pipeline(sink, store) as line:
        for _ in range(3):  # the tail of a search reads the same events again and again
            await line.put(CheckpointTracker(), raw_events([b"\xff\xff", wire("good"), b"\x2a\x02\x0a\x7f"]), mark("p"))
        await line.drain_all()
    assert sink.delivered == ["good"]
    assert await store.dead_letters() == 2
    assert await positions(store) == {CHUNK: "p"}


async def test_bytes_that_are_no_event_are_kept_once_also_when_they_are_read_again_after_a_restart(
    store: SqliteStore,
) -> None:
    for _ in range(2):
        window = DuplicateWindow()
        window.load(await store.delivered_ids())
        async with Pipeline(ScriptedSink(), store, Selector("scripted", window), PipelineLimits(3, 100_000)) as line:
            await line.put(CheckpointTracker(), raw_events([b"\xff\xff", wire("a")]), None)
            await line.drain_all()
    assert await store.dead_letters() == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x2a\x00", b"\x2a\x02\x10\x01"], ids=["none", "empty", "no field that is known"]
)
async def test_an_event_without_content_is_a_dead_letter_and_never_delivered_as_an_empty_object(
    store: SqliteStore, content: bytes
) -> None:
    sink = ScriptedSink()
    head = write_text(1, "user.login") + write_text(2, "uid-1")
    async with pipeline(sink, store) as line:
        tracker = CheckpointTracker()
        for _ in range(2):
            await line.put(tracker, raw_events([head + content, wire("e1")]), mark("a1:2"))
        await line.drain_all()
    assert sink.delivered == ["e1"]
    assert await store.dead_letters() == 1


async def test_an_event_that_our_own_code_cannot_read_becomes_a_dead_letter_and_the_others_pass(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = ScriptedSink()
    convert = decode.convert

    def confused(content: bytes) -> tuple[bytes, str]:
        if b"odd" in content:
            raise LookupError("scripted fault")
        return convert(content)

    monkeypatch.setattr(decode, "convert", confused)
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a"), wire("b", "odd"), wire("c")]), mark("p"))
        await line.drain_all()
    assert sink.delivered == ["a", "c"]
    assert await positions(store) == {CHUNK: "p"}
    assert await store.dead_letters() == 1


@in_passing_time
async def test_when_there_is_no_room_for_dead_letters_reading_stops_and_goes_on_when_there_is(
    store: SqliteStore,
) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.poison = {"e1", "e3"}
    async with pipeline(sink, store, letters=60) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(5)]), mark("p"))
        draining = asyncio.create_task(line.drain_all())
        await asyncio.sleep(600)
        assert await store.dead_letters() == 1
        assert await positions(store) == {}
        assert not draining.done()
        await store.dead_letter_delivered(1)
        await draining
    assert sink.delivered == ["e0", "e2", "e4"]
    assert await positions(store) == {CHUNK: "p"}


async def test_undecodable_bytes_wait_for_room_too_and_a_reader_cancelled_then_reads_them_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOOK_FOR_ROOM_EVERY", 0.01)
    async with pipeline(ScriptedSink(), store, letters=50) as line:
        putting = asyncio.create_task(
            line.put(CheckpointTracker(), raw_events([b"\xff\xff" * 9, b"\xfe\xff" * 9]), mark("p"))
        )
        await asyncio.sleep(0.05)
        assert await store.dead_letters() == 1
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        await store.dead_letter_delivered(1)
        await line.put(CheckpointTracker(), raw_events([b"\xff\xff" * 9, b"\xfe\xff" * 9]), mark("p"))
        await line.drain_all()
    assert [letter.body for letter in await stored(store)] == [b'{"undecodable":"/v/+//7//v/+//7//v/+//7/"}']


@pytest.mark.parametrize("types", [(), ("user.login",), ("T1000I",)])
async def test_of_an_event_that_is_too_large_the_beginning_is_kept_and_stays_kept(
    store: SqliteStore, types: tuple[str, ...]
) -> None:
    whole = wire("large", session="x" * 10_000)
    large, sink = Beginning.of(whole[:100], len(whole)), ScriptedSink()
    async with pipeline(sink, store, types=types) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a"), large, wire("b"), large]), mark("p"))
        await line.drain_all()
    (letter,) = await stored(store)
    assert (letter.type, letter.id) == ("user.login", "large")
    assert f"{len(whole)} bytes is too large" in letter.reason
    assert await positions(store) == {CHUNK: "p"}
    end = asyncio.Event()
    end.set()
    await DeadLetterRetry(sink, store, restored, lambda _: None).run(end)
    assert [kept.reason for kept in await stored(store)] == [letter.reason]
    assert "large" not in sink.delivered


async def test_an_event_that_is_too_large_and_not_wanted_is_no_dead_letter(store: SqliteStore) -> None:
    large = Beginning.of(wire("large")[:60], 99_000_000)
    async with pipeline(ScriptedSink(), store, types=("session.start",)) as line:
        await line.put(CheckpointTracker(), raw_events([large]), mark("p"))
        await line.drain_all()
    assert await stored(store) == []


def test_bodies_are_what_the_struct_says() -> None:
    chosen = Selector("s", DuplicateWindow()).select(raw_events([wire("a", user="alice")]))
    assert orjson.loads(chosen.events[0][0].body) == {"uid": "a", "event": "user.login", "ei": 0, "user": "alice"}
