"""Asks for the pages of a search: every event of a span of time, whatever becomes of the page keys.

Page keys live within one read only, and servers lose them (rotated files, another Auth server), lead back to pages that
were read already (DynamoDB at the end of a day), or lead to nothing but empty pages. A key is followed only as long as
its pages bring something new; from there the search begins again at the last event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

import structlog

from event_handler.errors import RpcError
from event_handler.ports import Consumer, Stream
from event_handler.teleport.rpc.client import RUN, Client
from event_handler.teleport.wire.decode import event_id, event_time
from event_handler.teleport.wire.messages import NEWEST_FIRST, OLDEST_FIRST
from event_handler.teleport.wire.raw import raw_events

LARGEST_PAGE = 10_000  # events; the server's limit, a page ends at about 1 MiB anyway
SMALLER_PAGE = 500  # events; for back ends that refuse the largest page
EMPTY_PAGES = 100  # in a row that a search may answer with another key each time; after that the key counts as lost
SLOW_AFTER = 20  # pages in a row without anything new, before the next ones are asked for with a pause
FRUITLESS_PAUSE = 0.05  # seconds between such pages
OF_ONE_MOMENT = (
    100_000  # events in a row that bring the search no further in time; more are the same ones again and again
)
SPLITS = 16  # times at most that a span is halved, to look between two places where the search gets no further
SHORTEST_SPAN = 1.0  # seconds; the coarsest back ends tell times apart by the second
TELL_EVERY = 60.0  # seconds between two lines about keys that lead nowhere
LOOK_AGAIN = 600.0  # seconds until a gap is looked into once more; the tail meets the same one at every poll

Page = tuple[list[bytes], float]  # events, and the time before which every event is in this page or one before it

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Walk:
    """How far a span of time is read from one of its ends. `reached` is the time of the event that is farthest on the
    way.

    `lost` says why the page keys led no further when the walk ended ("" = it is at its end), `found` counts events.
    `endless` is one that the server went on answering with empty pages.
    """

    since: float
    until: float
    order: int
    reached: float = field(init=False)
    lost: str = ""
    found: int = 0
    endless: bool = False

    def __post_init__(self) -> None:
        self.reached = self.since if self.order == OLDEST_FIRST else self.until

    def advance(self, moment: float) -> bool:
        """Take note of an event. Return whether it is farther than all before it."""
        before = self.reached
        if self.order == OLDEST_FIRST:
            self.reached = max(before, min(moment, self.until))
        else:
            self.reached = min(before, max(moment, self.since))
        return self.reached != before

    @property
    def rest(self) -> tuple[float, float]:
        """The ends of what is not read yet."""
        return (self.reached, self.until) if self.order == OLDEST_FIRST else (self.since, self.reached)


class _Trail:
    """The page keys of one search, and whether they still lead on: `lost` says why not ("" = they do)."""

    def __init__(self, walk: _Walk) -> None:
        self._walk = walk
        self._pages = 0
        self._empty = 0
        self._keys: set[int] = set()  # hashes: a long read has tens of thousands of keys
        self._again: set[int] = set()  # hashes of ids, since the search came further in time
        self.lost = ""
        self.fruitless = 0  # pages in a row that brought nothing

    def follows(self, events: list[bytes], key: str) -> bool:
        """Take note of a page and the key behind it. Return whether the key is worth following."""
        self._pages += 1
        self._walk.found += len(events)
        if not events:
            self._empty_page(key)
        elif self._walk.advance(event_time(events[-1])):
            self._empty = self.fruitless = 0
            self._again.clear()
        else:
            self._no_further(events)
        if key and not self.lost:
            if hash(key) in self._keys:
                self.lost = "the key of a page that was read already"
            self._keys.add(hash(key))
        return bool(key) and not self.lost

    def _empty_page(self, key: str) -> None:
        # The file back end answers a key whose event it does not know (rotated, another Auth server) with an empty
        # page.
        self._empty += 1
        self.fruitless += 1
        if not key and self._pages > 1:
            self.lost = "an empty page"
        elif self._empty >= EMPTY_PAGES:
            self.lost, self._walk.endless = f"{EMPTY_PAGES} empty pages in a row", True

    def _no_further(self, events: list[bytes]) -> None:
        self._empty = 0
        before = len(self._again)
        self._again.update(hash(event_id(event)) for event in events)
        if len(self._again) == before:
            self.lost = "the same events again"
        elif len(self._again) > OF_ONE_MOMENT:
            self.lost = "events that were read already"


class Search:
    """Searches the log of one cluster: at most `page` events at a time (0 = the largest page), of `types` only where
    there are any.

    `seconds` is how long the server took for the last page, `fruitless` counts the spans in which it gave no event but
    empty pages without end. All methods raise RpcError or ConnectError.
    """

    def __init__(self, client: Client, page: int = 0, types: tuple[str, ...] = ()) -> None:
        self._client = client
        self._limit = min(page or LARGEST_PAGE, LARGEST_PAGE)
        self._types = types
        self._logged = -TELL_EVERY
        self._looked: dict[tuple[float, float], float] = {}  # gaps, and when they were looked into
        self.seconds = 0.0
        self.fruitless = 0

    async def pages(self, since: float, until: float) -> AsyncGenerator[Page]:
        """All pages from `since` to `until` (seconds since the epoch), oldest first, each next one requested ahead.

        Where the keys were lost it reads on from the last event, so some events come twice. Where that leads no
        further, the rest is read from its end, and what lies between the two places in smaller spans.
        """
        up = _Walk(since, until, OLDEST_FIRST)
        async with aclosing(self._walk(up)) as pages:
            async for events in pages:
                yield events, up.reached
        if not up.lost:
            return
        down = _Walk(*up.rest, NEWEST_FIRST)
        async with aclosing(self._walk(down)) as pages:
            async for events in pages:
                yield events, up.reached
        self.fruitless += up.endless or down.endless
        if down.lost and not (up.endless or down.endless):
            async with aclosing(self._between(up.reached, down.reached)) as pages:
                async for events in pages:
                    yield events, up.reached
        elif down.lost:
            self._log_hidden(up.reached, down.reached)

    async def newest_first(self, since: float, until: float) -> AsyncGenerator[list[bytes]]:
        """Pages from the end: an event over 1 MiB hides all that follow it from a search that is oldest first
        (PostgreSQL).
        """
        async with aclosing(self._walk(_Walk(since, until, NEWEST_FIRST))) as pages:
            async for events in pages:
                yield events

    async def newest(self, since: float, until: float, *, of_any_type: bool = False) -> float | None:
        """The time of the newest event between two times, None when there is none."""
        types = () if of_any_type else self._types
        events, _ = await self._client.search(since, until, limit=1, types=types, order=NEWEST_FIRST)
        return event_time(events[0]) if events else None

    async def _walk(self, walk: _Walk) -> AsyncGenerator[list[bytes]]:
        """Pages in the order of `walk`.

        From the last event again whenever their keys are lost, until that leads no further.
        """
        while True:
            trail, begun = _Trail(walk), walk.reached
            async with aclosing(self._follow_keys(walk, trail)) as pages:
                async for events in pages:
                    if events:
                        yield events
            walk.lost = trail.lost
            if not walk.lost:
                return
            self._log_lost(walk)
            if walk.reached == begun:
                return

    async def _follow_keys(self, walk: _Walk, trail: _Trail) -> AsyncGenerator[list[bytes]]:
        """The pages of one search, each next one requested while the one before it is used."""
        since, until = walk.rest
        events, key = await self._page(since, until, "", walk.order)
        while trail.follows(events, key):
            if trail.fruitless > SLOW_AFTER:
                await asyncio.sleep(FRUITLESS_PAUSE)
            ahead = asyncio.create_task(self._page(since, until, key, walk.order))
            try:
                yield events
                events, key = await ahead
            finally:
                ahead.cancel()
                await asyncio.gather(
                    ahead, return_exceptions=True
                )  # how it ends when nobody wants it any more is nobody's error
        yield events

    async def _between(self, since: float, until: float) -> AsyncGenerator[list[bytes]]:
        """What lies between two places where a search gets no further from either side, as far as searches of shorter
        spans reach it.

        Two events that are too large hide what lies between them, and so does a server that loses every key.
        """
        now = monotonic()
        self._looked = {gap: when for gap, when in self._looked.items() if now - when < LOOK_AGAIN}
        if until - since <= SHORTEST_SPAN or (since, until) in self._looked:
            return
        gaps = [(since, until)]
        for _ in range(SPLITS):
            begin, end = max(gaps, key=lambda gap: gap[1] - gap[0])
            if end - begin <= SHORTEST_SPAN:
                break
            gaps.remove((begin, end))
            middle = (begin + end) / 2
            for half in ((begin, middle), (middle, end)):
                up, down = _Walk(*half, OLDEST_FIRST), _Walk(*half, NEWEST_FIRST)
                for walk in (up, down):
                    async with aclosing(self._walk(walk)) as pages:
                        async for events in pages:
                            yield events
                    if walk.endless or (walk.found and not walk.lost):
                        break
                else:
                    gaps.append((up.reached, max(up.reached, down.reached)))
            if not gaps:
                return
        self._looked[since, until] = now
        self._log_hidden(since, until)

    def _log_hidden(self, since: float, until: float) -> None:
        log.warning(
            "the server's searches do not reach every event of a span of time; those over 1 MiB in it may be missing",
            since=_stamp(since),
            until=_stamp(until),
        )

    def _log_lost(self, walk: _Walk) -> None:
        if monotonic() - self._logged >= TELL_EVERY:
            self._logged = monotonic()
            log.warning(
                "the page key of a search leads no further; reading on from the last event",
                answer=walk.lost,
                reached=_stamp(walk.reached),
            )

    async def _page(self, since: float, until: float, key: str, order: int) -> tuple[list[bytes], str]:
        limit = self._limit
        begun = monotonic()
        try:
            page = await self._client.search(since, until, limit=limit, key=key, types=self._types, order=order)
            self.seconds = monotonic() - begun
            return page
        except RpcError as error:
            if error.code != "INVALID_ARGUMENT":
                raise
            if "limit" in error.server_message and limit > SMALLER_PAGE:
                if limit == self._limit:  # several searches run side by side, and each finds out
                    log.info("the server refuses pages of this size", page=limit, smaller=SMALLER_PAGE)
                    self._limit = SMALLER_PAGE
                return await self._page(since, until, key, order)
            if key:
                log.warning("the server refuses the page key; reading on from the last event", error=str(error))
                return [], ""
            raise


async def put_page(pipeline: Consumer, stream: Stream, events: list[bytes]) -> int:
    """Put a page into the pipeline, a run at a time, and return how many of its events go to the sink for the first
    time.
    """
    fresh = 0
    for at in range(0, len(events), RUN):
        fresh += await pipeline.put(stream, raw_events(events[at : at + RUN]), None)
    return fresh


def _stamp(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return repr(seconds)
