"""Writes a position as the Go plugin keeps it: the same names, formats and line ends, a whole new directory or none."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from event_handler.errors import StateError
from event_handler.go_plugin.read import (
    COMPLETED,
    CURSOR,
    DAYS,
    INDEX_BYTES,
    LAST_ID,
    MISSING,
    PARTIAL,
    SESSION,
    START_TIME,
    WINDOW,
    PluginState,
    newest_change,
    rfc3339,
)
from event_handler.state.directory import ADOPTED

UNKNOWN_TIME = "0001-01-01T00:00:00Z"  # Go's zero time: the plugin takes it as not known
OURS = frozenset({ADOPTED, "lock"})  # what may lie in the directory beside the plugin's files


def write(directory: Path, state: PluginState) -> Path | None:
    """Put `state` into `directory`. What was there is kept beside it, under the path that is returned.

    Raises StateError when the directory is something else than the plugin's, or cannot be written.
    """
    fresh = directory.with_name(f"{directory.name}.new")
    try:
        _refuse_strangers(directory)
        _make(fresh, contents(state), state)
        old = None
        if directory.exists():
            old = directory.with_name(f"{directory.name}.before-export-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
            directory.rename(old)
        fresh.rename(directory)
    except OSError as error:
        raise StateError(
            f"the Go plugin's state could not be written to {directory} ({error.filename}: {error.strerror})",
            f"Check the permissions of {directory.parent}; remove {fresh.name} there if it was left behind.",
        ) from None
    return old


def contents(state: PluginState) -> Mapping[str, bytes]:
    """What each file holds, by its path below the directory."""
    files = {START_TIME: state.start_text.encode()}
    if state.window is not None:
        files |= {
            CURSOR: state.page_key.encode(),
            LAST_ID: state.last_id.encode(),
            WINDOW: rfc3339(state.window).encode(),
        }
    for day, chunks in state.days.items():
        files[f"{DAYS}/{day}/{COMPLETED}"] = "".join(f"{name}\n" for name in sorted(chunks.completed)).encode()
        files |= {f"{DAYS}/{day}/{name}{PARTIAL}": cursor.encode() for name, cursor in chunks.cursors.items()}
    for session, index in state.sessions.items():
        files[f"{SESSION}{session}"] = index.to_bytes(INDEX_BYTES, "big")
    for session, missing in state.missing.items():
        announced = UNKNOWN_TIME
        if missing.announced is not None:
            announced = datetime.fromtimestamp(missing.announced, UTC).isoformat().replace("+00:00", "Z")
        content = {"Index": missing.index, "Attempt": missing.attempt, "Timestamp": announced}
        files[f"{MISSING}{session}"] = json.dumps(content, separators=(",", ":")).encode()
    return files


def _make(directory: Path, files: Mapping[str, bytes], state: PluginState) -> None:
    directory.mkdir(mode=0o755)
    if state.days:
        (directory / DAYS).mkdir(mode=0o750)
    for day in state.days:
        (directory / DAYS / str(day)).mkdir(mode=0o750)
    for name, content in files.items():
        with (directory / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _refuse_strangers(directory: Path) -> None:
    if directory.exists() and not newest_change(directory) and {path.name for path in directory.iterdir()} - OURS:
        raise StateError(
            f"{directory} has other files than those of the Go plugin",
            "Name with --to the directory <storage>/<host>_<port> of the plugin, or a new one.",
        )
