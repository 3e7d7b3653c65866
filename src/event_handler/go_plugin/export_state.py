"""Exports the position in the Go plugin's format, so that a user can return to the plugin.

Where the plugin cannot hold what is known here, it gets the earlier position: it may send an event again, and skips
none.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

from event_handler.checkpoint import DONE, Mode, Progress, day_of
from event_handler.errors import StateError
from event_handler.go_plugin.import_state import PLUGIN_SEEN, PLUGIN_START
from event_handler.go_plugin.read import CHUNK_NAME, Day, Missing, PluginState, newest_change, parse_time, rfc3339
from event_handler.go_plugin.write import write
from event_handler.ports import Commit, StateStore

LATEST_TIME = 253_402_300_800.0  # seconds since the epoch, the end of the year 9999
LAST_ATTEMPT = 3  # the plugin forgets a recording that is missing at its fourth try


async def export_state(store: StateStore, directory: Path, *, force: bool) -> tuple[PluginState, Path | None]:
    """Write the position of `store` to `directory`; return it, and where the files that were there are kept.

    Raises StateError when there is no position, when the plugin has written there since its position was taken over
    (unless `force`), or when the directory cannot be written.
    """
    state = await as_plugin_state(store)
    newest = newest_change(directory)
    if newest > float(await store.note(PLUGIN_SEEN) or 0.0) and not force:
        raise StateError(
            f"{directory} has a state of the Go plugin that is newer than what was taken over from it",
            "Use --force to replace it (it is kept beside), or name another directory with --to.",
        )
    kept = write(directory, state)
    await store.commit(Commit(notes={PLUGIN_SEEN: repr(newest_change(directory))}))
    return state, kept


async def as_plugin_state(store: StateStore) -> PluginState:
    """The position of `store` as the plugin holds one. Raises StateError before the first start."""
    begin = await store.start()
    if begin is None and await store.is_new():
        raise StateError("this state has no position yet", "It has one after the first start of the event handler.")
    if begin is None:
        begin = await store.begin(None)  # which raises
    text, progress = await store.note(PLUGIN_START), await store.progress()
    state = PluginState(begin, text if parse_time(text) == begin else rfc3339(begin))
    if progress.mode is Mode.BULK:
        state.days = _days(progress, day_of(begin), state.warnings)
    elif progress.mode is Mode.SEARCH:
        state.window = progress.searched
    for item in await store.unfinished_recordings():
        if item.attempts and not item.next_index:
            announced = item.announced if 0.0 < item.announced < LATEST_TIME else None  # as the event told it
            state.missing[item.session_id] = Missing(0, min(item.attempts, LAST_ATTEMPT), announced)
        else:
            state.sessions[item.session_id] = item.next_index
    return state


def _days(progress: Progress, begin: date, warnings: list[str]) -> dict[date, Day]:
    """The days that are still polled, also those without chunks: a day that the plugin does not find between two
    others, it never asks for. After the last one it goes on by itself.
    """
    first, closed = progress.first_day or begin, progress.closed_days
    completed: dict[date, set[str]] = defaultdict(set)
    cursors: dict[date, dict[str, str]] = defaultdict(dict)
    last = max([first, *(day + timedelta(days=1) for day in closed)])
    for chunk, cursor in progress.chunks.items():
        day, name = chunk.day, chunk.name
        last = max(last, day)
        if not CHUNK_NAME.fullmatch(name):
            warnings.append(
                f"the chunk {name!r} of {day} has a name that cannot be a file name; the plugin will send it again"
            )
        elif cursor == DONE:
            completed[day].add(name)
        elif cursor:
            cursors[day][name] = cursor
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return {day: Day(frozenset(completed[day]), cursors[day]) for day in days if day not in closed}
