"""The tables of a state file, and how a file of an older version becomes one of this version.

Schema 2 adds to schema 1: when an event that is a dead letter happened and its place in the recording, running totals
of the dead letters, how often a recording was read to its end, and tables for failed logins instead of one text that
held them all.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import time

import orjson

from event_handler.errors import StateError, StorageError

VERSION = 2
CREATED = "created"  # fact: when the file was made, in seconds since the epoch; gone once the start time is remembered
_LOCKS = "locks"  # fact of schema 1
_FIRST = (
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS positions (stream TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS delivered (number INTEGER PRIMARY KEY, count INTEGER NOT NULL, ids BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS recordings (
  session_id TEXT PRIMARY KEY, announced REAL NOT NULL, uploaded INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  next_try REAL NOT NULL, next_index INTEGER NOT NULL DEFAULT 0, done REAL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS recordings_due ON recordings (next_try) WHERE done IS NULL",
    "CREATE INDEX IF NOT EXISTS recordings_done ON recordings (done) WHERE done IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS dead_letters (
  number INTEGER PRIMARY KEY, time REAL NOT NULL, sink TEXT NOT NULL, reason TEXT NOT NULL,
  type TEXT NOT NULL, id TEXT NOT NULL,
  session_id TEXT NOT NULL, body BLOB NOT NULL, retry INTEGER NOT NULL DEFAULT 0)""",
)
# An older program that works on the file again sets the version back and leaves the columns, so each is looked for.
_COLUMNS = (
    ("dead_letters", "event_time", "REAL"),
    ("dead_letters", "event_index", "INTEGER NOT NULL DEFAULT 0"),
    ("recordings", "looks", "INTEGER NOT NULL DEFAULT 0"),
)
_SECOND = (
    "CREATE INDEX IF NOT EXISTS letters_to_retry ON dead_letters (number) WHERE retry = 1",
    "CREATE TABLE IF NOT EXISTS letter_totals (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    # By triggers, for two processes write letters: this one and `dead-letter drop`.
    """CREATE TRIGGER IF NOT EXISTS letter_kept AFTER INSERT ON dead_letters BEGIN
  UPDATE letter_totals SET count = count + 1, bytes = bytes + length(NEW.body); END""",
    """CREATE TRIGGER IF NOT EXISTS letter_gone AFTER DELETE ON dead_letters BEGIN
  UPDATE letter_totals SET count = count - 1, bytes = bytes - length(OLD.body); END""",
    "CREATE TABLE IF NOT EXISTS failed_logins (id TEXT PRIMARY KEY, moment REAL NOT NULL, who TEXT NOT NULL) WITHOUT "
    "ROWID",
    "CREATE INDEX IF NOT EXISTS failed_logins_of ON failed_logins (who, moment)",
    "CREATE INDEX IF NOT EXISTS failed_logins_old ON failed_logins (moment)",
    "CREATE TABLE IF NOT EXISTS locks_to_make (user TEXT, login TEXT, PRIMARY KEY (user, login)) WITHOUT ROWID",
)


def create(database: sqlite3.Connection) -> None:
    """Make the tables of an empty database, and note that nothing was read yet."""
    database.execute("BEGIN IMMEDIATE")
    for statement in _FIRST:
        database.execute(statement)
    database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (CREATED, str(int(time()))))
    _second(database)
    database.execute("COMMIT")


def migrate(database: sqlite3.Connection) -> None:
    """Bring a state of any known version to this one in one transaction, and count its dead letters."""
    database.execute("BEGIN IMMEDIATE")
    try:
        _second(database)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def version(database: sqlite3.Connection, path: Path) -> int:
    """The version of a state that a program has written. Raises StateError when it is newer than this program."""
    rows = database.execute("SELECT value FROM facts WHERE name = 'schema'").fetchall()
    text = str(rows[0][0]) if rows else "1"  # the first version made the tables first
    if not text.isascii() or not text.isdigit():
        raise damaged(path, f"its schema is {text[:40]!r}, which is not a number")
    if int(text) > VERSION:
        raise StorageError(
            f"the state in {path} was written by a newer version of this program (schema {text}; this one knows "
            f"{VERSION})",
            "Install that version again, or name another --storage and start with --start-time at the last event that "
            "you have.",
        )
    return int(text)


def damaged(path: Path, what: str) -> StateError:
    """The error about a state that is there and cannot be trusted. It stays where it is."""
    return StorageError(
        f"the state in {path} is damaged: {what}",
        f"Put a backup in its place, or rename it to {path.name}.damaged-1 and start with --start-time at the last "
        f"event that you"
        " have; what follows it is sent again.",
    )


def _second(database: sqlite3.Connection) -> None:
    for table, column, kind in _COLUMNS:
        if column not in {row[1] for row in database.execute(f"PRAGMA table_info({table})")}:
            database.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    for statement in _SECOND:
        database.execute(statement)
    database.execute(
        "INSERT OR REPLACE INTO letter_totals SELECT 1, count(*), coalesce(sum(length(body)), 0) FROM dead_letters"
    )
    _take_over_logins(database)
    database.execute("INSERT OR REPLACE INTO facts VALUES ('schema', ?)", (str(VERSION),))


def _take_over_logins(database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT value FROM facts WHERE name = ?", (_LOCKS,)).fetchall()
    if not rows:
        return
    saved = orjson.loads(rows[0][0])
    waiting, seen = saved.get("waiting", []), saved.get("seen", {})
    counting = {(moment, who) for who, moments in saved.get("failures", {}).items() for moment in moments}
    # Which of the events counted for whom was not noted: their times tell, and one that matches nobody only must not
    # count again.
    for event_id, moment in seen.items():
        match = next(((at, who) for at, who in counting if at == moment), None)
        counting.discard(match or (0.0, ""))
        values = (event_id, moment, match[1] if match else "")
        database.execute("INSERT OR IGNORE INTO failed_logins VALUES (?, ?, ?)", values)
    database.executemany("INSERT OR IGNORE INTO locks_to_make VALUES (?, ?)", waiting)
    database.execute("DELETE FROM facts WHERE name = ?", (_LOCKS,))
