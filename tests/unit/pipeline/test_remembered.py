"""Every event is delivered once, and a position is remembered only when all before it were answered for."""

from __future__ import annotations

import asyncio

from google.protobuf import json_format, struct_pb2

from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.messages import write_text, write_varint
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import CHUNK, mark, positions
from tests.support.events import ids, wire
from tests.support.pipelines import pipeline
from tests.support.sinks import ScriptedSink


async def test_every_event_is_delivered_once_and_the_last_position_is_remembered(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with pipeline(sink, store) as line:
        tracker = CheckpointTracker()
        for number in range(20):
            await line.put(tracker, raw_events([wire(uid) for uid in ids(7, f"{number}-")]), mark(f"a1:{number}"))
        await line.drain_all()
        assert tracker.drained
    assert sorted(sink.delivered) == sorted(uid for number in range(20) for uid in ids(7, f"{number}-"))
    assert await positions(store, "bulk/") == {CHUNK: "a1:19"}


async def test_nothing_is_remembered_before_the_sink_has_answered(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1)
    sink.hold = asyncio.Event()
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a"), wire("b")]), mark("a1:2"))
        await asyncio.sleep(0.05)
        assert await positions(store, "bulk/") == {}
        sink.hold.set()
        await line.drain_all()
        assert await positions(store, "bulk/") == {CHUNK: "a1:2"}


async def test_an_event_read_twice_is_sent_once(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with pipeline(sink, store) as line:
        assert await line.put(CheckpointTracker(), raw_events([wire("x"), wire("y")]), mark("1")) == 2
        assert await line.put(CheckpointTracker(), raw_events([wire("y"), wire("z")]), mark("2")) == 1
        await line.drain_all()
    assert sorted(sink.delivered) == ["x", "y", "z"]


async def test_after_a_restart_delivered_events_are_still_known(store: SqliteStore) -> None:
    first = ScriptedSink()
    async with pipeline(first, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("x")]), None)
        await line.drain_all()
    window = DuplicateWindow()
    window.load(await store.delivered_ids())
    second = ScriptedSink()
    async with Pipeline(second, store, Selector("scripted", window), PipelineLimits(3, 100_000)) as line:
        await line.put(CheckpointTracker(), raw_events([wire("x"), wire("y")]), mark("1"))
        await line.drain_all()
    assert second.delivered == ["y"]


async def test_events_without_uid_keep_one_id_over_reads(store: SqliteStore) -> None:
    content = struct_pb2.Struct()
    json_format.ParseDict({"event": "print"}, content)
    data = content.SerializeToString()
    sink = ScriptedSink()
    async with pipeline(sink, store) as line:
        for invented in ("random-1", "random-2"):
            read = write_text(1, "print") + write_text(2, invented) + b"\x2a" + write_varint(len(data)) + data
            await line.put(CheckpointTracker(), raw_events([read]), None)
        await line.drain_all()
    assert len(sink.delivered) == 1


async def test_skipped_types_are_not_delivered_but_move_the_position(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with pipeline(sink, store, skip_types=("noise",)) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a", "noise"), wire("b", "noise")]), mark("p"))
        await line.drain_all()
    assert sink.delivered == []
    assert await positions(store) == {CHUNK: "p"}
