"""Reads by search: history in windows, oldest first, then the tail by time with a look-back, so that late events are not missed.

What is remembered is a time: every event before it has been delivered. Each poll of the tail asks from a little before the newest
event seen to the future, and events already delivered are dropped by their id. Position: stream `search`, seconds since the epoch.
After a take-over from the Go plugin, the fact `search_floor` is the time before which nothing is looked for, `search_last_id` the
last event that it delivered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic, time

from event_handler.pipeline.engine import Pipeline
from event_handler.pipeline.ledger import Ledger
from event_handler.sources.pages import Page, Search, put_page
from event_handler.sources.read_ahead import ReadAhead
from event_handler.state.store import Store
from event_handler.teleport.client import Client
from event_handler.teleport.decode import event_id, event_time

WINDOWS_AT_ONCE = 3  # of the past; each is a search on the server, and keeps up to four pages of 1 MiB here
OVERLAP = 10.0  # seconds that every poll of the tail looks back: back ends write with that much delay and round to seconds
LONGEST_EMPTY_WINDOW = 90 * 86_400.0  # seconds; a start time years ago must not cost two searches for each empty day
AHEAD = 3600.0  # seconds that our clock and the server's may differ: so far into the future a poll reaches, and the past stays open
SWEEP_EVERY = 60.0  # seconds between polls of the tail that look back the whole look-back time, and a day ahead
CLOCK_WRONG = 25 * 3600.0  # seconds; a clock of ours that is a time zone behind delays events by a sweep, one ahead by a deep sweep
SWEEPS_TO_DEEP = 60  # an hour; every such sweep looks back to the newest event seen, but not longer than CLOCK_WRONG
BUSY_PAUSE = 0.5  # seconds between polls while events come; doubled with every poll that finds nothing new
SERVER_REST = 4.0  # times as long as a search took, the server has rest of us: a file back end sorts the whole day for each
LOOK_FOR_LAST_ID = 2000  # events from the floor on; the plugin's page that the last id is in has 20, unless it was told otherwise
STREAM = "search"
FLOOR, LAST_ID = "search_floor", "search_last_id"  # facts


class SearchSource:
    """Follows the searchable log of one cluster until it is cancelled, or until all is read with `until_caught_up`."""

    def __init__(
        self,
        client: Client,
        pipeline: Pipeline,
        store: Store,
        *,
        start: float,
        window: float,
        page: int,
        types: tuple[str, ...],
        look_back: float,
        poll: float,
        until_caught_up: bool,
    ) -> None:
        self._search = Search(client, page, types)
        self._pipeline = pipeline
        self._store = store
        self._start = max(start, float(store.fact(FLOOR) or start))
        self._window = window
        self._look_back = look_back
        self._poll = poll
        self._until_caught_up = until_caught_up
        self._ledger = Ledger(STREAM)
        self._newest = self._start  # time of the newest event seen
        saved = read_position(store)
        self._from = self._start if saved is None else saved

    async def run(self) -> None:
        """Raises RpcError or ConnectError when a call fails; a new source goes on from what was remembered."""
        if last_id := self._store.fact(LAST_ID):
            await self._skip_until(last_id)
        await self._read_past()
        self._newest = swept_from = self._from
        swept, sweeps = 0.0, 0
        pause = BUSY_PAUSE
        while True:
            now = time()
            sweep = not sweeps or monotonic() - swept >= SWEEP_EVERY
            deep = sweep and sweeps % SWEEPS_TO_DEEP == 0
            # Older events can no longer appear, so a log in which nothing happens, or nothing that is asked for, stays cheap.
            open_since = now - (CLOCK_WRONG if deep else self._look_back + AHEAD)
            newest = min(max(self._newest, open_since), now)
            if sweep:  # what has appeared since the sweep before was late then, however much newer the newest is now
                since, ahead = min(swept_from, newest) - self._look_back, CLOCK_WRONG
                swept_from = newest
            else:
                since, ahead = newest - OVERLAP, AHEAD
            since = max(self._start, since)
            until = max(since, now + ahead)  # a start time may lie in the future
            seen = await self._read(since, until, self._search.pages(since, until))
            await self._reached(now)
            if self._until_caught_up and sweeps and not seen:
                return
            if sweep:
                swept, sweeps = monotonic(), sweeps + 1
            pause = BUSY_PAUSE if seen else min(pause * 2, self._poll)
            if not self._until_caught_up:
                await asyncio.sleep(max(min(pause, self._poll), self._search.seconds * SERVER_REST))

    async def _read_past(self) -> None:
        """Up to the newest hour, or look-back time, which is left to the tail.

        Windows are read side by side and delivered one after the other.
        """
        window, begin, newest = self._window, self._from, max(AHEAD, self._look_back)
        back = self._look_back  # what was late may have come after the reading had stopped
        ahead: deque[ReadAhead] = deque()
        try:
            while True:
                while len(ahead) < WINDOWS_AT_ONCE and (now := time() - newest) - begin > max(self._window, OVERLAP):
                    since, begin = max(self._start, begin - back), min(begin + window, now)
                    back = OVERLAP
                    ahead.append(ReadAhead(since, begin, self._search.pages(since, begin)))
                if not ahead:
                    return
                fresh = await self._read(ahead[0].since, ahead[0].until, ahead[0].pages())
                await self._reached(ahead[0].until)
                window = self._window if fresh else min(window * 2, max(self._window, LONGEST_EMPTY_WINDOW))
                await ahead.popleft().stop()
        finally:
            for one in ahead:
                await one.stop()

    async def _skip_until(self, last_id: str) -> None:
        """Count the events from the floor to `last_id` as delivered. When it is not there, they are sent again."""
        before: list[bytes] = []
        async with aclosing(self._search.pages(self._start, time() + AHEAD)) as pages:
            async for events, _ in pages:
                ids = [event_id(wire) for wire in events]
                if last_id in ids:
                    self._pipeline.skip([*before, *events[: ids.index(last_id) + 1]])
                    break
                before += events
                if len(before) >= LOOK_FOR_LAST_ID:
                    break
        self._store.remember(LAST_ID, "")

    async def _reached(self, moment: float) -> None:
        """Everything before `moment` has been put into the pipeline. What only our clock tells counts when it is long ago."""
        self._from = max(self._from, min(moment, max(self._newest, time() - CLOCK_WRONG)))
        await self._pipeline.put(self._ledger, [], repr(self._from))

    async def _read(self, since: float, until: float, pages: AsyncGenerator[Page]) -> int:
        """Read one window page by page. Return how many events were new."""
        fresh = 0
        reached = since
        async with aclosing(pages):
            async for events, reached in pages:
                fresh += await self._put(events)
                await self._reached(min(reached, time()))
        return fresh or await self._look_from_the_end(reached, until)

    async def _look_from_the_end(self, since: float, until: float) -> int:
        """Up to a page without anything new: what an event that is too large hides from a search that is oldest first."""
        fresh = 0
        async with aclosing(self._search.newest_first(since, until)) as pages:
            async for events in pages:
                new = await self._put(events)
                fresh += new
                if not new:
                    break
        return fresh

    async def _put(self, events: list[bytes]) -> int:
        fresh = await put_page(self._pipeline, self._ledger, events)
        if events:
            self._newest = max(self._newest, event_time(events[0]), event_time(events[-1]))
        return fresh


def read_position(store: Store) -> float | None:
    """The time up to which everything was delivered, None before the first position."""
    saved = store.positions(STREAM).get(STREAM)
    return float(saved) if saved else None
