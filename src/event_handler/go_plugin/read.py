"""Reads the directory in which Teleport's Go event handler keeps its position, also one that a crash left damaged.

Nothing is ever written here. The plugin writes its files in place, without fsync, so each may be torn, zero-length or
stale: what is doubtful counts as not delivered, and a warning says so. Where the files are described: docs/storage.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

from event_handler.errors import StateError
from event_handler.event import SESSION_ID

START_TIME, CURSOR, LAST_ID, WINDOW = "start_time", "cursor", "id", "window_time"
SESSION, MISSING = "session", "missing_recording"
DAYS, COMPLETED, PARTIAL = "cursor_v2", "completed-chunks", ".chunk"
INDEX_BYTES = 8  # of a session file: an unsigned integer, the most significant byte first
LARGEST_STORED_INDEX = 2**63 - 1  # what our own table holds; no recording comes near
CHUNK_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:=+@~-]{0,254}")
PAGE_KEY = re.compile(r"[\x20-\x7e]{1,8192}")  # page keys and chunk cursors: opaque, but always printable
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PART_OF_UUID = re.compile(r"[0-9a-f-]{1,35}")
_UUID_LENGTH = 36
_RFC3339 = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day of the bulk export: chunks that were delivered whole, and the server's cursor within others."""

    completed: frozenset[str] = frozenset()
    cursors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Missing:
    """A recording that was not there yet. `announced` is in seconds since the epoch, None when unknown."""

    index: int = 0
    attempt: int = 1
    announced: float | None = None


@dataclass(slots=True)
class PluginState:
    """What the directory says. Times are seconds since the epoch (UTC), None when missing or unreadable.

    `start_text` is the start time as it was written: the plugin compares the text's zone too. `page_key` is the
    server's key of the page that the event `last_id` came from; `window` the begin of the search window. `sessions`
    holds the index of the last event that was delivered, 0 also for none. `warnings` are sentences about what could not
    be used.
    """

    start_time: float | None = None
    start_text: str = ""
    page_key: str = ""
    last_id: str = ""
    window: float | None = None
    days: dict[date, Day] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def newest_change(directory: Path) -> float:
    """When the plugin last wrote in `directory`, in seconds since the epoch.

    0 when it has no state there. Raises StateError.
    """
    return _guarded(directory, lambda: max((path.stat().st_mtime for path in _parts(directory)), default=0.0))


def read(directory: Path) -> PluginState | None:
    """The position in `directory`, `<storage>/<host>_<port>` of the plugin, or None when it has none there.

    Raises StateError when a file cannot be read.
    """
    return _guarded(directory, lambda: _read(directory) if _parts(directory) else None)


