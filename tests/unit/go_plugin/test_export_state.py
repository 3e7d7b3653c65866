"""The position is given back in the Go plugin's format, byte by byte, and taken over again it is the same position."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.checkpoint import DONE
from event_handler.errors import StateError
from event_handler.go_plugin.export_state import as_plugin_state, export_state
from event_handler.go_plugin.import_state import convert, import_state
from event_handler.go_plugin.read import Day, Missing, read
from event_handler.ports import Commit, RecordingItem
from event_handler.state.keys import CLOSED_DAYS, FIRST_DAY
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import places
from tests.unit.go_plugin.test_import_state import ADDRESSES, DIRECTORY, NOW, SID, START, golden, state

A, B = (f"0193a1b2-0000-7000-8000-00000000000{end}" for end in "ab")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "example.test")
    yield made
    made.close()


def below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def bulk_position(store: SqliteStore) -> None:
    positions = {
        f"bulk/2026-11-21/{A}": DONE,
        f"bulk/2026-11-21/{B}": "a1:9",
        f"bulk/2026-11-24/{A}": DONE,
        "bulk/2026-11-24/x/y": DONE,
    }
    facts = {"mode": "bulk", FIRST_DAY: "2026-11-21", CLOSED_DAYS: "2026-11-23"}
    recordings = [RecordingItem("waits", START, True, 0, 0.0, 0), RecordingItem("begun", START, True, 2, 9e9, 13)]
    recordings += [
        RecordingItem("missing", START + 0.5, True, 7, 9e9, 0),
        RecordingItem("done", START, True, 0, 0.0, 5),
    ]
    asyncio.run(store.commit(Commit(places(positions), recordings=recordings, notes=facts, start=START)))
    asyncio.run(store.recording_done("done"))


def test_every_file_has_the_plugins_name_and_bytes(tmp_path: Path, store: SqliteStore) -> None:
    bulk_position(store)
    given_back, kept = asyncio.run(export_state(store, tmp_path / DIRECTORY, force=False))
    assert below(tmp_path / DIRECTORY) == {
        "start_time": b"2026-11-21T00:00:00Z",
        "cursor_v2/2026-11-21/completed-chunks": f"{A}\n".encode(),
        f"cursor_v2/2026-11-21/{B}.chunk": b"a1:9",
        "cursor_v2/2026-11-22/completed-chunks": b"",
        "cursor_v2/2026-11-24/completed-chunks": f"{A}\n".encode(),
        "sessionwaits": bytes(8),
        "sessionbegun": b"\0\0\0\0\0\0\0\r",
        "missing_recordingmissing": b'{"Index":0,"Attempt":3,"Timestamp":"2026-11-21T00:00:00.500000Z"}',
    }
    assert kept is None
    assert "'x/y'" in given_back.warnings[0]


@pytest.mark.parametrize("name", ["bulk-killed-mid-chunk", "bulk-after-all"])
def test_what_was_taken_over_is_given_back_to_the_byte(tmp_path: Path, store: SqliteStore, name: str) -> None:
    directory = golden(tmp_path, name)
    if name == "bulk-after-all":  # the last day has no chunks yet: the plugin goes on to it by itself
        shutil.rmtree(directory / "cursor_v2" / "2026-11-23")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    asyncio.run(export_state(store, tmp_path / "back", force=False))
    assert below(tmp_path / "back") == below(directory)


def test_a_search_is_given_back_as_the_begin_of_a_window(tmp_path: Path, store: SqliteStore) -> None:
    asyncio.run(store.commit(Commit(places({"search": repr(START + 5.75)}), notes={"mode": "search"}, start=START)))
    asyncio.run(export_state(store, tmp_path / DIRECTORY, force=False))
    found = below(tmp_path / DIRECTORY)
    assert found == {
        "start_time": b"2026-11-21T00:00:00Z",
        "cursor": b"",
        "id": b"",
        "window_time": b"2026-11-21T00:00:05Z",
    }
    plugin = read(tmp_path / DIRECTORY)
    assert plugin is not None
    progress = convert(plugin, START, NOW).progress
    assert progress is not None
    assert progress.searched == START + 5


def test_the_start_time_keeps_the_zone_that_the_plugin_compares(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-after-all")
    (directory / "start_time").write_text("2026-11-21T02:00:00+02:00")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    assert asyncio.run(as_plugin_state(store)).start_text == "2026-11-21T02:00:00+02:00"


def test_files_that_were_taken_over_are_replaced_and_kept_beside(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-killed-mid-chunk")
    before = below(directory)
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    asyncio.run(store.commit(Commit(places({f"bulk/2026-11-22/{A}": DONE}))))
    for _ in range(2):
        _, kept = asyncio.run(export_state(store, directory, force=False))
        assert kept is not None
    first = min(tmp_path.glob(f"{DIRECTORY}.before-export-*"))
    assert below(first) == before
    assert not (directory / "cursor_v2" / "2026-11-22" / f"{A}.chunk").exists()
    assert (directory / "cursor_v2" / "2026-11-22" / "completed-chunks").read_text() == f"{A}\n"


def test_a_newer_state_of_the_plugin_is_replaced_by_force_only(tmp_path: Path, store: SqliteStore) -> None:
    directory = golden(tmp_path, "bulk-after-all")
    asyncio.run(import_state(store, tmp_path, ADDRESSES, None))
    (directory / f"session{SID}").unlink()
    (directory / "sessionnew").write_bytes(bytes(8))
    for _ in range(2):
        with pytest.raises(StateError, match="newer than what was taken over"):
            asyncio.run(export_state(store, directory, force=False))
    asyncio.run(export_state(store, directory, force=True))
    assert (directory / f"session{SID}").exists()


def test_a_directory_of_something_else_is_refused_even_by_force(tmp_path: Path, store: SqliteStore) -> None:
    bulk_position(store)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(StateError, match="other files than those of the Go plugin"):
        asyncio.run(export_state(store, tmp_path / "photos", force=True))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path, store: SqliteStore) -> None:
    bulk_position(store)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="could not be written to"):
        asyncio.run(export_state(store, tmp_path / "file" / DIRECTORY, force=False))


def test_before_the_first_start_there_is_nothing_to_give_back(tmp_path: Path, store: SqliteStore) -> None:
    with pytest.raises(StateError, match="no position yet"):
        asyncio.run(export_state(store, tmp_path / DIRECTORY, force=False))
    assert not (tmp_path / DIRECTORY).exists()


days = st.dictionaries(
    st.integers(0, 4).map(lambda n: date(2026, 11, 21) + timedelta(days=n)),
    st.tuples(
        st.sets(st.uuids().map(str)), st.dictionaries(st.uuids().map(str), st.integers(0, 10**6).map("a1:{}".format))
    ).map(lambda both: Day(frozenset(both[0]), both[1])),
    min_size=1,
)
sessions = st.dictionaries(st.uuids().map(str), st.integers(0, 2**31))
times = st.integers(int(START), int(NOW)).map(float)
missing = st.dictionaries(st.uuids().map(str), st.builds(Missing, st.just(0), st.integers(1, 3), times))


@given(days, sessions, missing)
def test_any_position_of_the_plugin_survives_the_way_there_and_back(
    days: dict[date, Day], sessions: dict[str, int], missing: dict[str, Missing]
) -> None:
    taken = convert(state(days=days, sessions=sessions, missing=missing), START, NOW)
    store = SqliteStore(None)
    asyncio.run(store.commit(taken))
    back = asyncio.run(as_plugin_state(store))
    store.close()
    again = convert(back, START, NOW)
    assert (again.progress, again.start, again.notes) == (taken.progress, taken.start, taken.notes)
    assert sorted(again.recordings, key=repr) == sorted(taken.recordings, key=repr)
