"""Says in one sentence why a file of the state cannot be used: whose it is, or what the system answered."""

from __future__ import annotations

import errno
import os
import pwd
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from event_handler.errors import StateError, StorageError
from event_handler.state.schema import damaged

READ_AND_WRITE = os.R_OK | os.W_OK
ENTER_AND_WRITE = os.X_OK | os.W_OK
ELSEWHERE = "Point --storage to a directory that this user can write, on a disk that has room."
# What SQLite says about the place of a file and not about its content:
OF_THE_PLACE = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)

# What no later start finds changed, unless a person changes it; a disk that is full may have room then.
FOR_GOOD = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
)
FOR_GOOD_IN_SQLITE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY})


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turn what the system or SQLite answers about `path` into a StateError that names it."""
    try:
        yield
    except OSError as error:
        raise unusable(path, error.strerror or str(error), for_good=error.errno in FOR_GOOD) from None
    except sqlite3.Error as error:
        if not is_of_the_place(error):
            raise damaged(path, str(error)) from None
        raise unusable(path, str(error), for_good=_code(error) in FOR_GOOD_IN_SQLITE) from None


def is_of_the_place(error: sqlite3.Error) -> bool:
    """Whether the file could not be reached, which says nothing about its content."""
    return _code(error) in OF_THE_PLACE


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def unusable(path: Path, reason: str, *, for_good: bool = False) -> StateError:
    """The error for `path`: with the owner when it is another user's, and else with `reason`. `for_good`: a person has
    to act.
    """
    foreign = _foreign(path)
    if foreign is not None:
        owner, me = _user(foreign.lstat().st_uid), _user(os.geteuid())
        return StorageError(
            f"the storage {path} is not usable: {foreign} belongs to {owner}, and this process runs as {me} ({reason})",
            f"Run this as {owner}, or give the whole storage to {me} with chown -R.",
        )
    if _is_no_file(path):
        return StorageError(f"the storage {path} is not usable: it is not a regular file ({reason})", "Move it away.")
    return (StorageError if for_good else StateError)(f"the storage {path} is not usable ({reason})", ELSEWHERE)


def _foreign(path: Path) -> Path | None:
    """The file or directory of another user on the way to `path` that this one may not use as it has to."""
    found: Path | None = None
    for place in (*reversed(path.absolute().parents), path.absolute()):
        try:
            place.lstat()
        except PermissionError:
            break  # its directory may not be entered
        except OSError:
            if found is None or os.access(found, ENTER_AND_WRITE):
                return None
            break
        found = place
    else:
        wanted = ENTER_AND_WRITE if path.is_dir() else READ_AND_WRITE
        if os.access(path, wanted):
            found = path.absolute().parent
            if os.access(found, ENTER_AND_WRITE):
                return None
    return found if found is not None and found.lstat().st_uid != os.geteuid() else None


def _is_no_file(path: Path) -> bool:
    try:
        return path.suffix == ".db" and not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _user(number: int) -> str:
    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user id {number}"
