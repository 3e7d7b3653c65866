"""Imports the position of the Go plugin at the first start in its storage, without loss and without touching a file
of it.

Where its files leave room, the earlier position is taken: an event may come twice, none is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import time

import structlog

from event_handler.checkpoint import DONE, Chunk, Mode, Progress, day_of
from event_handler.errors import StorageError
from event_handler.go_plugin.page_key import page_key_time
from event_handler.go_plugin.read import START_TIME, PluginState, newest_change, read, rfc3339
from event_handler.ports import Commit, RecordingItem, StateStore

# note: the newest change of the plugin's files that this state knows of, in seconds since the epoch
PLUGIN_SEEN = "plugin_seen"
PLUGIN_START = "plugin_start_time"  # note: the start time as the plugin wrote it
CLOCKS_DIFFER = 3600.0  # seconds; a page key from later than that is damaged
BEFORE_START = 86_400.0  # seconds; a page key from earlier than that before the start is damaged: digits are missing

log = structlog.get_logger()


async def import_state(
    store: StateStore, storage: Path, addresses: Sequence[tuple[str, int]], asked: datetime | None
) -> None:
    """Go on from the plugin's position when `store` has none yet. `asked` is the start time of the settings.

    Raises StateError when the plugin's files cannot be read, or do not tell where it began, or tell another start time
    than `asked`.
    """
    directories = [storage / f"{host}_{port}" for host, port in addresses]
    if await store.start() is not None:
        await _warn_when_newer(store, directories)
        return
    if not await store.is_new():  # it was used and has lost its start time; the plugin's position is older than its own
        return
    for directory in directories:
        state = read(directory)
        if state is not None:
            begin = _begin(state, directory, asked)
            taken = convert(state, begin, time())
            taken.notes[PLUGIN_SEEN] = repr(newest_change(directory))
            await store.commit(taken)
            for warning in state.warnings:
                log.warning(warning)
            _log(directory, taken)
            return
    others = [path.parent.name for path in storage.glob(f"*/{START_TIME}")]
    if others:
        log.warning(
            "the storage has a position of the Go plugin for another address, which is not used",
            directories=others,
            next_step="to go on from it, stop, remove the new directory of this cluster, and name that address first "
            "in teleport.addr",
        )


def convert(state: PluginState, begin: float, now: float) -> Commit:
    """Our position that means the same as the plugin's. Times are seconds since the epoch."""
    taken = Commit(start=begin)
    if state.start_time is not None:
        taken.notes[PLUGIN_START] = state.start_text
    days = sorted(day for day in state.days if day >= day_of(begin))  # the plugin ignores days before its start
    taken.progress = _convert_days(state, days) if days else _convert_search(state, begin, now)
    for session in {**state.missing, **state.sessions}:
        missing = state.missing.get(session)
        index = state.sessions.get(session, missing.index if missing else 0)
        announced = missing.announced if missing and missing.announced is not None else now
        taken.recordings.append(RecordingItem(session, announced, True, missing.attempt if missing else 0, 0.0, index))
    return taken


def _convert_days(state: PluginState, days: list[date]) -> Progress:
    """A day between two others that has no directory was finished by the plugin, which removes such days."""
    span = [days[0] + timedelta(days=n) for n in range((days[-1] - days[0]).days)]
    chunks: dict[Chunk, str] = {}
    for day in days:
        chunks |= {Chunk(day, name): DONE for name in state.days[day].completed}
        chunks |= {Chunk(day, name): cursor for name, cursor in state.days[day].cursors.items() if cursor != DONE}
    closed = frozenset(day for day in span if day not in state.days)
    return Progress(Mode.BULK, first_day=days[0], closed_days=closed, chunks=chunks)


def _convert_search(state: PluginState, begin: float, now: float) -> Progress | None:
    """Everything before the last page was delivered, and of that page the events up to the last id."""
    if not (state.page_key or state.last_id or state.window is not None):
        return None
    position = _page_begin(state, begin, now)
    if position is None:
        state.warnings.append("the files do not say how far the search was; it begins again at the start time")
        position = begin
    return Progress(Mode.SEARCH, position, position, state.last_id)


def _page_begin(state: PluginState, begin: float, now: float) -> float | None:
    """Where the page of the last delivered event begins: at its key, or at the begin of the window."""
    page = page_key_time(state.page_key)
    if page is not None and begin - BEFORE_START <= page <= now + CLOCKS_DIFFER:
        return (
            math.floor(page * 1000 - 1) / 1000
        )  # a millisecond before it: events of the same moment may follow the key's
    if state.page_key:
        state.warnings.append("the page key does not hold a time; the search goes on from the beginning of its window")
    return state.window


def _begin(state: PluginState, directory: Path, asked: datetime | None) -> float:
    if state.start_time is not None:
        begin = float(int(state.start_time))
        if asked is not None and asked.timestamp() != begin:
            raise StorageError(
                f"--start-time differs from the one that the Go plugin began with ({state.start_text} in "
                f"{directory / START_TIME})",
                f"Leave --start-time out to go on from the plugin's position, or move {directory} away to start over.",
            )
        return begin
    if asked is not None:
        return asked.timestamp()
    if state.days:
        day = min(state.days)
        found: float | None = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    else:
        times = [t for t in (state.window, page_key_time(state.page_key)) if t is not None and t > 0]
        found = float(int(min(times))) if times else None
    if found is None:
        raise StorageError(
            f"{directory / START_TIME} is missing or damaged, and no other file of the Go plugin says where it was",
            "Start once with --start-time at the last delivered event.",
        )
    state.warnings.append(f"the start time is taken to be {rfc3339(found)}, the earliest in the other files")
    return found


def _log(directory: Path, taken: Commit) -> None:
    progress = taken.progress or Progress()
    chunks = list(progress.chunks.values())
    log.info(
        "position of the Go plugin taken over; its files stay as they are",
        directory=str(directory),
        start_time=rfc3339(taken.start or 0.0),
        reading=progress.mode.value if progress.mode else "from the start",
        **({} if progress.searched is None else {"position": rfc3339(progress.searched)}),
        **({} if progress.first_day is None else {"from_day": str(progress.first_day)}),
        chunks_done=chunks.count(DONE),
        chunks_begun=len(chunks) - chunks.count(DONE),
        recordings=len(taken.recordings),
    )


async def _warn_when_newer(store: StateStore, directories: Sequence[Path]) -> None:
    """Warn when the plugin worked again after its position was imported or exported."""
    newest = max((newest_change(directory) for directory in directories), default=0.0)
    known = float(await store.note(PLUGIN_SEEN) or newest)
    if newest > known:
        log.warning(
            "the Go plugin has worked since; this state goes on from its own position, which sends events again",
            directories=[str(directory) for directory in directories],
            next_step="to go on from the plugin's position, stop and move state.db away",
        )
    await store.commit(Commit(notes={PLUGIN_SEEN: repr(max(newest, known))}))
