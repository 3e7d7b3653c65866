"""Looks whether what a state file holds makes sense, so that damage is reported at the start and never met later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import orjson

from event_handler.checkpoint import Mode
from event_handler.state import keys
from event_handler.state.schema import CREATED, damaged, version

_NUMBER = "typeof({0}) NOT IN ('real', 'integer')"
_TIME = (
    _NUMBER + " OR abs({0}) >= 253402300800"
)  # seconds from the epoch to the end of the year 9999: no later time can be shown
_NUMBER_OR_NONE = "typeof({0}) NOT IN ('real', 'integer', 'null')"
_COUNT = "typeof({0}) != 'integer' OR {0} < 0"
_TEXT = "typeof({0}) != 'text'"
_BLOB = "typeof({0}) != 'blob'"
_WRONG: Final = {  # by table and column, what a value must not be
    "facts": {"name": _TEXT, "value": _TEXT},
    "positions": {"stream": _TEXT, "position": _TEXT},
    "delivered": {"number": _COUNT, "count": _COUNT, "ids": _BLOB},
    "recordings": {
        "session_id": _TEXT,
        "announced": _NUMBER,
        "uploaded": _COUNT,
        "attempts": _COUNT,
        "next_try": _NUMBER,
        "next_index": _COUNT,
        "done": _NUMBER_OR_NONE,
    },
    "dead_letters": {
        "number": _COUNT,
        "time": _TIME,
        "sink": _TEXT,
        "reason": _TEXT,
        "type": _TEXT,
        "id": _TEXT,
        "session_id": _TEXT,
        "body": _BLOB,
        "retry": _COUNT,
    },
}
_WRONG_SINCE_2: Final = {
    "recordings": {"looks": _COUNT},
    "dead_letters": {"event_time": _NUMBER_OR_NONE, "event_index": "typeof({0}) != 'integer'"},
    "failed_logins": {"id": _TEXT, "moment": _NUMBER, "who": _TEXT},
    "locks_to_make": {"user": _TEXT, "login": _TEXT},
}


def check(database: sqlite3.Connection, path: Path, *, letters_only: bool = False) -> None:
    """Raises StateError when the file is another program's, of a newer version of this one, or damaged, or else
    sqlite3.Error.

    `letters_only` leaves out what tells nothing about dead letters.
    """
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing := [table for table in _WRONG if table not in tables]:
        raise damaged(path, f"it is a SQLite file without the table {missing[0]}, so this program has not written it")
    since = _WRONG_SINCE_2 if version(database, path) >= 2 else {}
    wrong = {table: {**_WRONG.get(table, {}), **since.get(table, {})} for table in {**_WRONG, **since}}
    for table in ["dead_letters"] if letters_only else wrong:
        _check_table(database, path, table, wrong[table])
    if not letters_only:
        _check_content(database, path)


def _check_table(database: sqlite3.Connection, path: Path, table: str, columns: dict[str, str]) -> None:
    there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
    if missing := [column for column in columns if column not in there]:
        raise damaged(path, f"its table {table} has no column {missing[0]}")
    tests = {column: wrong.format(column) for column, wrong in columns.items()}
    if not _any(database, table, " OR ".join(tests.values())):  # one look at each row, for there may be a million
        return
    for column, test in tests.items():
        if _any(database, table, test):
            raise damaged(path, f"its table {table} has a value in the column {column} that makes no sense")


def _any(database: sqlite3.Connection, table: str, condition: str) -> bool:
    found = database.execute(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1").fetchone()  # noqa: S608 - from the names above only
    return found is not None


def _check_content(database: sqlite3.Connection, path: Path) -> None:
    for name, value in database.execute("SELECT name, value FROM facts"):
        if value and (wrong := _FACTS.get(name)) is not None and not _holds(wrong, value):
            raise damaged(path, f"its {name.replace('_', ' ')} is {value[:40]!r}")
    for stream, position in database.execute("SELECT stream, position FROM positions"):
        if stream == keys.SEARCH and not _holds(_is_time, position):
            raise damaged(path, f"its position of the search is {position[:40]!r}, which is not a time")
        if stream.startswith("bulk/") and not _holds(keys.chunk_of, stream):
            raise damaged(path, f"it has the position {stream[:60]!r}, which names no day and chunk")


def _holds(test: Callable[[str], object], value: str) -> bool:
    try:
        test(value)
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError):
        return False
    return True


def _is_time(text: str) -> None:
    datetime.fromtimestamp(float(text), UTC)


def _is_day(text: str) -> None:
    date.fromisoformat(text)


def _are_days(text: str) -> None:
    for day in text.split():
        date.fromisoformat(day)


def _are_locks(text: str) -> None:
    saved = orjson.loads(text)
    moments = [*saved.get("seen", {}).values(), *(m for of_one in saved.get("failures", {}).values() for m in of_one)]
    names = [name for pair in saved.get("waiting", []) for name in pair]
    if not all(isinstance(m, int | float) for m in moments) or not all(isinstance(name, str) for name in names):
        raise ValueError
    if any(len(pair) != 2 for pair in saved.get("waiting", [])):
        raise ValueError


# What is remembered by name. The names are those of the packages that remember it.
_FACTS: Final = {
    CREATED: _is_time,
    keys.START_TIME: _is_time,
    keys.MODE: Mode,
    keys.FIRST_DAY: _is_day,
    keys.CLOSED_DAYS: _are_days,
    keys.FLOOR: _is_time,
    "plugin_seen": _is_time,
    "locks": _are_locks,
}
