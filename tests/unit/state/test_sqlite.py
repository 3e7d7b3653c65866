"""The store remembers whole groups or nothing, and refuses a second process, a damaged file and a directory it
cannot write.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from time import time

import pytest

from event_handler.errors import StateError
from event_handler.ports import Commit, DeadLetter, RecordingItem
from event_handler.state import sqlite as store_module
from event_handler.state.sqlite import FINISHED_KEPT, SqliteStore
from tests.support.checkpoints import places, positions


def recording(session: str, *, uploaded: bool, due: float) -> RecordingItem:
    return RecordingItem(session, 1.0, uploaded, 0, due, 0)


def test_an_upload_that_is_read_again_and_again_does_not_bring_the_next_try_of_its_recording_forward(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path)
    upload = Commit(recordings=[recording("s", uploaded=True, due=0.0)])
    asyncio.run(store.commit(upload))
    asyncio.run(store.recording_later("s", 100.0, counted=True))
    asyncio.run(store.commit(upload))
    assert asyncio.run(store.due_recordings(50.0, 5)) == []


def test_a_recording_that_was_delivered_after_the_end_of_its_session_stays_finished_when_the_upload_comes(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path)
    asyncio.run(store.commit(Commit(recordings=[recording("s", uploaded=False, due=1.0)])))
    asyncio.run(store.recording_done("s"))
    asyncio.run(store.commit(Commit(recordings=[recording("s", uploaded=True, due=10.0)])))
    assert asyncio.run(store.waiting_recordings()) == (0, 0)


def test_a_second_process_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    SqliteStore(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom event_handler.state.sqlite import SqliteStore\n"
        "SqliteStore(Path(sys.argv[1]))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "another event handler (pid" in run.stderr


@pytest.mark.parametrize("damage", ["no database", "empty", "overwritten"])
def test_a_damaged_file_is_set_aside_and_never_means_from_now(tmp_path: Path, damage: str) -> None:
    store = SqliteStore(tmp_path)
    asyncio.run(store.commit(Commit(places({f"bulk/2026-01-01/{number}": "a1:1" for number in range(1000)}))))
    store.close()
    file = tmp_path / "state.db"
    whole = file.read_bytes()
    file.write_bytes(
        {"no database": b"a text " * 3000, "empty": b"", "overwritten": whole[:4096] + b"x" * 9000 + whole[13096:]}[
            damage
        ]
    )
    damaged = file.read_bytes()
    for _ in range(2):
        with pytest.raises(StateError, match=r"damaged and is set aside as .*--start-time"):
            SqliteStore(tmp_path)
    (aside,) = tmp_path.glob("state.db.damaged-*")
    assert aside.read_bytes() == damaged
    store = SqliteStore(tmp_path, begin_known=True)
    assert asyncio.run(positions(store, "bulk/")) == {}
    store.close()
    SqliteStore(tmp_path).close()


def test_a_state_that_was_moved_away_after_a_kill_does_not_come_back_out_of_its_log(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "working")
    for position in ("4.0", "5.0"):  # the first one goes into the file itself
        asyncio.run(store.commit(Commit(places({"search": position}))))
    shutil.copytree(tmp_path / "working", tmp_path / "killed")
    (tmp_path / "killed" / "state.db").rename(tmp_path / "moved away")
    fresh = SqliteStore(tmp_path / "killed")
    assert asyncio.run(positions(fresh, "search")) == {}
    (log,) = (tmp_path / "killed").glob("state.db.left-*-wal")
    assert log.stat().st_size


def test_a_group_that_found_no_room_is_remembered_when_there_is_some(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store._rows("PRAGMA max_page_count = 20")
    group = Commit(
        places({"search": "5.0"}), b"12345678", dead_letters=[DeadLetter("s", "r", "t", "u", "", b"x" * 200_000)]
    )
    for _ in range(2):
        with pytest.raises(StateError, match="database or disk is full"):
            asyncio.run(store.commit(group))
    assert asyncio.run(positions(store, "search")) == {}
    store._rows("PRAGMA max_page_count = 1000000")
    asyncio.run(store.commit(group))
    assert asyncio.run(positions(store, "search")) == {"search": "5.0"}
    assert asyncio.run(store.dead_letters()) == 1
    store.close()


def test_ids_are_remembered_up_to_their_number_and_the_oldest_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, groups = SqliteStore(tmp_path), [f"{number:08}".encode() for number in range(256)]
    for group in groups[:128]:
        asyncio.run(store.commit(Commit(ids=group)))
    assert list(asyncio.run(store.delivered_ids())) == groups[:128]
    monkeypatch.setattr(store_module, "REMEMBERED_IDS", 100)
    for group in groups[128:]:
        asyncio.run(store.commit(Commit(ids=group)))
    left = list(asyncio.run(store.delivered_ids()))
    assert left == groups[-len(left) :]
    assert 100 <= len(left) <= 101
    store.close()


def test_a_state_that_cannot_be_opened_is_not_taken_for_damaged(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StateError, match="unable to open"):
        SqliteStore(tmp_path, begin_known=True)
    assert not list(tmp_path.glob("state.db.damaged-*"))


def test_a_storage_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="not usable"):
        SqliteStore(tmp_path / "file" / "state")


@pytest.mark.parametrize("name", ["example.test", "a%2Fb", "what?#"])
def test_a_dry_run_reads_the_saved_state_and_changes_nothing(tmp_path: Path, name: str) -> None:
    store = SqliteStore(tmp_path / name)
    asyncio.run(store.commit(Commit(places({"search": "5.0"}))))
    store.close()
    dry = SqliteStore(None, copy_from=tmp_path / name / "state.db")
    assert asyncio.run(positions(dry)) == {"search": "5.0"}
    asyncio.run(dry.commit(Commit(places({"search": "6.0"}))))
    dry.close()
    assert asyncio.run(positions(SqliteStore(tmp_path / name))) == {"search": "5.0"}


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "state.db").stat().st_mode & 0o777 == 0o600


def test_a_group_writes_what_changed_however_much_is_remembered(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    asyncio.run(store.commit(Commit(places({f"bulk/2026-01-01/{number}": "done" for number in range(2000)}))))
    before = store._db.total_changes
    asyncio.run(store.commit(Commit(places({"bulk/2026-01-01/7": "a1:9"}), b"12345678")))
    assert store._db.total_changes - before == 2
    store.close()


async def test_recordings_that_were_finished_long_ago_are_forgotten_and_looking_for_due_ones_never_costs_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path)
    sessions = [f"s{number}" for number in range(3000)]
    await store.commit(Commit(recordings=[recording(session, uploaded=True, due=0.0) for session in sessions]))
    for session in sessions:
        await store.recording_done(session)
    steps: list[None] = []
    store._db.set_progress_handler(lambda: steps.append(None), 100)  # every hundred instructions of SQLite's
    assert await store.due_recordings(time(), 10) == []
    assert len(steps) < 5
    later = time() + FINISHED_KEPT + 1.0
    monkeypatch.setattr(store_module, "time", lambda: later)
    await store.recording_done("s0")
    assert store._rows("SELECT session_id FROM recordings") == [("s0",)]
    store.close()


def test_a_recording_that_was_given_up_and_forgotten_can_be_asked_for_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    asyncio.run(store.recording_again("s"))
    assert [
        (item.session_id, item.attempts, item.next_index) for item in asyncio.run(store.due_recordings(1.0, 5))
    ] == [("s", 0, 0)]
