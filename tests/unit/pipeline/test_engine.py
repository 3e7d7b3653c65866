"""The engine delivers everything once, remembers only what was answered for, and isolates what the sink refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic, time

import orjson
import pytest
from google.protobuf import json_format, struct_pb2

from event_handler.event import Event
from event_handler.pipeline import committer, concurrency, delivery, engine
from event_handler.pipeline.dead_letters import DeadLetterRetry
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import Delivered, Retry, Verdict
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire import decode
from event_handler.teleport.wire.beginning import Beginning
from event_handler.teleport.wire.messages import write_text, write_time, write_varint
from event_handler.teleport.wire.raw import raw_events, restored
from tests.support.checkpoints import CHUNK, mark, positions
from tests.support.events import ids, wire
from tests.support.passing_time import in_passing_time
from tests.support.pipelines import pipeline, stored
from tests.support.sinks import ScriptedSink


@pytest.fixture
def store() -> SqliteStore:
    return SqliteStore(None)


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


async def test_an_outage_is_waited_out_and_loses_nothing(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.001)
    sink = ScriptedSink()
    sink.failures = 5
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(30)]), mark("p"))
        await line.drain_all()
        assert line.retries == 5
    assert sorted(sink.delivered) == sorted(ids(30))


async def test_a_sink_that_raises_is_repeated_and_does_not_stop_the_line(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.001)
    sink = ScriptedSink()
    deliver, calls = sink.deliver, iter([True])

    async def raise_once(events: Sequence[Event]) -> Verdict:
        if next(calls, False):
            raise ZeroDivisionError("a fault of the sink")
        return await deliver(events)

    monkeypatch.setattr(sink, "deliver", raise_once)
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a")]), mark("p"))
        await line.drain_all()
    assert sink.delivered == ["a"]


async def test_a_sink_is_sent_few_requests_at_first_and_one_at_a_time_while_it_cannot_take_them(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.001)
    sink = ScriptedSink(events=1, requests=64)
    sink.hold = asyncio.Event()
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(100)]), mark("p"))
        await asyncio.sleep(0.05)
        assert sink.calls == concurrency.START
        sink.failures = 10**6
        sink.hold.set()
        async with asyncio.timeout(10):
            while line.requests_allowed > 1:
                await asyncio.sleep(0.01)
        sink.failures = 0
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(100))


async def test_batches_that_wait_for_the_receiver_are_sent_in_the_order_of_their_waiting(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "START", 1)
    sink = ScriptedSink(events=1, requests=5)
    sink.hold = asyncio.Event()
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(5)]), mark("p"))
        await asyncio.sleep(0.05)
        assert sink.calls == 1
        sink.hold.set()
        await line.drain_all()
    assert sink.delivered == ids(5)


async def test_a_bad_event_is_isolated_and_kept_and_the_stream_goes_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.001)
    sink = ScriptedSink(events=16)
    sink.poison = {"e5"}
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(32)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(set(ids(32)) - {"e5"})
    assert await store.dead_letters() == 1
    assert await positions(store) == {CHUNK: "p"}


async def test_of_a_partial_answer_only_the_rest_is_sent_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.001)
    sink = ScriptedSink(events=16, requests=1)
    sink.itemwise, sink.busy, sink.poison = True, {"e3": 2, "e9": 1}, {"e5"}
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(16)]), mark("p"))
        await line.drain_all()
        assert (line.counters.delivered, line.counters.dead, line.retries) == (15, 1, 2)
        assert line.failing == ""
    assert sorted(sink.delivered) == sorted(set(ids(16)) - {"e5"})
    assert sink.calls == 3
    assert await store.dead_letters() == 1
    assert await positions(store) == {CHUNK: "p"}


async def test_no_position_passes_what_a_partial_answer_left_out(store: SqliteStore) -> None:
    sink = ScriptedSink(events=4, requests=1)
    sink.itemwise, sink.busy = True, {"e1": 10**6}
    async with pipeline(sink, store) as line:
        tracker = CheckpointTracker()
        await line.put(tracker, raw_events([wire("e0")]), mark("first"))
        await line.put(tracker, raw_events([wire("e1"), wire("e2"), wire("e3")]), mark("second"))
        async with asyncio.timeout(10):
            while await positions(store) != {CHUNK: "first"}:
                await asyncio.sleep(0.01)
        assert line.counters.delivered == 3
        assert line.failing == "scripted congestion"
        assert not tracker.drained
    assert await positions(store) == {CHUNK: "first"}


async def test_answers_that_only_a_person_can_mend_use_up_no_room_for_requests(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.0001)
    sink, taking = ScriptedSink(events=1, requests=4), ScriptedSink.deliver
    refusals = iter(range(5 * concurrency.START))

    async def deliver(events: Sequence[Event]) -> Verdict:
        return await taking(sink, events) if next(refusals, None) is None else Retry("scripted 401", misconfigured=True)

    monkeypatch.setattr(delivery, "LONGEST_WAIT_MISCONFIGURED", 0.001)
    monkeypatch.setattr(sink, "deliver", deliver)
    async with asyncio.timeout(20), pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(10)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(10))


async def test_a_receiver_that_asks_for_a_pause_gets_it(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.0001)
    sink, asked = ScriptedSink(), []

    async def deliver(events: Sequence[Event]) -> Verdict:
        asked.append(monotonic())
        return Retry("scripted 429", after=0.3) if len(asked) == 1 else Delivered()

    monkeypatch.setattr(sink, "deliver", deliver)
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a")]), mark("p"))
        await line.drain_all()
    assert asked[1] - asked[0] >= 0.3


async def test_a_batch_that_is_too_large_is_halved_until_it_fits(store: SqliteStore) -> None:
    sink = ScriptedSink(events=16)
    sink.most = 3
    async with pipeline(sink, store) as line:
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(16)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(16))


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


async def test_reading_waits_while_too_many_bytes_are_in_flight(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    line = pipeline(sink, store, 2000)
    async with line:
        putting = asyncio.create_task(
            line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(20)]), mark("p"))
        )
        await asyncio.sleep(0.05)
        assert not putting.done()
        sink.hold.set()
        await putting
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(20))


async def test_a_large_event_is_not_overtaken_for_ever_by_small_ones_of_other_streams(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1)
    async with pipeline(sink, store, 20_000) as line:
        arrived = False

        async def small(stream: str) -> None:
            number = 0
            while not arrived:
                await line.put(
                    CheckpointTracker(),
                    raw_events([wire(f"{stream}-{number}-{part}") for part in range(10)]),
                    mark("p"),
                )
                number += 1

        others = [asyncio.create_task(small(stream)) for stream in ("a", "b", "c")]
        async with asyncio.timeout(30):
            while not sink.delivered:
                await asyncio.sleep(0.01)
            await line.put(CheckpointTracker(), raw_events([wire("large", text="x" * 15_000)]), mark("p"))
        arrived = True
        await asyncio.gather(*others)
        await line.drain_all()
    assert "large" in sink.delivered


async def test_a_cancelled_reader_does_not_hide_what_it_had_not_handed_on(store: SqliteStore) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    line = pipeline(sink, store, 2000)
    async with line:
        tracker = CheckpointTracker()
        putting = asyncio.create_task(line.put(tracker, raw_events([wire(uid) for uid in ids(20)]), mark("p")))
        await asyncio.sleep(0.02)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        assert not tracker.drained
        sink.hold.set()
        await line.drain(tracker)
        assert await positions(store) == {}
        await line.put(CheckpointTracker(), raw_events([wire(uid) for uid in ids(20)]), mark("p"))
        await line.drain_all()
    assert sorted(sink.delivered) == sorted(ids(20))
    assert await positions(store) == {CHUNK: "p"}


async def test_a_reader_that_was_cancelled_before_it_handed_anything_on_leaves_nothing_to_wait_for(
    store: SqliteStore,
) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    async with asyncio.timeout(20), pipeline(sink, store, 1000) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a")]), None)
        tracker = CheckpointTracker()
        putting = asyncio.create_task(line.put(tracker, raw_events([wire("b", text="x" * 500)]), mark("p")))
        await asyncio.sleep(0.02)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        await line.drain(tracker)
        sink.hold.set()
    assert await positions(store) == {}


async def test_who_comes_later_waits_behind_a_large_event_also_when_there_is_room_for_a_small_one(
    store: SqliteStore,
) -> None:
    sink = ScriptedSink(events=1, requests=1)
    sink.hold = asyncio.Event()
    async with asyncio.timeout(20), pipeline(sink, store, 5000) as line:
        await line.put(CheckpointTracker(), raw_events([wire("first")]), None)
        large = asyncio.create_task(line.put(CheckpointTracker(), raw_events([wire("large", text="x" * 3000)]), None))
        await asyncio.sleep(0.02)
        small = asyncio.create_task(line.put(CheckpointTracker(), raw_events([wire("small")]), None))
        await asyncio.sleep(0.05)
        assert not small.done()
        sink.hold.set()
        await asyncio.gather(large, small)
        await line.drain_all()
    assert sink.delivered == ["first", "large", "small"]


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
