"""A recording is asked for until it has been delivered whole, whatever breaks on the way, and none holds up another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time

import pytest
from structlog.testing import capture_logs

from event_handler.errors import ConnectError
from event_handler.pipeline.duplicates import DuplicateWindow
from event_handler.pipeline.engine import LineLimits, Pipeline
from event_handler.pipeline.select import Selector
from event_handler.sources import recordings
from event_handler.sources.recordings import RecordingSource
from event_handler.state.store import Commit, RecordingItem, Store
from event_handler.teleport.messages import write_number
from tests.unit.pipeline.test_engine import ScriptedSink, wire
from tests.unit.sources.scripted import ScriptedClient

HOUR = 3600.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(recordings, "WAITS", (0.02, 0.02, 0.02))
    monkeypatch.setattr(recordings, "LONGEST_PASSING_WAIT", 0.1, raising=False)


def recorded(count: int) -> list[bytes]:
    return [wire(f"r{index}", "resize") + write_number(4, index) for index in range(count)]


def announced(*sessions: str, ago: float = 0.0) -> Store:
    store = Store(None)
    store.commit(Commit(recordings=[RecordingItem(session, time() - ago, True, 0, 0.0, 0) for session in sessions]))
    return store


@asynccontextmanager
async def fetching(
    client: ScriptedClient, sink: ScriptedSink, store: Store, concurrency: int = 5, skipped: tuple[str, ...] = ()
) -> AsyncIterator[None]:
    selector = Selector("scripted", DuplicateWindow(), skip_session_types=skipped)
    async with Pipeline(sink, store, selector, LineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=concurrency, missing_ttl=HOUR)
        running = asyncio.create_task(source.run(client))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_recording_whose_stream_breaks_again_and_again_arrives_whole_and_once() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s")
    client.recordings["s"] = recorded(25)
    client.breaks["s"] = ["UNAVAILABLE", "UNKNOWN", "UNAVAILABLE", "INTERNAL", "UNAVAILABLE"]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert sorted(sink.delivered) == sorted(f"r{index}" for index in range(25))


async def test_a_clock_that_is_set_back_by_a_day_does_not_put_off_what_waits() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("waits", "set back")
    client.recordings = {"waits": recorded(2), "set back": recorded(1)}
    store.recording_later("waits", time() + HOUR, counted=True)
    store.recording_later("set back", time() + 24 * HOUR, counted=True)
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings()[0] == 1)
        await asyncio.sleep(0.05)
    assert sink.delivered == ["r0"]


async def test_a_recording_is_not_done_while_what_an_earlier_try_read_is_in_flight() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s")
    client.recordings["s"] = recorded(5)
    client.breaks["s"] = ["UNAVAILABLE"]
    sink.hold = asyncio.Event()
    async with fetching(client, sink, store):
        await until(lambda: sink.calls > 0)
        await asyncio.sleep(0.3)  # long enough for several more tries
        assert store.waiting_recordings()[0] == 1
        sink.hold.set()
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert sorted(sink.delivered) == [f"r{index}" for index in range(5)]


async def test_a_missing_recording_is_asked_for_again_and_delivered_once_when_it_appears() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s", ago=2.5 * 24 * HOUR)
    async with fetching(client, sink, store):
        await until(lambda: len(client.asked) == 3)
        client.recordings["s"] = recorded(3)
        await until(lambda: store.waiting_recordings() == (0, 0))
        asked = len(client.asked)
        await asyncio.sleep(0.1)
        assert len(client.asked) == asked
    assert sorted(sink.delivered) == ["r0", "r1", "r2"]
    assert store.dead_letters() == 0


async def test_a_recording_that_stays_missing_is_given_up_after_its_time_only_and_kept_as_a_dead_letter() -> None:
    client, sink = ScriptedClient(), ScriptedSink()
    young, old = announced("s", ago=HOUR / 2), announced("s", ago=2 * HOUR)
    async with fetching(client, sink, young):
        await until(lambda: len(client.asked) > 6)
    assert (young.waiting_recordings()[0], young.dead_letters()) == (1, 0)
    client.asked.clear()
    async with fetching(client, sink, old):
        await until(lambda: old.waiting_recordings() == (0, 0))
    assert len(client.asked) == 4
    assert old.dead_letters() == 1


async def test_no_more_recordings_than_allowed_are_read_at_once_and_a_stuck_one_holds_up_no_other() -> None:
    sessions = [f"s{number}" for number in range(12)]
    client, sink, store = ScriptedClient(), ScriptedSink(), announced(*sessions)
    client.recordings = {session: [wire(f"{session}-0", "resize")] for session in sessions}
    client.stuck = {"s0"}
    async with fetching(client, sink, store, concurrency=3):
        await until(lambda: store.waiting_recordings()[0] == 1)
    assert client.most_open == 3
    assert sorted(sink.delivered) == sorted(f"{session}-0" for session in sessions)


async def test_skipped_types_of_a_recording_are_dropped_as_they_came_and_not_read_again_when_the_stream_breaks() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s")
    frames = [wire(f"f{index}", "desktop.recording") + write_number(4, index) for index in range(400)]
    client.recordings["s"] = [*frames, wire("end", "windows.desktop.session.end") + write_number(4, 400)]
    client.breaks["s"] = ["UNAVAILABLE"]
    async with fetching(client, sink, store, skipped=("desktop.recording",)):
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert client.asked == [("s", "0"), ("s", "400")]
    assert sink.delivered == ["end"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
async def test_a_cluster_that_fails_is_asked_ever_less_often_for_a_recording_which_is_never_given_up(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s", ago=30 * 24 * HOUR)
    client.recordings["s"] = recorded(3)
    client.breaks["s"] = [code] * 8
    with capture_logs() as lines:
        async with fetching(client, sink, store):
            await until(lambda: store.waiting_recordings() == (0, 0))
    waits = [line["wait_s"] for line in lines if "wait_s" in line]
    assert waits == [0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert store.dead_letters() == 0


async def test_a_recording_that_the_cluster_never_comes_to_send_is_spaced_and_given_up_as_a_missing_one() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s", ago=2 * HOUR)
    client.recordings["s"] = []
    client.breaks["s"] = ["DEADLINE_EXCEEDED"] * 100
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert len(client.asked) == 4
    assert store.dead_letters() == 1


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNKNOWN", "INVALID_ARGUMENT"])
async def test_a_recording_that_is_refused_or_damaged_is_kept_for_a_dead_letter_and_holds_up_no_other(code: str) -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("bad", "good", ago=2 * HOUR)
    client.recordings = {"bad": recorded(2), "good": [wire("g0", "resize")]}
    client.breaks["bad"] = [code] * 100
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert sorted(sink.delivered) == ["g0", "r0", "r1"]
    assert store.dead_letters() == 1


async def test_tries_that_are_cut_off_by_a_lost_connection_are_spaced_as_well() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s")
    client.recordings["s"] = recorded(3)
    client.stuck = {"s"}
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), LineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=5, missing_ttl=HOUR)
        begun = time()
        while time() - begun < 0.5:  # the connection is lost every 30 ms
            running = asyncio.create_task(source.run(client))
            await asyncio.sleep(0.03)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert 2 <= len(client.asked) <= 7  # after 20, 40, 80 and then every 100 ms
        client.stuck.clear()
        running = asyncio.create_task(source.run(client))
        await until(lambda: store.waiting_recordings() == (0, 0))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(sink.delivered) == ["r0", "r1", "r2"]


async def test_after_a_lost_connection_a_recording_is_asked_for_again_when_what_is_in_flight_of_it_is_delivered() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s")
    client.recordings["s"] = recorded(5)
    client.stuck = {"s"}
    sink.hold = asyncio.Event()
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), LineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=5, missing_ttl=HOUR)
        lost = asyncio.create_task(source.run(client))
        await until(lambda: sink.calls > 0)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        client.stuck.clear()
        running = asyncio.create_task(source.run(client))
        await asyncio.sleep(0.2)  # long enough for several more tries
        assert client.asked == [("s", "0")]
        sink.hold.set()
        await until(lambda: store.waiting_recordings() == (0, 0))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert client.asked == [("s", "0"), ("s", "4")]
    assert sink.delivered == [f"r{index}" for index in range(5)]


async def test_a_recording_that_takes_longer_than_the_pause_between_tries_is_read_once() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s")
    client.recordings["s"] = recorded(2)
    client.stuck = {"s"}
    async with fetching(client, sink, store):
        await until(lambda: sink.delivered == ["r0", "r1"])
        await asyncio.sleep(0.2)  # ten pauses
    assert client.asked == [("s", "0")]


async def test_bytes_of_a_recording_that_are_no_event_become_a_dead_letter() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), announced("s")
    client.recordings["s"] = [*recorded(2), b"\xff\xff"]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert sink.delivered == ["r0", "r1"]
    assert store.dead_letters() == 1


async def test_the_end_waits_for_recordings_that_are_read_and_no_longer_for_the_uploads_of_others() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    tried_before, ended = RecordingItem("read", time(), True, 1, 0.0, 0), RecordingItem("ended", time(), False, 0, time() + HOUR, 0)
    store.commit(Commit(recordings=[tried_before, ended]))
    client.recordings = {"read": recorded(2), "ended": []}
    sink.hold = asyncio.Event()
    async with Pipeline(sink, store, Selector("scripted", DuplicateWindow()), LineLimits(3, 1_000_000)) as line:
        source = RecordingSource(line, store, concurrency=5, missing_ttl=HOUR)
        finishing, running = asyncio.create_task(source.finish()), asyncio.create_task(source.run(client))
        await until(lambda: store.waiting_recordings() == (1, 0))
        await asyncio.sleep(0.15)
        assert not finishing.done()
        sink.hold.set()
        async with asyncio.timeout(20):
            assert await finishing == 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sink.delivered == ["r0", "r1"]


async def test_a_cluster_that_is_away_is_no_reason_to_give_up_a_recording_that_was_missing_for_long() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    store.commit(Commit(recordings=[RecordingItem("s", time() - 2 * HOUR, True, 9, 0.0, 0)]))
    client.recordings["s"] = recorded(2)
    client.breaks["s"] = ["UNAVAILABLE"]
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert sink.delivered == ["r0", "r1"]
    assert store.dead_letters() == 0


async def test_a_recording_beyond_the_largest_index_of_the_protocol_is_resumed_by_skipping_and_its_position_never_goes_back() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), Store(None)
    far = recordings.LARGEST_INDEX + 10
    store.commit(Commit(recordings=[RecordingItem("s", time(), True, 0, 0.0, far)]))
    client.recordings["s"] = [wire("before", "resize") + write_number(4, 1)]
    client.breaks["s"] = ["UNAVAILABLE"] * 1000
    async with fetching(client, sink, store):
        await until(lambda: len(client.asked) >= 3)
        assert store.due_recordings(time() + HOUR, 1)[0].next_index == far
        client.recordings["s"].append(wire("behind", "resize") + write_number(4, far))
        client.breaks.clear()
        await until(lambda: store.waiting_recordings() == (0, 0))
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

    client, sink, store = Failing(), ScriptedSink(), announced("bad", "good")
    client.recordings = {"bad": recorded(2), "good": [wire("g0", "resize")]}
    async with fetching(client, sink, store):
        await until(lambda: store.waiting_recordings() == (0, 0))
    assert sorted(sink.delivered) == ["g0", "r0", "r1"]
