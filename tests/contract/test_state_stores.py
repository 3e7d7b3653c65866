"""Every state store remembers whole groups or nothing, and says the same about them. A new store joins in `STORES`."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from datetime import date
from functools import cache
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from event_handler.checkpoint import (
    DONE,
    Chunk,
    ChunkCheckpoint,
    Mode,
    Progress,
    Recording,
    RecordingCheckpoint,
    SearchCheckpoint,
)
from event_handler.errors import StateError, StorageError
from event_handler.ports import Commit, DeadLetter, FailedLogin, RecordingItem, StateStore
from event_handler.runtime.state_bucket import S3Bucket
from event_handler.state.bucket import BucketStore
from event_handler.state.postgresql.replica import Replica
from event_handler.state.postgresql.store import PostgresStore
from event_handler.state.sqlite import SqliteStore
from tests.contract.postgresql_server import Server, no_postgresql, serving
from tests.contract.state_bucket import StateBucket, state_bucket


async def sqlite(directory: Path) -> StateStore:
    return SqliteStore(directory)


async def memory(_: Path) -> StateStore:
    return SqliteStore(None)


async def postgresql(directory: Path) -> StateStore:
    """One of a replica, so that each commit looks whether it may still write."""
    url = database().url()
    replica = Replica(url, "a.test")
    await replica.join()
    replica.close()
    return await PostgresStore.open(url, "a.test", str(directory), replica.epoch)


async def bucket(directory: Path) -> StateStore:
    """One whose server the test does not see; it is written when it is closed."""
    storage = S3Bucket(buckets().url(str(directory).strip("/")))
    return await BucketStore.open(storage, "a.test/fluentd", 3600.0, asyncio.Event())


@cache
def buckets() -> StateBucket:
    return _servers.enter_context(state_bucket())


@pytest.fixture(autouse=True)
def keys_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-tests")


@cache
def database() -> Server:
    """One server for all tests of the process, stopped when that ends."""
    return _servers.enter_context(serving())


_servers = ExitStack()
atexit.register(_servers.close)
STORES: dict[str, Callable[[Path], Awaitable[StateStore]]] = {
    "sqlite": sqlite,
    "memory": memory,
    "postgresql": postgresql,
    "bucket": bucket,
}
needs_postgresql = pytest.mark.skipif(bool(no_postgresql()), reason=no_postgresql() or "-")


def params(*names: str) -> list[Any]:
    return [pytest.param(name, marks=needs_postgresql if name == "postgresql" else ()) for name in names]


LASTING = params("sqlite", "postgresql", "bucket")
DAY, NEXT = date(2026, 3, 5), date(2026, 3, 6)
ONE, TWO = Chunk(DAY, "one"), Chunk(NEXT, "two/with a slash")


@pytest.fixture(params=params(*STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    made = await STORES[request.param](tmp_path / "state")
    yield made
    await made.finish()
    made.close()


def letter(reason: str = "refused", body: bytes = b"{}") -> DeadLetter:
    return DeadLetter("fluentd", reason, "user.login", "u", "", body, 5.0, 2)


def pending(session: str = "s", *, uploaded: bool = True, due: float = 0.0) -> RecordingItem:
    return RecordingItem(session, 1.0, uploaded, 0, due, 0)


async def test_a_new_store_knows_nothing(store: StateStore) -> None:
    assert (await store.is_new(), await store.start()) == (True, None)
    assert await store.progress() == Progress()
    assert (await store.delivered_ids(), await store.unfinished_recordings(), await store.locks_due()) == ([], [], [])
    assert (await store.dead_letters(), await store.dead_letter_totals(), await store.note("x")) == (0, (0, 0), "")


async def test_checkpoints_of_every_kind_are_remembered(store: StateStore) -> None:
    await store.commit(Commit(recordings=[pending()]))
    await store.commit(
        Commit(
            [
                ChunkCheckpoint(ONE, "a1:3"),
                ChunkCheckpoint(TWO, DONE),
                SearchCheckpoint(1_795_426_578.109),
                RecordingCheckpoint(Recording("s"), 7),
            ]
        )
    )
    await store.commit(Commit([ChunkCheckpoint(ONE, "a1:4")]))
    progress = await store.progress()
    assert progress.chunks == {ONE: "a1:4", TWO: DONE}
    assert progress.searched == 1_795_426_578.109
    assert [item.next_index for item in await store.unfinished_recordings()] == [7]


@pytest.mark.parametrize(
    "progress",
    [
        Progress(Mode.SEARCH, 5.25, 4.5, "an id"),
        Progress(Mode.BULK, None, None, "", DAY, frozenset({NEXT}), {ONE: DONE, TWO: ""}),
        Progress(),
    ],
)
async def test_the_progress_is_replaced_as_a_whole(store: StateStore, progress: Progress) -> None:
    await store.commit(Commit([SearchCheckpoint(1.0), ChunkCheckpoint(Chunk(DAY, "old"), "a1:1")]))
    await store.commit(Commit(progress=progress))
    assert await store.progress() == progress


async def test_days_that_are_closed_take_their_chunks_with_them(store: StateStore) -> None:
    await store.commit(Commit([ChunkCheckpoint(ONE, DONE), ChunkCheckpoint(TWO, "a1:1"), SearchCheckpoint(3.0)]))
    await store.close_days(NEXT)
    progress = await store.progress()
    assert (progress.first_day, progress.chunks, progress.searched) == (NEXT, {TWO: "a1:1"}, 3.0)
    assert progress.cursor(ONE) == DONE


async def test_a_chunk_is_taken_where_it_was_left_and_not_when_it_is_done_or_its_day_closed(store: StateStore) -> None:
    await store.commit(Commit([ChunkCheckpoint(ONE, "a1:3")]))
    assert [await store.take(one) for one in (ONE, TWO)] == ["a1:3", ""]
    await store.commit(Commit([ChunkCheckpoint(TWO, DONE)]))
    assert await store.take(TWO) == DONE
    await store.give_back(ONE)
    assert await store.take(ONE) == "a1:3"
    await store.close_days(NEXT)
    assert await store.take(ONE) == DONE


async def test_the_last_id_of_the_plugin_is_passed_once(store: StateStore) -> None:
    await store.commit(Commit(progress=Progress(Mode.SEARCH, 5.0, 4.0, "an id")))
    await store.last_id_passed()
    assert await store.progress() == Progress(Mode.SEARCH, 5.0, 4.0)


async def test_a_state_belongs_to_one_cluster(store: StateStore) -> None:
    await store.claim("a.test")
    await store.claim("a.test")
    with pytest.raises(StorageError, match=r"belongs to the cluster a\.test, and the credentials are for b\.test"):
        await store.claim("b.test")


async def test_reading_begins_once(store: StateStore) -> None:
    assert await store.begin(5.75) == 5.0
    assert (await store.begin(9.0), await store.start(), await store.is_new()) == (5.0, 5.0, False)


async def test_ids_come_back_oldest_first(store: StateStore) -> None:
    for group in (b"11111111" * 2, b"22222222"):
        await store.commit(Commit(ids=group))
    assert await store.delivered_ids() == [b"11111111" * 2, b"22222222"]


async def test_a_group_that_cannot_be_written_leaves_nothing_half_done(store: StateStore) -> None:
    bad = Commit([SearchCheckpoint(5.0)], b"12345678", [RecordingItem("s", nan, True, 0, 0.0, 0)], [letter()])
    with pytest.raises(StateError):
        await store.commit(bad)
    assert (await store.progress()).searched is None
    assert (await store.delivered_ids(), await store.dead_letters()) == ([], 0)
    await store.commit(Commit([SearchCheckpoint(6.0)]))
    assert (await store.progress()).searched == 6.0


async def test_an_upload_brings_a_waiting_recording_forward_and_a_finished_one_stays_finished(
    store: StateStore,
) -> None:
    await store.commit(Commit(recordings=[pending(uploaded=False, due=100.0)]))
    assert await store.due_recordings(50.0, 5) == []
    await store.commit(Commit(recordings=[pending(due=10.0)]))
    assert [item.session_id for item in await store.due_recordings(50.0, 5)] == ["s"]
    await store.recording_done("s")
    await store.commit(Commit(recordings=[pending(due=10.0)]))
    assert await store.due_recordings(50.0, 5) == []
    assert await store.waiting_recordings() == (0, 0)
    known = await store.recording("s")
    assert known is not None
    assert known[0]


async def test_the_recording_that_has_been_due_for_longest_comes_first(store: StateStore) -> None:
    await store.commit(Commit(recordings=[pending(f"s{due}", due=float(due)) for due in (3, 1, 2)]))
    assert [item.session_id for item in await store.due_recordings(5.0, 2)] == ["s1", "s2"]
    assert [item.session_id for item in await store.due_recordings(0.0, 9, 2.5)] == ["s3"]  # the clock was set back


async def test_tries_and_looks_are_counted(store: StateStore) -> None:
    await store.commit(Commit(recordings=[pending("a"), pending("b"), pending("c")]))
    await store.recording_later("a", 50.0, counted=True)
    await store.recording_later("b", 50.0, counted=False)
    await store.recording_looked("c", 50.0)
    assert await store.waiting_recordings() == (3, 1)
    assert await store.recordings_looked_at() == ["c"]
    await store.recordings_due_now(["c"])
    assert {item.session_id for item in await store.due_recordings(1.0, 9)} == {"b", "c"}


async def test_a_recording_that_is_given_up_is_a_dead_letter_and_can_be_asked_for_again(store: StateStore) -> None:
    await store.commit(Commit(recordings=[pending()]))
    await store.recording_given_up(DeadLetter("recordings", "never appeared", "", "s", "s", b"{}"))
    assert (await store.waiting_recordings(), await store.dead_letters()) == ((0, 0), 1)
    await store.recording_again("s")
    assert [item.session_id for item in await store.due_recordings(1.0, 9)] == ["s"]


async def test_recordings_since_a_time_are_asked_for_again_from_their_beginning(store: StateStore) -> None:
    await store.commit(Commit(recordings=[RecordingItem(f"s{at}", float(at), True, 0, 0.0, 0) for at in (1, 5)]))
    await store.commit(Commit([RecordingCheckpoint(Recording("s5"), 9)]))
    for session in ("s1", "s5"):
        await store.recording_done(session)
    assert await store.recordings_again(5.0) == 1
    assert [(item.session_id, item.next_index) for item in await store.due_recordings(inf, 9)] == [("s5", 0)]


async def test_dead_letters_are_counted_as_they_come_and_go(store: StateStore) -> None:
    await store.commit(Commit(dead_letters=[letter(body=b"12345"), letter(body=b"123")]))
    assert (await store.dead_letters(), await store.dead_letter_totals()) == (2, (2, 8))
    assert await store.dead_letters_to_retry() == []  # nobody has asked for it
    await store.dead_letter_refused(1, "still refused")
    await store.dead_letter_delivered(2)
    assert await store.dead_letter_totals() == (1, 5)


async def test_failed_logins_count_once_until_they_lead_to_a_lock(store: StateStore) -> None:
    logins = [FailedLogin(f"e{at}", float(at), "alice") for at in (2, 1)]
    assert await store.add_failed_logins(logins) == logins
    assert await store.add_failed_logins([*logins, FailedLogin("e3", 3.0, "bob")]) == [FailedLogin("e3", 3.0, "bob")]
    assert await store.failed_logins_of("alice") == [1.0, 2.0]
    await store.lock_due("alice", "alice", "root")
    assert (await store.failed_logins_of("alice"), await store.locks_due()) == ([], [("alice", "root")])
    assert await store.add_failed_logins(logins) == []
    await store.lock_made("alice", "root")
    await store.forget_failed_logins(2.5)
    assert (await store.locks_due(), await store.add_failed_logins(logins)) == ([], logins)


async def test_notes_are_kept_by_name(store: StateStore) -> None:
    await store.commit(Commit(notes={"a": "1", "b": "2"}))
    await store.commit(Commit(notes={"a": "3"}))
    assert [await store.note(name) for name in "abc"] == ["3", "2", ""]


async def test_a_call_that_is_cancelled_has_happened_whole_or_not_at_all_and_the_next_one_works(
    store: StateStore,
) -> None:
    for number in range(30):
        group = Commit([SearchCheckpoint(float(number))], number.to_bytes(8, "big"))
        writing = asyncio.create_task(store.commit(group))
        await asyncio.sleep(0.0002 * (number % 5))
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await store.commit(Commit(notes={"end": "yes"}))  # behind all of them
    newest = (await store.progress()).searched
    ids = [int.from_bytes(group, "big") for group in await store.delivered_ids()]
    assert newest == (max(ids) if ids else None)


@pytest.mark.parametrize("name", LASTING)
async def test_all_of_it_is_there_when_the_store_is_opened_again(name: str, tmp_path: Path) -> None:
    store = await STORES[name](tmp_path)
    await store.begin(5.0)
    await store.commit(Commit([ChunkCheckpoint(ONE, "a1:3")], b"12345678", [pending()], [letter()], {"a": "1"}))
    await store.finish()
    store.close()
    again = await STORES[name](tmp_path)
    assert (await again.progress()).chunks == {ONE: "a1:3"}
    assert (await again.start(), await again.delivered_ids(), await again.note("a")) == (5.0, [b"12345678"], "1")
    assert (await again.unfinished_recordings(), await again.dead_letters()) == ([pending()], 1)
    await again.finish()
    again.close()


@pytest.mark.parametrize("name", LASTING)
async def test_a_slow_state_does_not_hold_up_the_event_loop(name: str, tmp_path: Path) -> None:
    store = await STORES[name](tmp_path)
    writing = asyncio.create_task(store.commit(Commit(ids=b"12345678" * 250_000)))
    turns = 0
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    await store.finish()
    store.close()
