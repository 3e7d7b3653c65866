"""Whatever is wrong with a state file, each command tells which file it is and what to do, and none begins at "now"."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from event_handler.cli import cli
from event_handler.errors import StateError
from event_handler.ports import Commit, DeadLetter, RecordingItem
from event_handler.state.checks import _FACTS
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import places, positions
from tests.unit.go_plugin.test_export_state import bulk_position

pytestmark = pytest.mark.proof

START = 1_795_219_200.0  # 2026-11-21
OLD = Path(__file__).parents[2] / "data" / "state" / "schema-1.db"  # written by the release before schema 2
DIRECTORY = Path("example.test", "fluentd")
SHOW, EXPORT = ("storage", "show"), ("storage", "export", "--teleport-addr=a:1")
LETTER_COMMANDS = (("dead-letter", "list"), ("dead-letter", "retry", "--all"), ("dead-letter", "drop", "--all"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state file that was used, and that no process works on."""
    store = SqliteStore(tmp_path / DIRECTORY)
    asyncio.run(store.claim("example.test"))
    bulk_position(store)
    letter = DeadLetter("fluentd", "refused", "user.login", "u", "", b'{"uid":"u"}', START, 0)
    notes = {"bulk_closed": "2026-11-20", "search_floor": str(START), "plugin_seen": str(START)}
    recording = RecordingItem("s", START, True, 0, 0.0, 0)
    asyncio.run(store.commit(Commit(places({"search": str(START)}), b"12345678" * 600, [recording], [letter], notes)))
    store._rows("INSERT INTO failed_logins VALUES ('e', 5.0, 'alice')")
    store.close()
    return tmp_path / DIRECTORY / "state.db"


def sql(statement: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(statement)

    return damage


def fact(name: str, value: str) -> Callable[[Path], None]:
    return sql(f"INSERT OR REPLACE INTO facts VALUES ('{name}', {value})")  # noqa: S608 - a test's own words


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def text(path: Path) -> None:
    path.write_text("no database " * 1000)


def overwritten(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"x" * 9000 + whole[13096:])


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "disk that is not mounted" / "state.db")


def foreign(path: Path) -> None:
    path.unlink()
    sql("CREATE TABLE others (name TEXT)")(path)


def old_locks(path: Path) -> None:
    shutil.copy(OLD, path)
    fact("locks", "'{\"seen\": 5}'")(path)


ANYTHING = (SHOW, EXPORT, *LETTER_COMMANDS)
DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[tuple[str, ...], ...]]] = {
    "empty": (cut(0), ANYTHING),
    "cut in the header": (cut(60), ANYTHING),
    "cut behind the header": (cut(100), ANYTHING),
    "cut in half": (half, (EXPORT,)),
    "text": (text, ANYTHING),
    "overwritten": (overwritten, (EXPORT,)),
    "directory": (directory, ANYTHING),
    "pipe": (pipe, ANYTHING),
    "link to nowhere": (nowhere, ANYTHING),
    "of another program": (foreign, ANYTHING),
    "a table is missing": (sql("DROP TABLE positions"), ANYTHING),
    "a column is missing": (sql("ALTER TABLE dead_letters DROP COLUMN reason"), ANYTHING),
    "a newer schema": (fact("schema", "'99'"), ANYTHING),
    "a schema that is no number": (fact("schema", "'two'"), ANYTHING),
    "a negative schema": (fact("schema", "'-1'"), ANYTHING),
    "start time: text": (fact("start_time", "'yesterday'"), (SHOW, EXPORT)),
    "start time: not a number": (fact("start_time", "'nan'"), (SHOW, EXPORT)),
    "start time: too late": (fact("start_time", "'1e300'"), (SHOW, EXPORT)),
    "start time: missing": (sql("DELETE FROM facts WHERE name = 'start_time'"), (SHOW, EXPORT)),
    "start time: empty": (fact("start_time", "''"), (SHOW, EXPORT)),
    "start time: bytes": (fact("start_time", "x'00ff'"), (SHOW, EXPORT)),
    "start time: damaged text": (fact("start_time", "CAST(x'ff31' AS TEXT)"), (SHOW, EXPORT)),
    "no fact at all": (sql("DELETE FROM facts"), (SHOW, EXPORT)),
    "first day": (fact("bulk_from", "'2026-13-01'"), (SHOW, EXPORT)),
    "closed days": (fact("bulk_closed", "'2026-11-20 x'"), (SHOW, EXPORT)),
    "mode": (fact("mode", "'odd'"), (SHOW, EXPORT)),
    "floor of the search": (fact("search_floor", "'x'"), (SHOW, EXPORT)),
    "time of the plugin's files": (fact("plugin_seen", "'x'"), (SHOW, EXPORT)),
    "failed logins of schema 1": (old_locks, (SHOW, EXPORT)),
    "position of the search": (sql("UPDATE positions SET position = '12:00' WHERE stream = 'search'"), (SHOW, EXPORT)),
    "position of no day": (sql("INSERT INTO positions VALUES ('bulk/x/c', 'done')"), (SHOW, EXPORT)),
    "position without a chunk": (sql("INSERT INTO positions VALUES ('bulk/2026-11-21', 'done')"), (SHOW, EXPORT)),
    "position: damaged text": (sql("UPDATE positions SET position = CAST(x'fffe' AS TEXT)"), (SHOW, EXPORT)),
    "index of a recording: text": (sql("UPDATE recordings SET next_index = 'x'"), (SHOW, EXPORT)),
    "index of a recording: negative": (sql("UPDATE recordings SET next_index = -5"), (SHOW, EXPORT)),
    "tries of a recording": (sql("UPDATE recordings SET attempts = x'00'"), (SHOW, EXPORT)),
    "time of a recording": (sql("UPDATE recordings SET announced = 'x'"), (SHOW, EXPORT)),
    "looks at a recording": (sql("UPDATE recordings SET looks = 'x'"), (SHOW, EXPORT)),
    "delivered ids": (sql("UPDATE delivered SET ids = 'text'"), (SHOW, EXPORT)),
    "body of a letter": (sql("UPDATE dead_letters SET body = 'text'"), ANYTHING),
    "time of a letter": (sql("UPDATE dead_letters SET time = 'x'"), ANYTHING),
    "time of a letter's event": (sql("UPDATE dead_letters SET event_time = 'x'"), ANYTHING),
    "reason of a letter": (sql("UPDATE dead_letters SET reason = x'00'"), ANYTHING),
    "a failed login": (sql("UPDATE failed_logins SET moment = 'x'"), (SHOW, EXPORT)),
}