def parse_time(text: str) -> float | None:
    """An RFC 3339 time in seconds since the epoch, None when the text is none. Go's zero time counts as none."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        seconds = datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def parse_completed(data: bytes) -> tuple[frozenset[str], list[str]]:
    """The chunk names of a `completed-chunks` file, and the pieces of it that are none.

    A crash may tear the last line, and the next name is then glued to it. Of names with the form of a UUID the whole
    ones are taken out; a last name without a line end counts only when it has that form.
    """
    text = data.decode("utf-8", "replace")
    words = text.split()
    torn = len(words) - 1 if words and not text[-1].isspace() else -1
    names: set[str] = set()
    refused: list[str] = []
    for number, word in enumerate(words):
        whole, rest = _unglue(word)
        if not whole and number != torn and CHUNK_NAME.fullmatch(word):
            whole, rest = [word], ""
        names.update(whole)
        if rest:
            refused.append(rest)
    return frozenset(names), refused


def parse_index(data: bytes) -> int | None:
    """The index in a session file, None when it has the wrong size or makes no sense."""
    index = int.from_bytes(data, "big")
    return index if len(data) == INDEX_BYTES and index <= LARGEST_STORED_INDEX else None


def parse_missing(data: bytes) -> Missing | None:
    """The content of a `missing_recording` file, None when it is none."""
    try:
        content = json.loads(data)
        index, attempt, announced = content["Index"], content["Attempt"], content["Timestamp"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = all(type(number) is int and 0 <= number <= LARGEST_STORED_INDEX for number in (index, attempt))
    return Missing(index, attempt, parse_time(announced)) if numbers and isinstance(announced, str) else None


def _unglue(word: str) -> tuple[list[str], str]:
    """The UUIDs at the end of a word, and what stands before them."""
    whole = []
    while _UUID.fullmatch(word[-_UUID_LENGTH:]):
        whole.append(word[-_UUID_LENGTH:])
        word = word[:-_UUID_LENGTH]
    if whole and word and not _PART_OF_UUID.fullmatch(word):
        return [], word + "".join(reversed(whole))
    return whole, word


def _guarded(directory: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except OSError as error:
        raise StateError(
            f"the Go plugin's state in {directory} cannot be read ({error.filename}: {error.strerror})",
            "Let this user read it, or move the directory away to begin without it.",
        ) from None


def _parts(directory: Path) -> list[Path]:
    """All that is a position here: the files of keys, and the days, which count even when they are empty."""
    if not directory.is_dir():
        return []
    keys = [path for path in sorted(directory.iterdir()) if _is_key(path.name) and path.is_file()]
    days = _day_directories(directory)
    return [*keys, *days, *(path for day in days for path in sorted(day.iterdir()))]


def _is_key(name: str) -> bool:
    return name in (START_TIME, CURSOR, LAST_ID, WINDOW) or (name != SESSION and name.startswith((SESSION, MISSING)))


def _day_directories(directory: Path) -> list[Path]:
    root = directory / DAYS
    found = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in found if path.is_dir() and _day(path.name) is not None]


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name) if _DAY.fullmatch(name) else None
    except ValueError:
        return None


def _read(directory: Path) -> PluginState:
    state = PluginState()
    state.start_text = _text(directory / START_TIME)
    state.start_time = parse_time(state.start_text)
    if state.start_time is None:
        state.warnings.append(f"{directory / START_TIME} is missing, empty or not a time")
    _read_search(directory, state)
    for path in _day_directories(directory):
        state.days[date.fromisoformat(path.name)] = _read_day(path, state.warnings)
    for path in sorted(directory.iterdir()):
        if not _is_key(path.name) or not path.is_file():
            continue
        if path.name.startswith(MISSING):
            _read_missing(path, state)
        elif path.name.startswith(SESSION):
            _read_session(path, state)
    return state


def _read_search(directory: Path, state: PluginState) -> None:
    for name in (CURSOR, LAST_ID):
        text = _text(directory / name)
        if text and not PAGE_KEY.fullmatch(text):
            state.warnings.append(f"{directory / name} is damaged and not used")
            text = ""
        if name == CURSOR:
            state.page_key = text
        else:
            state.last_id = text
    text = _text(directory / WINDOW)
    state.window = parse_time(text)
    if text and state.window is None:
        state.warnings.append(f"{directory / WINDOW} is damaged and not used")


def _read_day(directory: Path, warnings: list[str]) -> Day:
    path = directory / COMPLETED
    completed, refused = parse_completed(path.read_bytes() if path.is_file() else b"")
    warnings += [
        f"{path} has the piece {piece[:80]!r}, which is not a chunk's name; such a chunk is read again"
        for piece in refused
    ]
    cursors = {}
    for partial in sorted(directory.iterdir()):
        name = partial.name.removesuffix(PARTIAL)
        if name == partial.name or not partial.is_file() or name in completed:  # beside a completed entry it is stale
            continue
        cursor = partial.read_bytes().decode("utf-8", "replace").strip()
        if not CHUNK_NAME.fullmatch(name) or (cursor and not PAGE_KEY.fullmatch(cursor)):
            warnings.append(f"{directory}: the file {partial.name!r} is damaged; its chunk is read from the start")
        elif cursor:
            cursors[name] = cursor
    return Day(completed, cursors)


def _read_session(path: Path, state: PluginState) -> None:
    session = path.name.removeprefix(SESSION)
    if not SESSION_ID.fullmatch(session):
        state.warnings.append(f"{path.parent}: the file {path.name!r} names no session; it is not used")
        return
    index = parse_index(path.read_bytes())
    if index is None:
        state.warnings.append(f"{path} is damaged; the recording is sent from its start")
    state.sessions[session] = index or 0


def _read_missing(path: Path, state: PluginState) -> None:
    session = path.name.removeprefix(MISSING)
    if not SESSION_ID.fullmatch(session):
        state.warnings.append(f"{path.parent}: the file {path.name!r} names no session; it is not used")
        return
    missing = parse_missing(path.read_bytes())
    if missing is None:
        state.warnings.append(f"{path} is damaged; the recording is asked for again")
    state.missing[session] = missing or Missing()


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace").strip() if path.is_file() else ""


def rfc3339(seconds: float) -> str:
    """A time in whole seconds as the plugin writes it, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
