"""Finds the event handlers that run on this machine, or in this container, without their configuration."""

from __future__ import annotations

import os
from pathlib import Path

from event_handler import about
from event_handler.errors import StateError

LISTED = Path("/proc/net/unix")  # of Linux: a socket a line, the path is the eighth word (proc(5))
PATH_COLUMN = 7


def local_sockets() -> list[Path]:
    """The local sockets that event handlers of this user listen on. Raises StateError where there is none.

    Beside each there is the directory with the states of its cluster, or it is in a directory of our name: by that it
    is told from another program's.
    """
    try:
        lines = LISTED.read_text(errors="surrogateescape").splitlines()
    except OSError:
        raise StateError("this system has no list of local sockets", "Name the storage with --storage.") from None
    paths = {Path(words[PATH_COLUMN]) for line in lines if len(words := line.split(maxsplit=PATH_COLUMN)) > PATH_COLUMN}
    found = [path for path in sorted(paths) if path.suffix == ".sock" and _is_ours(path) and _own(path)]
    if not found:
        raise StateError("no event handler of this user runs here", "Start one, or name its storage with --storage.")
    return found


def _is_ours(path: Path) -> bool:
    return path.with_suffix("").is_dir() or path.parent.name.startswith(f"{about.PROGRAM}-")


def _own(path: Path) -> bool:
    try:
        return path.is_socket() and path.stat().st_uid == os.getuid()
    except OSError:
        return False
