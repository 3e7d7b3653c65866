"""The Go plugin's position becomes ours at the first start: never later than what was delivered, and not a file of it
is touched.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from event_handler.checkpoint import DONE, Chunk, Mode, Progress
from event_handler.errors import StateError
from event_handler.go_plugin.import_state import convert, import_state
from event_handler.go_plugin.page_key import page_key_time
from event_handler.go_plugin.read import Day, Missing, PluginState
from event_handler.ports import Commit, RecordingItem
from event_handler.state.keys import CLOSED_DAYS, FIRST_DAY, FLOOR, LAST_ID
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import positions, read_position

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "storage"
ADDRESSES = [("teleport.example.com", 443)]
DIRECTORY = "teleport.example.com_443"
SID = "f0cd9816-f5d3-4fc5-9700-e8730ecf6604"
START = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
NOW = START + 5 * 86400
A, B, C = (f"0193a1b2-0000-7000-8000-00000000000{end}" for end in "abc")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "example.test")
    yield made
    made.close()


def golden(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / DIRECTORY
    shutil.copytree(GOLDEN / name, directory)
    return directory


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


def state(**more: Any) -> PluginState:
    return PluginState(start_time=START, start_text="2026-11-21T00:00:00Z", **more)


def test_a_bulk_position_in_the_middle_of_chunks_goes_on_there(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-killed-mid-chunk")
    before = files(directory)
    with capture_logs() as lines:
        asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    assert asyncio.run(positions(store, "bulk/")) == {
        f"bulk/2026-11-21/{C}": DONE,
        f"bulk/2026-11-22/{A}": "a1:9",
        f"bulk/2026-11-22/{B}": "a1:9",
    }
    assert [asyncio.run(store.note(name)) for name in ("start_time", "mode", FIRST_DAY, CLOSED_DAYS)] == [
        str(START),
        "bulk",
        "2026-11-21",
        "",
    ]
    assert asyncio.run(store.progress()).polled_since == START
    assert files(directory) == before
    assert [line["event"] for line in lines] == ["position of the Go plugin taken over; its files stay as they are"]
    assert (lines[0]["chunks_done"], lines[0]["chunks_begun"], lines[0]["from_day"]) == (1, 2, "2026-11-21")


def test_a_session_that_waits_is_fetched_at_once(tmp_path: Path, store: SqliteStore) -> None:
    golden(tmp_path, "bulk-after-all")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    (item,) = asyncio.run(store.due_recordings(1.0, 10))
    assert (item.session_id, item.uploaded, item.attempts, item.next_index) == (SID, True, 0, 0)


def test_a_search_position_goes_on_at_the_page_of_the_last_event(tmp_path: Path, store: SqliteStore) -> None:
    golden(tmp_path, "legacy-after-all")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    last_of_the_page_before = 1795426578.109
    position = asyncio.run(read_position(store))
    assert position is not None
    assert last_of_the_page_before - 0.003 < position < last_of_the_page_before
    assert float(asyncio.run(store.note(FLOOR))) == position
    assert asyncio.run(store.note(LAST_ID)) == "79cc6d6d-0a2a-400d-8cd6-9dcb00191935"
    assert asyncio.run(store.note("mode")) == "search"


def test_the_position_is_taken_over_once_only(tmp_path: Path, store: SqliteStore) -> None:
    golden(tmp_path, "bulk-after-all")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    asyncio.run(store.commit(Commit(progress=Progress(Mode.BULK))))
    with capture_logs() as lines:
        asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    assert asyncio.run(positions(store, "bulk/")) == {}
    assert lines == []


def test_a_plugin_that_has_worked_since_is_told_of_once(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-after-all")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    (directory / "sessionb").write_bytes(bytes(8))
    with capture_logs() as lines:
        asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
        asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    assert [line["event"][:27] for line in lines] == ["the Go plugin has worked si"]


def test_an_empty_storage_takes_nothing_over(tmp_path: Path, store: SqliteStore) -> None:
    with capture_logs() as lines:
        asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    assert (asyncio.run(store.note("start_time")), lines) == ("", [])


def test_the_directory_of_another_address_is_named_and_not_used(tmp_path: Path, store: SqliteStore) -> None:
    golden(tmp_path, "bulk-after-all")
    with capture_logs() as lines:
        asyncio.run(import_state(store, tmp_path, [("auth.example.com", 3025)], None))
    assert asyncio.run(store.note("start_time")) == ""
    assert lines[0]["directories"] == [DIRECTORY]


def test_a_start_time_with_half_an_hour_of_offset_is_the_same_instant(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-after-all")
    (directory / "start_time").write_text("2026-11-21T05:30:00+05:30")
    asyncio.run(
        import_state(store, tmp_path, ADDRESSES, datetime(2026, 11, 21, 5, 30, tzinfo=timezone(timedelta(hours=5.5))))
    )
    assert float(asyncio.run(store.note("start_time"))) == START


def test_another_start_time_than_the_plugins_is_refused_before_anything_is_taken(
    tmp_path: Path, store: SqliteStore
) -> None:
    golden(tmp_path, "bulk-after-all")
    with pytest.raises(
        StateError, match=r"differs from the one that the Go plugin began with \(2026-11-21T00:00:00Z in .*move .* away"
    ):
        asyncio.run(import_state(store, tmp_path, ADDRESSES, datetime(2026, 11, 22, tzinfo=UTC)))
    assert asyncio.run(store.note("start_time")) == ""


def test_a_lost_start_time_is_taken_from_the_first_day(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-after-all")
    (directory / "start_time").write_bytes(b"")
    with capture_logs() as lines:
        asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    assert float(asyncio.run(store.note("start_time"))) == START
    assert "the earliest in the other files" in str([line["event"] for line in lines])


def test_a_lost_start_time_is_taken_from_the_search(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "legacy-after-all")
    (directory / "start_time").unlink()
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    assert float(asyncio.run(store.note("start_time"))) == START + 2 * 86400


def test_a_lost_start_time_that_is_given_is_used(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-after-all")
    (directory / "start_time").write_bytes(b"2026-11-2")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, datetime(2026, 11, 20, tzinfo=UTC)))
    assert float(asyncio.run(store.note("start_time"))) == START - 86400
    assert asyncio.run(store.note(FIRST_DAY)) == "2026-11-21"


def test_a_start_time_that_nothing_tells_is_an_error_and_not_now(tmp_path: Path, store: SqliteStore) -> None:
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / "start_time").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StateError, match=r"start_time is missing or damaged.*Start once with --start-time"):
            asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    asyncio.run(import_state(store, tmp_path, ADDRESSES, datetime(2026, 11, 21, tzinfo=UTC)))
    assert float(asyncio.run(store.note("start_time"))) == START


def test_a_plugin_that_never_read_anything_leaves_its_start_time_only() -> None:
    taken = convert(state(), START, NOW)
    assert taken.progress is None


def test_days_that_the_plugin_finished_and_removed_stay_finished() -> None:
    days = {date(2026, 11, day): Day(frozenset({A})) for day in (21, 24, 25)}
    taken = convert(state(days=days), START, NOW)
    assert taken.progress is not None
    assert taken.progress.first_day == date(2026, 11, 21)
    assert taken.progress.closed_days == {date(2026, 11, 22), date(2026, 11, 23)}


def test_the_day_of_the_start_counts_and_days_before_it_do_not() -> None:
    days = {date(2026, 11, 20): Day(), date(2026, 11, 21): Day(frozenset({A}))}
    progress = convert(state(days=days), START + 3600, NOW).progress
    assert progress is not None
    assert progress.first_day == date(2026, 11, 21)


def test_a_cursor_that_reads_like_our_own_mark_does_not_end_a_chunk() -> None:
    taken = convert(state(days={date(2026, 11, 21): Day(frozenset(), {A: DONE, B: "a1:1"})}), START, NOW)
    assert taken.progress is not None
    assert taken.progress.chunks == {Chunk(date(2026, 11, 21), B): "a1:1"}


@pytest.mark.parametrize("page_key", ["", "7609df7f", f"x/{int(NOW + 90000) * 10**9}", "x/17954"])
def test_without_a_usable_page_key_the_window_begins_again(page_key: str) -> None:
    taken = convert(state(page_key=page_key, last_id="x", window=START + 86400), START, NOW)
    assert taken.progress is not None
    assert taken.progress.searched == START + 86400


def test_without_page_key_and_window_the_search_begins_again() -> None:
    plugin = state(last_id="x")
    progress = convert(plugin, START, NOW).progress
    assert progress is not None
    assert progress.searched == START
    assert "begins again at the start time" in plugin.warnings[0]


def test_recordings_keep_index_attempts_and_time() -> None:
    plugin = state(sessions={"a": 13, "b": 2}, missing={"b": Missing(0, 2, START), "c": Missing(5, 1, None)})
    assert sorted(convert(plugin, START, NOW).recordings, key=lambda item: item.session_id) == [
        RecordingItem("a", NOW, True, 0, 0.0, 13),
        RecordingItem("b", START, True, 2, 0.0, 2),
        RecordingItem("c", NOW, True, 1, 0.0, 5),
    ]


TIME = 1_795_426_578


@pytest.mark.parametrize(
    ("key", "seconds"),
    [
        (f"{SID}/{TIME}109000000", TIME + 0.109),
        (SID, None),
        (f"{TIME}:Doc-1", TIME),
        (base64.urlsafe_b64encode(struct.pack("<q", TIME * 10**6 + 5) + UUID(SID).bytes).decode(), TIME + 5e-6),
        (
            json.dumps(
                {"date": "2026-11-23", "iterator": json.dumps({"SessionID": SID, "EventIndex": 0, "CreatedAt": TIME})}
            ),
            TIME,
        ),
        (json.dumps({"date": "2026-11-23", "iterator": {"CreatedAt": {"N": str(TIME)}}}), TIME),
        (json.dumps({"date": "2026-11-23", "iterator": ""}), None),
        ("", None),
    ],
)
def test_the_page_keys_of_every_back_end_tell_their_time(key: str, seconds: float | None) -> None:
    found = page_key_time(key)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


@given(st.text() | st.from_regex(r'\{"iterator": ?[^"]{0,20}\}', fullmatch=True))
def test_no_page_key_is_an_error(key: str) -> None:
    page_key_time(key)


@given(st.integers(int(START) * 10**9, int(NOW) * 10**9))
def test_the_position_is_before_the_page_and_close_to_it(nanoseconds: int) -> None:
    taken = convert(state(page_key=f"x/{nanoseconds}", window=START), START, NOW)
    assert taken.progress is not None
    assert taken.progress.searched is not None
    assert 0.0009 < nanoseconds / 1e9 - taken.progress.searched < 0.0021
