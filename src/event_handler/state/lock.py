"""Keeps a second process out of a directory: two that deliver from one position would do so twice and lose track of
it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from event_handler.errors import StateError, StorageError
from event_handler.state.access import usable

LOCK = "lock"  # the file's name
WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


def take_lock(path: Path) -> int:
    """Hold an exclusive lock on `path` for the life of the process and write our pid into it.

    Raises StateError when another process holds it, and when it cannot be taken: a directory that cannot be locked is
    refused, for SQLite needs locks of the same kind, and nothing would keep a second process out.
    """
    with usable(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BlockingIOError:  # EWOULDBLOCK, the only answer that means another process
        holder = _written_in(descriptor)
        os.close(descriptor)
        raise StateError(
            f"another event handler (pid {holder}) works in {path.parent}",
            "Stop it, or give this one its own --storage.",
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise _not_taken(path, error) from None
    return descriptor


def holder_of(path: Path) -> str:
    """The pid of the process that holds the lock on `path`, "" for none.

    Raises StateError when it cannot be told, as `take_lock` would.
    """
    if not path.exists():  # nobody ever worked there
        return ""
    with usable(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_in(descriptor)
    except OSError as error:
        raise _not_taken(path, error) from None
    finally:
        os.close(descriptor)
    return ""


def _written_in(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"


def _not_taken(path: Path, error: OSError) -> StateError:
    if error.errno in WITHOUT_LOCKS:
        return StorageError(
            f"the file system of {path.parent} has no file locks ({error.strerror}), so a second process could not be "
            f"kept out",
            "Put --storage on a local file system, or mount this one with locks (NFS: version 4, or lockd and without "
            "nolock).",
        )
    return StateError(
        f"the lock {path} cannot be taken ({error.strerror})", "Check that file system and its free space."
    )
