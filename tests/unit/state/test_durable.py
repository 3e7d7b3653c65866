"""What says where to begin is in the file itself before anything is delivered, and a state that lost it is refused."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from event_handler.errors import StateError
from event_handler.go_plugin.import_state import import_state
from event_handler.ports import Commit
from event_handler.state.schema import CREATED
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import places, positions
from tests.unit.state.test_damage import OLD, START, fact, sql


def copied_without_log(store_directory: Path, to: Path) -> SqliteStore:
    """A state from a copy of the file alone, as a backup or a power cut leaves it."""
    to.mkdir()
    shutil.copy(store_directory / "state.db", to)
    return SqliteStore(to)


def test_a_copy_of_the_file_alone_knows_the_start_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "at work")
    asyncio.run(store.begin(START))
    for number in range(50):
        asyncio.run(store.commit(Commit(ids=f"{number:08}".encode())))
    copy = copied_without_log(tmp_path / "at work", tmp_path / "copy")
    assert asyncio.run(copy.begin(None)) == START


def test_a_copy_of_the_file_alone_knows_the_first_position(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "at work")
    asyncio.run(store.begin(START))
    asyncio.run(store.commit(Commit(places({"search": repr(START + 60)}))))
    copy = copied_without_log(tmp_path / "at work", tmp_path / "copy")
    assert asyncio.run(positions(copy)) == {"search": repr(START + 60)}


def test_a_position_that_was_taken_over_is_in_the_file_itself(tmp_path: Path) -> None:
    plugin = tmp_path / "auth.test_3025"
    plugin.mkdir()
    (plugin / "start_time").write_text("2026-11-21T00:00:00Z")
    store = SqliteStore(tmp_path / "at work")
    asyncio.run(import_state(store, tmp_path, [("auth.test", 3025)], None))
    assert asyncio.run(copied_without_log(tmp_path / "at work", tmp_path / "copy").begin(None)) == START


def test_a_damaged_log_is_as_good_as_none(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "at work")
    asyncio.run(store.begin(START))
    asyncio.run(store.commit(Commit(places({"search": repr(START)}))))
    asyncio.run(store.commit(Commit(places({"search": repr(START + 60)}))))
    shutil.copytree(tmp_path / "at work", tmp_path / "copy")
    log = tmp_path / "copy" / "state.db-wal"
    log.write_bytes(b"\0" * log.stat().st_size)
    again = SqliteStore(tmp_path / "copy")
    assert (asyncio.run(again.begin(None)), asyncio.run(positions(again, "search"))) == (START, {"search": repr(START)})


def test_a_first_start_that_was_cut_off_begins_when_it_did_and_not_now(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    fact(CREATED, f"'{START}'")(tmp_path / "state.db")
    assert asyncio.run(SqliteStore(tmp_path).begin(None)) == START


@pytest.mark.parametrize("plugin", [False, True])
def test_a_state_that_has_lost_its_start_time_is_refused_also_beside_a_position_of_the_plugin(
    tmp_path: Path, plugin: bool
) -> None:
    if plugin:
        (tmp_path / "auth.test_3025").mkdir()
        (tmp_path / "auth.test_3025" / "start_time").write_text("2026-11-21T00:00:00Z")
    (tmp_path / "state").mkdir()
    shutil.copy(OLD, tmp_path / "state" / "state.db")
    sql("DELETE FROM facts WHERE name = 'start_time'")(tmp_path / "state" / "state.db")
    store = SqliteStore(tmp_path / "state")
    asyncio.run(import_state(store, tmp_path, [("auth.test", 3025)], None))
    with pytest.raises(StateError, match=r"does not say where reading began.*--start-time at the last event"):
        asyncio.run(store.begin(None))
    assert asyncio.run(store.begin(START + 5)) == START + 5
    store.close()


def test_a_reader_puts_off_only_what_makes_the_file_last(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "at work")
    asyncio.run(store.begin(START))
    reader = SqliteStore.to_read(tmp_path / "at work" / "state.db")
    reader._db.execute("BEGIN")
    assert asyncio.run(positions(reader)) == {}
    asyncio.run(store.commit(Commit(places({"search": "1.0"}))))
    asyncio.run(store.commit(Commit(places({"search": "2.0"}))))
    reader.close()
    asyncio.run(store.commit(Commit(places({"search": "3.0"}))))
    assert asyncio.run(positions(copied_without_log(tmp_path / "at work", tmp_path / "copy"))) == {"search": "3.0"}
