"""Opens the SQLite file of a state: makes it, or makes sure that it is whole; damage is never silently replaced by
nothing.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from event_handler.errors import StorageError
from event_handler.state import schema
from event_handler.state.access import is_of_the_place, usable
from event_handler.state.checks import check

FILE = "state.db"

log = structlog.get_logger()


def open_to_work(path: Path, *, begin_known: bool) -> sqlite3.Connection:
    """Open the file for the process that delivers, made when it is missing. A damaged one is set aside.

    `begin_known`: the user has said where to begin, so that a state that is lost may be begun again.
    """
    with usable(path):
        if path.is_symlink():
            path.stat()  # where it leads to must be there: the disk may not be mounted
        if path.exists() and not is_whole(path):
            _set_aside(path, "damaged")
        if not path.exists():
            damaged = sorted(path.parent.glob(f"{path.name}.damaged-*"))
            if damaged and not begin_known:
                raise StorageError(
                    f"the state was damaged and is set aside as {damaged[-1]}, so nobody knows what has been delivered",
                    "Start with --start-time at the last event that you have; what follows it is sent, perhaps for the "
                    "second time.",
                )
            if damaged:
                log.error("the state was damaged and set aside; reading begins at --start-time", file=str(damaged[-1]))
            _make(path)
        return _prepared(path)


def open_existing(path: Path) -> sqlite3.Connection:
    """Open a file that must be there and whole; a damaged one stays where it is."""
    with usable(path):
        path.stat()
        if not is_whole(path):
            raise schema.damaged(path, "it is not a whole SQLite file")
        return _prepared(path)


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a file to look at it, also while another process works on it.

    Nothing of it changes: an older one is copied.
    """
    database = _checked(path, "ro", letters_only=False)
    if schema.version(database, path) == schema.VERSION:
        return database
    with closing(database):
        return _copied(database)


def open_dead_letters(path: Path, timeout: float) -> sqlite3.Connection:
    """Open a file to change its dead letters, also while another process works on it, waiting `timeout` seconds for
    that one.
    """
    return _checked(path, "rw", letters_only=True, timeout=timeout)


def copy_into_memory(path: Path) -> sqlite3.Connection:
    """A state in memory only: a copy of the file, or a new one where there is none."""
    with usable(path):
        there = path.exists()
    if not there:
        database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        schema.create(database)
        return database
    with closing(_checked(path, "ro", letters_only=False)) as saved:
        return _copied(saved)


def is_whole(path: Path) -> bool:
    """Whether the file is a SQLite file without damage.

    Raises OSError or sqlite3.Error when that cannot be found out.
    """
    if path.is_file() and not path.stat().st_size:  # one of this name is never made empty
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
        database.text_factory = bytes  # an error about it may quote damaged text
        try:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone()[0] == b"ok")
        except sqlite3.Error as error:
            if is_of_the_place(error):
                raise
            return False


def flush_directory(directory: Path) -> None:
    """Make the names in a directory last over a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked(path: Path, mode: str, *, letters_only: bool, timeout: float = 5.0) -> sqlite3.Connection:
    with usable(path):
        if path.stat().st_size == 0:
            raise schema.damaged(path, "it is empty")
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            check(database, path, letters_only=letters_only)
        except BaseException:
            database.close()
            raise
    return database


def _copied(saved: sqlite3.Connection) -> sqlite3.Connection:
    """What is in a file, in memory and of this version."""
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    saved.backup(database)
    schema.migrate(database)
    return database


def _make(path: Path) -> None:
    """Renamed when it is whole and on the disk: an empty file of the right name is always damage."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as made:
        fresh.chmod(0o600)
        made.execute("PRAGMA synchronous=FULL")
        schema.create(made)
    _set_aside(path, "left")  # SQLite would play the log of a file that was moved away into the fresh one
    fresh.rename(path)
    flush_directory(path.parent)


def _prepared(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)  # used on the store's thread
    try:
        check(database, path)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        schema.migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _set_aside(path: Path, why: str) -> None:
    """Rename the state file and what belongs to it, as far as they are there, to `state.db.<why>-<time>`.

    The file itself last.
    """
    aside = path.with_name(f"{path.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    for part in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + part).rename(aside.with_name(aside.name + part))