def started(path: Path) -> None:
    """What `start` does first, for a user who has not said where to begin."""
    store = SqliteStore(path.parent)
    try:
        asyncio.run(store.begin(None))
    finally:
        store.close()


def refused(path: Path, command: tuple[str, ...]) -> StateError | None:
    """The error of a command, which is none but a StateError that names the file and a next step.

    None when it did its work.
    """
    result = CliRunner().invoke(cli, [*command, f"--storage={path.parents[2]}"], standalone_mode=False)
    if result.exception is None:
        return None
    assert isinstance(result.exception, StateError), repr(result.exception)
    return told(result.exception, path)


def told(error: StateError, path: Path) -> StateError:
    assert str(path) in error.message
    assert error.hint
    return error


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_told_by_name_and_with_a_next_step(state: Path, name: str) -> None:
    damage, refusing = DAMAGES[name]
    damage(state)
    assert {command for command in ANYTHING if refused(state, command)} >= set(refusing)
    with pytest.raises(StateError) as caught:
        started(state)
    told(caught.value, state)


@pytest.mark.parametrize("name", ["empty", "text", "cut in half"])
def test_looking_at_a_damaged_state_leaves_it_where_it_is(state: Path, name: str) -> None:
    DAMAGES[name][0](state)
    damaged = state.read_bytes()
    for command in ANYTHING:
        refused(state, command)
    assert state.read_bytes() == damaged


def test_a_state_without_damage_is_refused_by_no_command(state: Path) -> None:
    assert [refused(state, command) for command in ANYTHING] == [None] * len(ANYTHING)
    started(state)


def test_a_lost_start_time_is_replaced_by_what_the_user_says_and_the_positions_hold(state: Path) -> None:
    sql("DELETE FROM facts WHERE name = 'start_time'")(state)
    store = SqliteStore(state.parent, begin_known=True)
    assert asyncio.run(store.begin(START)) == START
    assert asyncio.run(positions(store, "search")) == {"search": str(START)}
    store.close()
    started(state)


def test_what_is_checked_by_name_is_what_others_remember() -> None:
    from event_handler.go_plugin import import_state
    from event_handler.state import keys, schema

    names = {
        keys.START_TIME,
        schema.CREATED,
        keys.FIRST_DAY,
        keys.CLOSED_DAYS,
        keys.FLOOR,
        keys.MODE,
        import_state.PLUGIN_SEEN,
        "locks",
    }
    assert names == set(_FACTS)
