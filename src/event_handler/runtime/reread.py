"""Tells when filters have changed since the last start, and goes back to an earlier time when the user asks for
that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from event_handler.checkpoint import Mode, Progress, day_of
from event_handler.go_plugin.read import rfc3339
from event_handler.ports import Commit, StateStore

FILTERS = "filters"  # note: the lists of the last start
# note: the time that was gone back to last, so that a restart with the same option does not do so again
REREAD = "reread_from"

log = structlog.get_logger()


async def before_reading(
    store: StateStore, sink: str, lists: Mapping[str, Iterable[str]], asked: datetime | None
) -> None:
    """What a start has to do before it goes on from the position.

    `lists` are the filters, `asked` is `--reread-from`.
    """
    await _log_changed_filters(store, sink, lists)
    if asked is not None:
        await _reread(store, sink, asked)


async def _log_changed_filters(store: StateStore, sink: str, lists: Mapping[str, Iterable[str]]) -> None:
    """Warn when the lists name something else than at the last start, and say which events they do not count for."""
    now = {name: sorted(set(entries)) for name, entries in lists.items()}
    before, position = await _remembered(store), _position(await store.progress())
    if before is not None and before != now and position:
        log.warning(
            "filters changed since the last start; what was read before, up to the position, was selected by the old "
            "ones",
            sink=sink,
            position=position,
            changed=", ".join(name for name in now if before.get(name) != now[name]),
            next_step="to select from the past again, start once with --reread-from=TIME",
        )
    if before != now:
        await store.commit(Commit(notes={FILTERS: json.dumps(now)}))


async def _remembered(store: StateStore) -> dict[str, list[str]] | None:
    """The lists of the last start, None when they are not known."""
    try:
        found = json.loads(await store.note(FILTERS) or "null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


async def _reread(store: StateStore, sink: str, asked: datetime) -> None:
    """Move the position back to that time, once.

    What was delivered is not sent again as far as its id is remembered.
    """
    wanted = rfc3339(asked.timestamp())
    if await store.note(REREAD) == wanted:
        log.info(
            "reading went back to --reread-from at an earlier start already, and goes on", sink=sink, reread_from=wanted
        )
        return
    start, progress = await store.start(), await store.progress()
    position = _position(progress)
    if start is None or not position:
        log.warning("nothing was read yet that could be read again; --start-time says where reading begins", sink=sink)
        return
    since = max(asked.timestamp(), start)
    if since > asked.timestamp():
        log.warning(
            "--reread-from is before the time at which reading began, which is taken instead",
            sink=sink,
            start_time=rfc3339(since),
            next_step="for older events, start with another --storage and an earlier --start-time",
        )
    back = _back_by_days(progress, since) if progress.mode is Mode.BULK else _back_by_time(progress, since)
    again = await store.recordings_again(since)
    await store.commit(Commit(progress=back, notes={REREAD: wanted}))
    log.warning(
        "reading goes back; what was delivered is not sent again as far as its id is remembered",
        sink=sink,
        reread_from=rfc3339(since),
        position_before=position,
        recordings=again,
    )


def _back_by_days(progress: Progress, since: float) -> Progress:
    """Forget the chunks of that day and of later ones. The days before it that are still polled stay polled."""
    day, first = day_of(since), progress.first_day
    return replace(
        progress,
        chunks={chunk: cursor for chunk, cursor in progress.chunks.items() if chunk.day < day},
        closed_days=frozenset(one for one in progress.closed_days if one < day),
        first_day=day if first is not None and first > day else first,
    )


def _back_by_time(progress: Progress, since: float) -> Progress:
    """The floor of a position that was taken over from the Go plugin goes back too."""
    if progress.searched is None or progress.searched <= since:
        return progress
    floor = progress.floor
    return replace(progress, searched=since, last_id="", floor=since if floor is not None and floor > since else floor)


def _position(progress: Progress) -> str:
    """The time, or with bulk export the day, that reading has come to; "" before it began."""
    if progress.mode is Mode.BULK:
        return str(progress.newest_day or progress.first_day or "")
    return "" if progress.searched is None else rfc3339(progress.searched)
