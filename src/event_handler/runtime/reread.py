"""Tells when filters have changed since the last start, and goes back to an earlier time when the user asks for
that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime

import structlog

from event_handler.go_plugin.read import rfc3339
from event_handler.ports import Commit
from event_handler.sources.export import CLOSED_DAYS, FIRST_DAY, day_of
from event_handler.sources.search import FLOOR, LAST_ID, STREAM, read_position
from event_handler.state.store import Store

FILTERS = "filters"  # fact: the lists of the last start
# fact: the time that was gone back to last, so that a restart with the same option does not do so again
REREAD = "reread_from"
START = "start_time"  # fact
BEHIND_BULK = "bulk0"  # the first text behind all of `bulk/…`

log = structlog.get_logger()


def before_reading(store: Store, sink: str, lists: Mapping[str, Iterable[str]], asked: datetime | None) -> None:
    """What a start has to do before it goes on from the position.

    `lists` are the filters, `asked` is `--reread-from`.
    """
    _log_changed_filters(store, sink, lists)
    if asked is not None:
        _reread(store, sink, asked)


def _log_changed_filters(store: Store, sink: str, lists: Mapping[str, Iterable[str]]) -> None:
    """Warn when the lists name something else than at the last start, and say which events they do not count for."""
    now = {name: sorted(set(entries)) for name, entries in lists.items()}
    before, position = _remembered(store), _position(store)
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
        store.remember(FILTERS, json.dumps(now))


def _remembered(store: Store) -> dict[str, list[str]] | None:
    """The lists of the last start, None when they are not known."""
    try:
        found = json.loads(store.fact(FILTERS) or "null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _reread(store: Store, sink: str, asked: datetime) -> None:
    """Move the position back to that time, once.

    What was delivered is not sent again as far as its id is remembered.
    """
    wanted = rfc3339(asked.timestamp())
    if store.fact(REREAD) == wanted:
        log.info(
            "reading went back to --reread-from at an earlier start already, and goes on", sink=sink, reread_from=wanted
        )
        return
    start, position = store.fact(START), _position(store)
    if not start or not position:
        log.warning("nothing was read yet that could be read again; --start-time says where reading begins", sink=sink)
        return
    since = max(asked.timestamp(), float(start))
    if since > asked.timestamp():
        log.warning(
            "--reread-from is before the time at which reading began, which is taken instead",
            sink=sink,
            start_time=rfc3339(since),
            next_step="for older events, start with another --storage and an earlier --start-time",
        )
    back = _back_by_days(store, since) if store.fact("mode") == "bulk" else _back_by_time(store, since)
    again = store.recordings_again(since)
    back.facts[REREAD] = wanted
    store.commit(back)
    log.warning(
        "reading goes back; what was delivered is not sent again as far as its id is remembered",
        sink=sink,
        reread_from=rfc3339(since),
        position_before=position,
        recordings=again,
    )


def _back_by_days(store: Store, since: float) -> Commit:
    """Forget the chunks of that day and of later ones. The days before it that are still polled stay polled."""
    day, first = str(day_of(since)), store.fact(FIRST_DAY)
    store.forget_until(f"bulk/{day}", BEHIND_BULK)
    closed = " ".join(one for one in store.fact(CLOSED_DAYS).split() if one < day)
    return Commit(facts={CLOSED_DAYS: closed} | ({FIRST_DAY: day} if first > day else {}))


def _back_by_time(store: Store, since: float) -> Commit:
    """The floor of a position that was taken over from the Go plugin goes back too."""
    position, floor = read_position(store), store.fact(FLOOR)
    if position is None or position <= since:
        return Commit()
    return Commit(
        {STREAM: repr(since)}, facts={LAST_ID: ""} | ({FLOOR: repr(since)} if floor and float(floor) > since else {})
    )


def _position(store: Store) -> str:
    """The time, or with bulk export the day, that reading has come to; "" before it began."""
    if store.fact("mode") == "bulk":
        return max((stream.split("/")[1] for stream in store.positions("bulk/")), default=store.fact(FIRST_DAY))
    position = read_position(store)
    return "" if position is None else rfc3339(position)
