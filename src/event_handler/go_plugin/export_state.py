"""Gives the position back in the Go plugin's format, so that a user can return to the plugin.

Where the plugin cannot hold what is known here, it gets the earlier position: it may send an event again, and skips
none.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from math import inf
from pathlib import Path

from event_handler.errors import StateError
from event_handler.go_plugin.import_state import PLUGIN_SEEN, PLUGIN_START
from event_handler.go_plugin.read import CHUNK_NAME, Day, Missing, PluginState, newest_change, parse_time, rfc3339
from event_handler.go_plugin.write import write
from event_handler.sources.export import CLOSED_DAYS, DONE, FIRST_DAY, day_of
from event_handler.sources.search import read_position
from event_handler.state.store import Store

LATEST_TIME = 253_402_300_800.0  # seconds since the epoch, the end of the year 9999
LAST_ATTEMPT = 3  # the plugin forgets a recording that is missing at its fourth try


def export_state(store: Store, directory: Path, *, force: bool) -> tuple[PluginState, Path | None]:
    """Write the position of `store` to `directory`; return it, and where the files that were there are kept.

    Raises StateError when there is no position, when the plugin has written there since its position was taken over
    (unless `force`), or when the directory cannot be written.
    """
    state = as_plugin_state(store)
    newest = newest_change(directory)
    if newest > float(store.fact(PLUGIN_SEEN) or 0.0) and not force:
        raise StateError(
            f"{directory} has a state of the Go plugin that is newer than what was taken over from it",
            "Use --force to replace it (it is kept beside), or name another directory with --to.",
        )
    kept = write(directory, state)
    store.remember(PLUGIN_SEEN, repr(newest_change(directory)))
    return state, kept


def as_plugin_state(store: Store) -> PluginState:
    """The position of `store` as the plugin holds one. Raises StateError before the first start."""
    begin = store.fact("start_time")
    if not begin and store.is_new:
        raise StateError("this state has no position yet", "It has one after the first start of the event handler.")
    begin = begin or str(store.begin(None))  # which raises
    text = store.fact(PLUGIN_START)
    state = PluginState(float(begin), text if parse_time(text) == float(begin) else rfc3339(float(begin)))
    if store.fact("mode") == "bulk":
        state.days = _days(store, day_of(float(begin)), state.warnings)
    elif store.fact("mode") == "search":
        state.window = read_position(store)
    for item in store.due_recordings(inf, -1):  # -1: all of them
        if item.attempts and not item.next_index:
            announced = item.announced if 0.0 < item.announced < LATEST_TIME else None  # as the event told it
            state.missing[item.session_id] = Missing(0, min(item.attempts, LAST_ATTEMPT), announced)
        else:
            state.sessions[item.session_id] = item.next_index
    return state


def _days(store: Store, begin: date, warnings: list[str]) -> dict[date, Day]:
    """The days that are still polled, also those without chunks: a day that the plugin does not find between two
    others, it never asks for. After the last one it goes on by itself.
    """
    first = date.fromisoformat(store.fact(FIRST_DAY) or str(begin))
    closed = [date.fromisoformat(day) for day in store.fact(CLOSED_DAYS).split()]
    completed: dict[date, set[str]] = defaultdict(set)
    cursors: dict[date, dict[str, str]] = defaultdict(dict)
    last = max([first, *(day + timedelta(days=1) for day in closed)])
    for stream, cursor in store.positions("bulk/").items():
        _, text, name = stream.split("/", 2)
        day = date.fromisoformat(text)
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
