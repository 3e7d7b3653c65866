"""The Go plugin's directory is read in every state that a crash may leave it in: what is doubtful counts as not
delivered.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from string import hexdigits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import StateError
from event_handler.go_plugin.read import (
    CHUNK_NAME,
    Day,
    Missing,
    newest_change,
    parse_completed,
    parse_index,
    parse_missing,
    parse_time,
    read,
)

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "storage"
SID = "f0cd9816-f5d3-4fc5-9700-e8730ecf6604"
START = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
DAY = date(2026, 11, 22)
A, B = "0193a1b2-0000-7000-8000-00000000000a", "0193a1b2-0000-7000-8000-00000000000b"
uuids = st.uuids().map(str)


def plugin(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in {"start_time": b"2026-11-21T00:00:00Z", **files}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def completed(directory: Path, content: bytes) -> tuple[Day, list[str]]:
    state = read(plugin(directory, {"cursor_v2/2026-11-22/completed-chunks": content}))
    assert state is not None
    return state.days[DAY], state.warnings


def test_a_search_position_is_read() -> None:
    state = read(GOLDEN / "legacy-after-all")
    assert state is not None
    assert (state.start_text, state.warnings) == ("2026-11-22T00:00:00Z", [])
    assert state.start_time == START + 86400
    assert state.page_key == "7609df7f-16a2-4544-b226-1a7a73f742c6/1795426578109000000"
    assert state.last_id == "79cc6d6d-0a2a-400d-8cd6-9dcb00191935"
    assert state.window == START + 2 * 86400
    assert not state.days


def test_a_bulk_position_in_the_middle_of_two_chunks_is_read() -> None:
    state = read(GOLDEN / "bulk-killed-mid-chunk")
    assert state is not None
    assert state.days == {
        date(2026, 11, 21): Day(frozenset({"0193a1b2-0000-7000-8000-00000000000c"})),
        DAY: Day(frozenset(), {A: "a1:9", B: "a1:9"}),
    }
    assert (state.start_time, state.warnings) == (START, [])


def test_a_finished_bulk_run_with_a_waiting_session_is_read() -> None:
    state = read(GOLDEN / "bulk-after-all")
    assert state is not None
    assert state.days[DAY] == Day(frozenset({A, B}))
    assert state.days[date(2026, 11, 23)] == Day()
    assert state.sessions == {SID: 0}


@pytest.mark.parametrize(
    "files", [{}, {"state.db": b"x", "lock": b"1"}, {"session": b"12345678"}, {"dry_run/77/start_time": b"x"}]
)
def test_a_directory_without_a_position_is_none(tmp_path: Path, files: dict[str, bytes]) -> None:
    plugin(tmp_path, files)
    (tmp_path / "start_time").unlink()
    assert read(tmp_path) is None
    assert newest_change(tmp_path) == 0.0
    assert read(tmp_path / "absent") is None


def test_a_day_counts_even_when_it_is_empty_and_all_that_is_left(tmp_path: Path) -> None:
    (tmp_path / "cursor_v2" / "2026-11-22").mkdir(parents=True)
    (tmp_path / "cursor_v2" / "2026-13-45").mkdir()
    (tmp_path / "cursor_v2" / "notes").mkdir()
    (tmp_path / "cursor_v2" / "2026-11-23").write_text("a file")
    state = read(tmp_path)
    assert state is not None
    assert state.days == {DAY: Day()}


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 20, b"2026-11-21T00:0", b"2026-11-21", b"yesterday", b"2026-11-31T00:00:00Z"]
)
def test_a_broken_start_time_is_unknown_and_never_now(tmp_path: Path, content: bytes) -> None:
    state = read(plugin(tmp_path, {"start_time": content}))
    assert state is not None
    assert state.start_time is None
    assert "is missing, empty or not a time" in state.warnings[0]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-21T00:00:00Z", START),
        ("2026-11-21T05:30:00+05:30", START),
        ("2026-11-21T00:00:00.123456789Z", START + 0.123456),
        ("0001-01-01T00:00:00Z", None),
        ("2026-11-21T00:00:00", None),
    ],
)
def test_times_are_instants(text: str, instant: float | None) -> None:
    assert parse_time(text) == instant


def test_whole_lines_are_the_names_of_delivered_chunks(tmp_path: Path) -> None:
    assert completed(tmp_path, b"chunkA\nchunkB\n") == (Day(frozenset({"chunkA", "chunkB"})), [])


def test_a_torn_last_line_is_taken_only_when_it_is_whole(tmp_path: Path) -> None:
    assert completed(tmp_path / "whole", f"{A}\n{B}".encode()) == (Day(frozenset({A, B})), [])
    day, warnings = completed(tmp_path / "torn", f"{A}\n{B[:30]}".encode())
    assert day == Day(frozenset({A}))
    assert "such a chunk is read again" in warnings[0]
    assert completed(tmp_path / "opaque", b"chunkA\nchunkB")[0] == Day(frozenset({"chunkA"}))


@pytest.mark.parametrize("length", range(1, 36))
def test_a_name_glued_to_a_torn_one_is_taken_out(length: int) -> None:
    assert parse_completed(f"{A[:length]}{B}\n".encode()) == (frozenset({B}), [A[:length]])


def test_two_whole_names_without_a_line_end_between_are_both_taken() -> None:
    assert parse_completed(f"{A}{B}\n".encode()) == (frozenset({A, B}), [])


@pytest.mark.parametrize("word", ["../../etc/passwd", "a\0b", "-x", "ü", "n" * 256, f"{A[:9]}\0\0{B}"])
def test_names_with_odd_characters_are_refused(word: str) -> None:
    assert parse_completed(f"{word}\n{A}\n".encode()) == (frozenset({A}), [word])


@given(st.lists(uuids, unique=True))
def test_every_file_that_was_written_whole_is_read_whole(names: list[str]) -> None:
    assert parse_completed("".join(f"{name}\n" for name in names).encode()) == (frozenset(names), [])


@given(st.lists(uuids, unique=True, min_size=1), st.data())
def test_a_file_torn_anywhere_never_tells_of_a_chunk_that_is_not_in_it(names: list[str], data: st.DataObject) -> None:
    whole = "".join(f"{name}\n" for name in names)
    cut = data.draw(st.integers(0, len(whole)))
    more = data.draw(uuids)
    assert parse_completed(whole[:cut].encode())[0] == frozenset(names[: (cut + 1) // 37])
    found, _ = parse_completed(f"{whole[:cut]}{more}\n".encode())
    assert found == frozenset([*names[: (cut + 1) // 37], more])


@given(st.binary())
def test_any_bytes_give_usable_names_only(content: bytes) -> None:
    assert all(CHUNK_NAME.fullmatch(name) for name in parse_completed(content)[0])


def test_a_cursor_beside_a_completed_entry_is_stale(tmp_path: Path) -> None:
    day = "cursor_v2/2026-11-22"
    state = read(plugin(tmp_path, {f"{day}/completed-chunks": f"{A}\n".encode(), f"{day}/{A}.chunk": b"a1:9"}))
    assert state is not None
    assert state.days[DAY] == Day(frozenset({A}))


@pytest.mark.parametrize(
    ("name", "content", "warned"),
    [
        (f"{A}.chunk", b"", False),
        (f"{A}.chunk", b" \n", False),
        (f"{A}.chunk", b"\0\0\0\0", True),
        ("-rf.chunk", b"a1:1", True),
    ],
)
def test_a_chunk_file_without_a_usable_cursor_means_the_start(
    tmp_path: Path, name: str, content: bytes, warned: bool
) -> None:
    state = read(plugin(tmp_path, {f"cursor_v2/2026-11-22/{name}": content, "cursor_v2/2026-11-22/other": b"x"}))
    assert state is not None
    assert state.days[DAY] == Day()
    assert bool(state.warnings) == warned


def test_damaged_search_files_are_not_used(tmp_path: Path) -> None:
    state = read(plugin(tmp_path, {"cursor": b"\0\0", "id": b"a\nb", "window_time": b"2026-11-2"}))
    assert state is not None
    assert (state.page_key, state.last_id, state.window) == ("", "", None)
    assert len(state.warnings) == 3


@given(st.integers(0, 2**63 - 1))
def test_an_index_is_eight_bytes_most_significant_first(index: int) -> None:
    assert parse_index(index.to_bytes(8, "big")) == index


@given(
    st.binary().filter(lambda data: len(data) != 8) | st.binary(min_size=7, max_size=7).map(lambda rest: b"\xff" + rest)
)
def test_any_other_index_is_unknown(data: bytes) -> None:
    assert parse_index(data) is None


def test_sessions_with_a_wrong_size_start_anew_and_odd_names_are_refused(tmp_path: Path) -> None:
    good = (13).to_bytes(8, "big")
    state = read(
        plugin(
            tmp_path, {f"session{SID}": good, "sessionb": b"", "sessionc": b"123", "session": good, "session..x": good}
        )
    )
    assert state is not None
    assert state.sessions == {SID: 13, "b": 0, "c": 0}
    assert len(state.warnings) == 3


def test_what_a_dry_run_left_behind_is_ignored(tmp_path: Path) -> None:
    state = read(plugin(tmp_path, {f"dry_run/77/session{SID}": b"12345678", f"dry_run/missing_recording{SID}": b"{}"}))
    assert state is not None
    assert (state.sessions, state.missing) == ({}, {})


def test_missing_recordings_keep_index_attempt_and_time(tmp_path: Path) -> None:
    text = b'{"Index":0,"Attempt":2,"Timestamp":"2026-11-21T00:00:00.5Z"}'
    state = read(
        plugin(tmp_path, {f"missing_recording{SID}": text, "missing_recordingb": b"", "missing_recording": text})
    )
    assert state is not None
    assert state.missing == {SID: Missing(0, 2, START + 0.5), "b": Missing()}
    assert len(state.warnings) == 2


@given(st.integers(0, 2**31), st.integers(0, 5), st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1)))
def test_every_missing_recording_that_the_plugin_writes_is_read(index: int, attempt: int, moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    written = json.dumps({"Index": index, "Attempt": attempt, "Timestamp": aware.isoformat().replace("+00:00", "Z")})
    assert parse_missing(written.encode()) == Missing(index, attempt, aware.timestamp())


@given(st.binary() | st.text(hexdigits + '{}[]":,').map(str.encode))
def test_any_other_bytes_are_no_missing_recording(data: bytes) -> None:
    assert parse_missing(data) is None


def test_a_file_that_cannot_be_looked_at_is_an_error_that_names_it(tmp_path: Path) -> None:
    plugin(tmp_path, {})
    (tmp_path / "start_time").unlink()
    (tmp_path / "cursor_v2").mkdir()
    (tmp_path / "cursor_v2" / "2026-11-22").mkdir()
    (tmp_path / "cursor_v2" / "2026-11-22" / f"{A}.chunk").symlink_to(tmp_path / "loop")
    (tmp_path / "loop").symlink_to(tmp_path / "cursor_v2" / "2026-11-22" / f"{A}.chunk")
    with pytest.raises(StateError, match=r"cannot be read \(.*\.chunk: "):
        newest_change(tmp_path)
