"""Finds the directory of a sink's state: keyed by the cluster's name, so that another address or host name loses
nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import structlog

from event_handler.errors import StateError
from event_handler.state.access import usable
from event_handler.state.file import FILE, flush_directory
from event_handler.state.lock import LOCK, take_lock

ADOPTED = "state.db.adopted"

log = structlog.get_logger()


def state_directory(storage: Path, cluster: str, sink: str) -> Path:
    """`<storage>/<cluster>/<sink>`."""
    return storage / directory_name(cluster) / sink


def directory_name(cluster: str) -> str:
    """Its name, with the characters percent-encoded that do not belong in a file name."""
    name = quote(cluster, safe="")
    return name.replace(".", "%2E") if not name.strip(".") else name


def states_below(storage: Path, sink: str = "") -> list[Path]:
    """The directories of all states, or of those of one sink.

    Raises StateError when all that there may be are closed to this user.
    """
    found: list[Path] = []
    denied: list[StateError] = []
    for cluster in _entries(storage, denied):
        for directory in _entries(cluster, denied):
            if not sink or directory.name == sink:
                found += [path.parent for path in _entries(directory, denied) if path.name == FILE]
    if denied and not found:
        raise denied[0]
    return found


def _entries(directory: Path, denied: list[StateError]) -> list[Path]:
    """What is in a directory, nothing where it is none; other reasons why it cannot be read are added to `denied`."""
    try:
        with usable(directory), suppress(NotADirectoryError, FileNotFoundError):
            return sorted(directory.iterdir())
    except StateError as error:
        denied.append(error)
    return []


def migrate_layout(storage: Path, directory: Path, addresses: Sequence[tuple[str, int]]) -> None:
    """Take over the state that an earlier version kept under `<host>_<port>`, when `directory` has none yet.

    The old file is kept as state.db.adopted. Raises StateError, also when another process still works there.
    """
    with usable(directory / FILE):
        if (directory / FILE).exists():
            return
    for host, port in addresses:
        old = storage / f"{host}_{port}" / FILE
        with usable(old):
            there = old.exists()
        if there:
            lock = take_lock(old.parent / LOCK)
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                fresh = directory / f"{FILE}.new"
                fresh.unlink(missing_ok=True)
                with closing(sqlite3.connect(old)) as source, closing(sqlite3.connect(fresh)) as target:
                    source.backup(target)
                fresh.chmod(0o600)
                fresh.replace(directory / FILE)
                flush_directory(directory)
                old.rename(old.with_name(ADOPTED))
            except (OSError, sqlite3.Error) as error:
                raise StateError(
                    f"the state in {old} cannot be taken over ({error})", "Check the file and its permissions."
                ) from None
            finally:
                os.close(lock)
            log.info("state taken over from its old place", old=str(old), new=str(directory / FILE))
            return
