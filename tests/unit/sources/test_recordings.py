"""A recording is asked for until it has been delivered whole, whatever breaks on the way, and none holds up another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time

import pytest
from structlog.testing import capture_logs

from event_handler.errors import ConnectError, RpcError
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.ports import Commit, RecordingItem
from event_handler.sources import recordings
from event_handler.sources.recordings import RecordingPace, RecordingSource
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.messages import write_number
from tests.support.events import wire
from tests.support.scripted_cluster import ScriptedClient
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until

HOUR = 3600.0


QUICK = RecordingPace(look=0.01, waits=(0.02, 0.02, 0.02), passing=0.1)


def recorded(count: int) -> list[bytes]:
    """A recording of that many events; the last one is the end of the session."""
    kinds = ["resize"] * (count - 1) + ["session.end"]
    return [wire(f"r{index}", kind) + write_number(4, index) for index, kind in enumerate(kinds)]


async def announced(*sessions: str, ago: float = 0.0) -> SqliteStore:
    store = SqliteStore(None)
    await store.commit(
        Commit(recordings=[RecordingItem(session, time() - ago, True, 0, 0.0, 0) for session in sessions])
    )
    return store


@asynccontextmanager
async def fetching(
    client: ScriptedClient, sink: ScriptedSink, store: SqliteStore, concurrency: int = 5, skipped: tuple[str, ...] = ()
) -> AsyncIterator[None]:
    selector = Selector("scripted", DuplicateWindow(), skip_session_types=skipped)
    async with Pipeline(sink, store, selector, PipelineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=concurrency, missing_ttl=HOUR, pace=QUICK)
        running = asyncio.create_task(source.run(client))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_recording_whose_stream_breaks_again_and_again_arrives_whole_and_once() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = recorded(25)
    client.breaks["s"] = ["UNAVAILABLE", "UNKNOWN", "UNAVAILABLE", "INTERNAL", "UNAVAILABLE"]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sorted(sink.delivered) == sorted(f"r{index}" for index in range(25))


async def test_a_clock_that_is_set_back_by_a_day_does_not_put_off_what_waits() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("waits", "set back")
    client.recordings = {"waits": recorded(2), "set back": recorded(1)}
    await store.recording_later("waits", time() + HOUR, counted=True)
    await store.recording_later("set back", time() + 24 * HOUR, counted=True)
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found[0] == 1)
        await asyncio.sleep(0.05)
    assert sink.delivered == ["r0"]


async def test_a_recording_is_not_done_while_what_an_earlier_try_read_is_in_flight() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = recorded(5)
    client.breaks["s"] = ["UNAVAILABLE"]
    sink.hold = asyncio.Event()
    async with fetching(client, sink, store):
        await until(lambda: sink.calls > 0)
        await asyncio.sleep(0.3)  # long enough for several more tries
        assert (await store.waiting_recordings())[0] == 1
        sink.hold.set()
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sorted(sink.delivered) == [f"r{index}" for index in range(5)]


async def test_a_missing_recording_is_asked_for_again_and_delivered_once_when_it_appears() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s", ago=2.5 * 24 * HOUR)
    async with fetching(client, sink, store):
        await until(lambda: len(client.asked) == 3)
        client.recordings["s"] = recorded(3)
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
        asked = len(client.asked)
        await asyncio.sleep(0.1)
        assert len(client.asked) == asked
    assert sorted(sink.delivered) == ["r0", "r1", "r2"]
    assert await store.dead_letters() == 0


async def test_a_recording_that_stays_missing_is_given_up_after_its_time_only_and_kept_as_a_dead_letter() -> None:
    client, sink = ScriptedClient(), ScriptedSink()
    young, old = await announced("s", ago=HOUR / 2), await announced("s", ago=2 * HOUR)
    async with fetching(client, sink, young):
        await until(lambda: len(client.asked) > 6)
    assert ((await young.waiting_recordings())[0], await young.dead_letters()) == (1, 0)
    client.asked.clear()
    async with fetching(client, sink, old):
        await until(lambda: old.waiting_recordings(), lambda found: found == (0, 0))
    assert len(client.asked) == 4
    assert await old.dead_letters() == 1


async def test_no_more_recordings_than_allowed_are_read_at_once_and_a_stuck_one_holds_up_no_other() -> None:
    sessions = [f"s{number}" for number in range(12)]
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced(*sessions)
    client.recordings = {session: [wire(f"{session}-0", "session.end")] for session in sessions}
    client.stuck = {"s0"}
    async with fetching(client, sink, store, concurrency=3):
        await until(lambda: store.waiting_recordings(), lambda found: found[0] == 1)
    assert client.most_open == 3
    assert sorted(sink.delivered) == sorted(f"{session}-0" for session in sessions)


async def test_skipped_types_of_a_recording_are_dropped_as_they_came_and_not_read_again_when_the_stream_breaks() -> (
    None
):
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    frames = [wire(f"f{index}", "desktop.recording") + write_number(4, index) for index in range(400)]
    client.recordings["s"] = [*frames, wire("end", "windows.desktop.session.end") + write_number(4, 400)]
    client.breaks["s"] = ["UNAVAILABLE"]
    async with fetching(client, sink, store, skipped=("desktop.recording",)):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert client.asked == [("s", "0"), ("s", "400")]
    assert sink.delivered == ["end"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
async def test_a_cluster_that_fails_is_asked_ever_less_often_for_a_recording_which_is_never_given_up(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s", ago=30 * 24 * HOUR)
    client.recordings["s"] = recorded(3)
    client.breaks["s"] = [code] * 8
    with capture_logs() as lines:
        async with fetching(client, sink, store):
            await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    waits = [line["wait_s"] for line in lines if "wait_s" in line]
    assert waits == [0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert await store.dead_letters() == 0


async def test_a_recording_that_the_cluster_never_comes_to_send_is_spaced_and_given_up_as_a_missing_one() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s", ago=2 * HOUR)
    client.recordings["s"] = []
    client.breaks["s"] = ["DEADLINE_EXCEEDED"] * 100
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert len(client.asked) == 4
    assert await store.dead_letters() == 1


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNKNOWN", "INVALID_ARGUMENT"])
async def test_a_recording_that_is_refused_or_damaged_is_kept_for_a_dead_letter_and_holds_up_no_other(
    code: str,
) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("bad", "good", ago=2 * HOUR)
    client.recordings = {"bad": recorded(2), "good": [wire("g0", "session.end")]}
    client.breaks["bad"] = [code] * 100
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sorted(sink.delivered) == ["g0", "r0", "r1"]
    assert await store.dead_letters() == 1


async def test_tries_that_are_cut_off_by_a_lost_connection_are_spaced_as_well() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = recorded(3)
    client.stuck = {"s"}
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), PipelineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=5, missing_ttl=HOUR, pace=QUICK)
        begun = time()
        while time() - begun < 0.5:  # the connection is lost every 30 ms
            running = asyncio.create_task(source.run(client))
            await asyncio.sleep(0.03)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert 2 <= len(client.asked) <= 7  # after 20, 40, 80 and then every 100 ms
        client.stuck.clear()
        running = asyncio.create_task(source.run(client))
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(sink.delivered) == ["r0", "r1", "r2"]


async def test_after_a_lost_connection_a_recording_is_asked_for_again_when_what_is_in_flight_of_it_is_delivered() -> (
    None
):
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = recorded(5)
    client.stuck = {"s"}
    sink.hold = asyncio.Event()
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), PipelineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=5, missing_ttl=HOUR, pace=QUICK)
        lost = asyncio.create_task(source.run(client))
        await until(lambda: sink.calls > 0)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        client.stuck.clear()
        running = asyncio.create_task(source.run(client))
        await asyncio.sleep(0.2)  # long enough for several more tries
        assert client.asked == [("s", "0")]
        sink.hold.set()
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert client.asked == [("s", "0"), ("s", "4")]
    assert sink.delivered == [f"r{index}" for index in range(5)]


async def test_a_recording_that_takes_longer_than_the_pause_between_tries_is_read_once() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = recorded(2)
    client.stuck = {"s"}
    async with fetching(client, sink, store):
        await until(lambda: sink.delivered == ["r0", "r1"])
        await asyncio.sleep(0.2)  # ten pauses
    assert client.asked == [("s", "0")]


async def test_bytes_of_a_recording_that_are_no_event_become_a_dead_letter() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = [*recorded(2), b"\xff\xff"]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sink.delivered == ["r0", "r1"]
    assert await store.dead_letters() == 1


async def test_the_end_waits_for_recordings_that_are_read_and_no_longer_for_the_uploads_of_others() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    tried_before, ended = (
        RecordingItem("read", time(), True, 1, 0.0, 0),
        RecordingItem("ended", time(), False, 0, time() + HOUR, 0),
    )
    await store.commit(Commit(recordings=[tried_before, ended]))
    client.recordings = {"read": recorded(2), "ended": []}
    sink.hold = asyncio.Event()
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), PipelineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=5, missing_ttl=HOUR, pace=QUICK)
        finishing, running = asyncio.create_task(source.finish()), asyncio.create_task(source.run(client))
        await until(lambda: store.waiting_recordings(), lambda found: found == (1, 0))
        await asyncio.sleep(0.15)
        assert not finishing.done()
        sink.hold.set()
        async with asyncio.timeout(20):
            assert await finishing == 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sink.delivered == ["r0", "r1"]


async def test_a_cluster_that_is_away_is_no_reason_to_give_up_a_recording_that_was_missing_for_long() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    await store.commit(Commit(recordings=[RecordingItem("s", time() - 2 * HOUR, True, 9, 0.0, 0)]))
    client.recordings["s"] = recorded(2)
    client.breaks["s"] = ["UNAVAILABLE"]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sink.delivered == ["r0", "r1"]
    assert await store.dead_letters() == 0


async def test_a_recording_beyond_the_largest_index_is_resumed_by_skipping_and_its_position_never_goes_back() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    far = recordings.LARGEST_INDEX + 10
    await store.commit(Commit(recordings=[RecordingItem("s", time(), True, 0, 0.0, far)]))
    client.recordings["s"] = [wire("before", "resize") + write_number(4, 1)]
    client.breaks["s"] = ["UNAVAILABLE"] * 1000
    async with fetching(client, sink, store):
        await until(lambda: len(client.asked) >= 3)
        assert (await store.due_recordings(time() + HOUR, 1))[0].next_index == far
        client.recordings["s"].append(wire("behind", "session.end") + write_number(4, far))
        client.breaks.clear()
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert client.asked[0] == ("s", "0")
    assert sink.delivered == ["behind"]


async def test_a_connection_that_fails_for_one_recording_leaves_the_others_alone() -> None:
    class Failing(ScriptedClient):
        faults = 1

        async def recording(self, session_id: str, index: int) -> AsyncIterator[list[bytes]]:
            if session_id == "bad" and self.faults:
                self.faults -= 1
                raise ConnectError("scripted loss")
            async for wires in super().recording(session_id, index):
                yield wires

    client, sink, store = Failing(), ScriptedSink(), await announced("bad", "good")
    client.recordings = {"bad": recorded(2), "good": [wire("g0", "session.end")]}
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sorted(sink.delivered) == ["g0", "r0", "r1"]


def at(index: int, name: str = "", kind: str = "resize") -> bytes:
    return wire(name or f"r{index}", kind) + write_number(4, index)


class Growing(ScriptedClient):
    """Has more of the recording at each request, as `answers` say."""

    def __init__(self, *answers: list[bytes]) -> None:
        super().__init__()
        self.answers = list(answers)

    async def recording(self, session_id: str, index: int) -> AsyncIterator[list[bytes]]:
        self.recordings[session_id] = self.answers[min(len(self.asked), len(self.answers) - 1)]
        async for wires in super().recording(session_id, index):
            yield wires


async def test_a_stream_that_ends_well_without_an_event_is_no_recording_yet() -> None:
    client, sink, store = Growing([], [], recorded(3)), ScriptedSink(), await announced("s")
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sink.delivered == ["r0", "r1", "r2"]
    assert len(client.asked) == 3


async def test_a_recording_that_stays_empty_is_looked_at_three_times_and_told() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = []
    with capture_logs() as lines:
        async with fetching(client, sink, store):
            await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
            await asyncio.sleep(0.1)
    assert len(client.asked) == 3
    assert [line["log_level"] for line in lines if line["event"] == "the recording has no events to deliver"] == [
        "warning"
    ]


@pytest.mark.parametrize("kind", sorted(recordings.ENDS))
async def test_a_recording_with_the_end_of_its_session_is_asked_for_once(kind: str) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = [at(0), at(1, kind=kind), at(2, kind="session.leave")]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
        await asyncio.sleep(0.1)
    assert client.asked == [("s", "0")]


async def test_a_recording_without_an_end_is_done_when_a_second_look_brings_nothing_new() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = [at(0), at(1)]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert client.asked == [("s", "0"), ("s", "1")]
    assert sink.delivered == ["r0", "r1"]


async def test_what_a_recording_grew_by_after_the_first_look_is_delivered() -> None:
    client, sink, store = Growing([at(0), at(1)], [at(0), at(1), at(2), at(3)]), ScriptedSink(), await announced("s")
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sink.delivered == ["r0", "r1", "r2", "r3"]
    assert [index for _, index in client.asked] == ["0", "1", "3"]


async def test_skipped_events_that_a_recording_grew_by_are_a_reason_to_look_again() -> None:
    frames = [at(index, kind="print") for index in range(2)]
    client, sink, store = Growing(frames[:1], frames, [*frames, at(2)]), ScriptedSink(), await announced("s")
    async with fetching(client, sink, store, skipped=("print",)):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert sink.delivered == ["r2"]


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ([0, 1, 2, 5], [3, 4, 6]),
        ([4, 3, 2], [1, 0, 5]),
        ([1, 3], [0, 2]),
        ([0, 10**12, 5 * 10**11], [2 * 10**11, 3]),
        ([0, 0, 1], [1, 2, 0]),
        ([3, 4], [3, 4, 5]),
        ([0, 2, 4, 6], [1, 3, 5, 7]),
    ],
)
async def test_events_out_of_order_around_a_break_are_delivered_once(before: list[int], behind: list[int]) -> None:
    class Filtering(ScriptedClient):
        """Sends what has at least the index that is asked for, as a server does, and breaks behind the first part."""

        async def recording(self, session_id: str, index: int) -> AsyncIterator[list[bytes]]:
            self.asked.append((session_id, str(index)))
            first = len(self.asked) == 1
            yield [event for event, place in zip(events, places, strict=True) if place >= index][
                : len(before) if first else None
            ]
            if first:
                raise RpcError("StreamUnstructuredSessionEvents", "UNAVAILABLE", "scripted break")

    places = [*before, *behind]
    events = [at(index, f"event {number}") for number, index in enumerate(places)]
    events.append(at(max(places) + 1, "end", "session.end"))
    places.append(max(places) + 1)
    client, sink, store = Filtering(), ScriptedSink(), await announced("s")
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings(), lambda found: found == (0, 0))
    assert set(sink.delivered) == {"end", *(f"event {number}" for number in range(len(events) - 1))}
    assert len(sink.delivered) == len(set(sink.delivered))


def test_how_far_indexes_are_without_a_gap() -> None:
    unbroken = recordings.Unbroken(0)
    reached = []
    for index in (0, 2, -1, 1, 5, 4, 3, 2):
        unbroken.add(index)
        reached.append(unbroken.index)
    assert reached == [0, 0, 0, 2, 2, 2, 5, 0]


def test_more_indexes_behind_a_gap_than_are_remembered_only_cost_a_longer_way_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recordings, "MOST_AHEAD", 2)
    unbroken = recordings.Unbroken(0)
    for index in (5, 4, 3, 2, 1, 0):
        unbroken.add(index)
    assert unbroken.index == 0


async def test_at_the_end_what_an_earlier_process_has_looked_at_is_looked_at_again_and_the_rest_stays_queued() -> None:
    pace = RecordingPace(look=0.01, waits=(HOUR,) * 3, passing=0.1)
    client, sink, store = ScriptedClient(), ScriptedSink(), await announced("s")
    client.recordings["s"] = [at(0)]
    for left in (1, 0):
        window = DuplicateWindow()
        window.load(await store.delivered_ids())
        async with Pipeline(sink, store, Selector("scripted", window), PipelineLimits(3, 1_000_000)) as line:
            source = RecordingSource(line, store, concurrency=5, missing_ttl=HOUR, pace=pace)
            finishing, running = asyncio.create_task(source.finish()), asyncio.create_task(source.run(client))
            async with asyncio.timeout(20):
                assert await finishing == left
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert len(client.asked) == 2
