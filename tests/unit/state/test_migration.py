"""A state of an older release goes on: nothing of it is lost, it becomes this version at once, and a newer one is
refused.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from event_handler.checkpoint import DONE, Chunk, Mode, Progress
from event_handler.cli import cli
from event_handler.errors import StateError
from event_handler.ports import Commit, DeadLetter, RecordingItem
from event_handler.state import schema
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import positions
from tests.unit.state.test_damage import OLD, START


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A state file as the release before schema 2 left it."""
    path = tmp_path / "example.test" / "fluentd" / "state.db"
    path.parent.mkdir(parents=True)
    shutil.copy(OLD, path)
    return path


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_everything_that_an_older_release_remembered_is_there(old: Path) -> None:
    store = SqliteStore(old.parent)
    assert asyncio.run(store.begin(None)) == START
    assert asyncio.run(store.note("schema")) == str(schema.VERSION)
    assert asyncio.run(positions(store, "bulk/")) == {"bulk/2026-11-21/c1": "done", "bulk/2026-11-21/c2": "a1:3"}
    assert list(asyncio.run(store.delivered_ids())) == [b"12345678" * 3]
    assert asyncio.run(store.due_recordings(1_795_255_400.0, 5)) == [
        RecordingItem("s1", 1_795_255_200.0, True, 0, 1_795_255_300.0, 4)
    ]
    assert asyncio.run(store.dead_letter_totals()) == (
        5,
        store._rows("SELECT sum(length(body)) FROM dead_letters")[0][0],
    )
    assert [(number, letter.id, letter.time) for number, letter in asyncio.run(store.dead_letters_to_retry())] == [
        (1, "u1", None)
    ]
    assert asyncio.run(store.note("locks")) == ""
    rows = store._rows("SELECT id, moment, who FROM failed_logins ORDER BY id")
    assert rows == [("e1", 1_795_255_200.0, "alice"), ("e2", 1_795_255_201.0, "alice"), ("e3", 1_795_255_202.0, "")]
    assert store._rows("SELECT user, login FROM locks_to_make") == [("bob", "")]
    store.close()


def of_release_0_1(tmp_path: Path, mode: str) -> SqliteStore:
    shutil.copy(OLD.with_name(f"schema-2-{mode}.db"), tmp_path / "state.db")
    return SqliteStore(tmp_path)


async def test_a_bulk_position_of_release_0_1_goes_on(tmp_path: Path) -> None:
    store = of_release_0_1(tmp_path, "bulk")
    days = [date(2026, 11, day) for day in (21, 22, 23)]
    assert await store.progress() == Progress(
        Mode.BULK,
        first_day=days[0],
        closed_days=frozenset(days[1:]),
        chunks={Chunk(days[0], "c1"): DONE, Chunk(days[0], "c2"): "a1:3"},
    )
    store.close()


async def test_a_search_position_of_release_0_1_goes_on(tmp_path: Path) -> None:
    store = of_release_0_1(tmp_path, "search")
    assert await store.progress() == Progress(Mode.SEARCH, START + 60.25, START + 5, "79cc6d6d")
    store.close()


@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_all_else_of_release_0_1_is_there(tmp_path: Path, mode: str) -> None:
    store = of_release_0_1(tmp_path, mode)
    await store.claim("example.test")
    assert (await store.start(), await store.is_new()) == (START, False)
    assert await store.delivered_ids() == [b"12345678" * 3]
    assert await store.unfinished_recordings() == [RecordingItem("s1", START + 10, True, 0, START + 20, 4)]
    assert await store.dead_letter_totals() == (1, len(b'{"uid":"u1"}'))
    assert await store.note("filters") == '{"types": []}'
    assert (await store.failed_logins_of("alice"), await store.locks_due()) == ([START + 1], [("bob", "")])
    store.close()


def test_an_older_state_can_be_looked_at_without_a_change(old: Path) -> None:
    before = dump(old)
    for command in (["storage", "show"], ["dead-letter", "list"]):
        result = CliRunner().invoke(cli, [*command, f"--storage={old.parents[2]}"], standalone_mode=False)
        assert result.exception is None, result.output
    assert dump(old) == before
    SqliteStore(None, copy_from=old).close()
    assert dump(old) == before


def test_a_migration_that_fails_leaves_the_state_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(old)
    monkeypatch.setattr(schema, "_SECOND", (*schema._SECOND, "CREATE TABLE broken"))
    with pytest.raises(StateError, match="incomplete input"):
        SqliteStore(old.parent)
    assert dump(old) == before


def test_a_state_that_the_older_release_has_worked_on_again_is_brought_up_again(old: Path) -> None:
    store = SqliteStore(old.parent)
    asyncio.run(store.commit(Commit(dead_letters=[DeadLetter("fluentd", "no", "t", "u6", "", b"{}", 7.0, 3)])))
    store.close()
    with closing(sqlite3.connect(old)) as database, database:  # the words of the older release
        database.execute("INSERT OR REPLACE INTO facts VALUES ('schema', '1')")
        database.execute(
            "INSERT INTO dead_letters (time, sink, reason, type, id, session_id, body) VALUES (5.0, 'f', 'r', 't', "
            "'u7', '', x'7b7d')"
        )
    store = SqliteStore(old.parent)
    assert asyncio.run(store.dead_letter_totals())[0] == 7
    assert store._rows("SELECT id, event_time, event_index FROM dead_letters WHERE number > 5") == [
        ("u6", 7.0, 3),
        ("u7", None, 0),
    ]
    store.close()


def test_a_newer_state_is_refused_and_not_touched(old: Path) -> None:
    with closing(sqlite3.connect(old)) as database, database:
        database.execute("UPDATE facts SET value = '3' WHERE name = 'schema'")
    before = dump(old)
    with pytest.raises(StateError, match=r"written by a newer version of this program \(schema 3; this one knows 2\)"):
        SqliteStore(old.parent, begin_known=True)
    assert dump(old) == before
