"""Compares what the cluster has in a span of its log with what was delivered to a sink, and names what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from event_handler.errors import MalformedEventError
from event_handler.event import MARK, RawEvent, Unreadable
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.filters import Filter
from event_handler.pipeline.select import dead_letter_key
from event_handler.ports import REMEMBERED_IDS, DeadLetter, StateStore
from event_handler.runtime.sinks import Filters
from event_handler.runtime.span import read_span
from event_handler.teleport.rpc.client import Client

HOUR = 3600.0  # seconds
MOST_NAMED = 1000  # missing events that are kept by name; the others are counted
KNOWN_SHARE = 0.9  # of the ids that a state keeps, from which on older ones may have been forgotten


@dataclass(frozen=True, slots=True)
class Missing:
    """An event that the cluster has and that nobody remembers as delivered."""

    time: float
    type: str
    id: str


@dataclass(slots=True)
class Hour:
    """One hour of the log, `begin` in seconds since the epoch: events of the cluster and what became of them."""

    begin: float
    in_cluster: int = 0
    delivered: int = 0
    filtered: int = 0
    missing: int = 0


@dataclass(slots=True)
class Comparison:
    """All hours that have events, and the first events that are missing.

    `forgets`: so many ids were delivered that older ones are not remembered any more; then an hour of which nothing is
    remembered proves nothing.
    """

    hours: dict[float, Hour] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    forgets: bool = False

    def unknown(self, hour: Hour) -> bool:
        """Whether nothing can be said about that hour, since ids of its time are not kept any more."""
        return self.forgets and not hour.delivered and hour.missing > 0

    @property
    def lost(self) -> int:
        """Events that are missing in hours of which something is known."""
        return sum(hour.missing for hour in self.hours.values() if not self.unknown(hour))


async def compare(
    client: Client, store: StateStore, sink: str, filters: Filters, since: float, until: float, page: int
) -> Comparison:
    """Read the span, and look up each event by its id. Raises RpcError, ConnectError or StateError.

    Dead letters count as delivered: they are known, and listed by `dead-letter list`.
    """
    groups = await store.delivered_ids()
    window = DuplicateWindow()
    window.load(groups)
    found = Comparison(forgets=sum(map(len, groups)) // MARK >= KNOWN_SHARE * REMEMBERED_IDS)
    wanted = Filter(filters.types, filters.skip_types)
    seen: set[bytes] = set()
    async with aclosing(read_span(client, since, until, page)) as pages:
        async for events, _ in pages:
            _count(events, found, window, wanted, sink, seen)
    return found


def _count(
    events: Iterable[RawEvent], found: Comparison, window: DuplicateWindow, wanted: Filter, sink: str, seen: set[bytes]
) -> None:
    for raw in events:
        key = _identity(raw)
        if key in seen:
            continue
        seen.add(key)
        begin = raw.time // HOUR * HOUR
        hour = found.hours.setdefault(begin, Hour(begin))
        hour.in_cluster += 1
        if key in window or _is_dead_letter(raw, window, sink):
            hour.delivered += 1
        elif not _is_wanted(raw, wanted):
            hour.filtered += 1
        else:
            hour.missing += 1
            if len(found.missing) < MOST_NAMED:
                found.missing.append(Missing(raw.time, raw.type, raw.id))


def _identity(raw: RawEvent) -> bytes:
    try:
        return raw.dedup_key()
    except MalformedEventError as error:
        return raw.unreadable(str(error)).dedup_key()


def _is_dead_letter(raw: RawEvent, window: DuplicateWindow, sink: str) -> bool:
    """Whether it could not be read, and is remembered as a letter."""
    if not isinstance(raw, Unreadable):
        try:
            raw.event()
        except MalformedEventError as error:
            raw = raw.unreadable(str(error))
        else:
            return False
    return dead_letter_key(DeadLetter(sink, raw.reason, raw.type, raw.id, raw.session_id, raw.body)) in window


def _is_wanted(raw: RawEvent, wanted: Filter) -> bool:
    return isinstance(raw, Unreadable) or wanted.wants(raw.type, raw.code() if wanted.needs_code else "")
