"""Reads by search: history in windows, oldest first, then the tail by time with a look-back, so that late events are not missed.

The tail never relies on a saved page key: each poll asks from a little before the newest event seen to the future, and events
already delivered are dropped by their id. Position: stream `search`, a JSON object {from, to, key}.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import time

import orjson
import structlog

from event_handler.errors import RpcError
from event_handler.pipeline.engine import Pipeline
from event_handler.pipeline.ledger import Ledger
from event_handler.state.store import Store
from event_handler.teleport import messages
from event_handler.teleport.client import Client

LARGEST_PAGE = 10_000  # events; the server's limit, a page ends at about 1 MiB anyway
SMALLER_PAGE = 500  # events; for back ends that refuse the largest page
OVERLAP = 10.0  # seconds that every poll of the tail looks back: back ends write with that much delay and round to seconds
AHEAD = 3600.0  # seconds into the future that a poll reaches: our clock and the server's may differ
SWEEP_EVERY = 60.0  # seconds between polls of the tail that look back the whole look-back time
RUN = 200  # events put into the pipeline at a time
STREAM = "search"

log = structlog.get_logger()


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
        self._client = client
        self._pipeline = pipeline
        self._start = start
        self._window = window
        self._page = min(page or LARGEST_PAGE, LARGEST_PAGE)
        self._types = types
        self._look_back = look_back
        self._poll = poll
        self._until_caught_up = until_caught_up
        self._ledger = Ledger(STREAM)
        self._newest = start
        saved = orjson.loads(store.positions(STREAM).get(STREAM, "{}"))
        self._from: float = saved.get("from", start)
        self._to: float = saved.get("to", 0.0)
        self._key: str = saved.get("key", "")

    async def run(self) -> None:
        """Raises RpcError or ConnectError when a call fails; a new source goes on from what was remembered."""
        while (now := time()) - self._from > max(self._window, OVERLAP):
            until = self._to if self._key else min(self._from + self._window, now)
            await self._read(self._from, until, self._key)
            self._key, self._to = "", 0.0
            self._from = until
            await self._pipeline.put(self._ledger, [], write_position(self._from, 0.0, ""))
        self._newest = max(self._newest, self._from)
        swept = 0.0
        first = True
        while True:
            now = time()
            sweep = first or now - swept >= SWEEP_EVERY
            back = self._look_back if sweep else OVERLAP
            since = max(self._start, min(self._newest, now) - back)
            if self._key and first:
                since = min(since, self._from)
            seen = await self._read(since, now + AHEAD, "")
            if sweep:
                swept = now
            await self._pipeline.put(self._ledger, [], write_position(min(self._newest, now), 0.0, ""))
            if self._until_caught_up and not seen and not first:
                return
            first = False
            await asyncio.sleep(0.0 if seen or self._until_caught_up else self._poll)

    async def _read(self, since: float, until: float, key: str) -> int:
        """Read one window page by page, the next page requested while this one is delivered. Return how many events were new."""
        fresh = 0
        last = since
        asked, keyed_end = key, False
        async for events, page_key in self._pages(since, until, key):
            before = self._pipeline.duplicates
            for at in range(0, len(events), RUN):
                await self._pipeline.put(self._ledger, events[at : at + RUN], None)
            fresh += len(events) - (self._pipeline.duplicates - before)
            asked, keyed_end = page_key, not events and bool(asked)
            if events:
                last = max(last, messages.read_event(events[-1]).time)
                self._newest = max(self._newest, last)
            if page_key:
                await self._pipeline.put(self._ledger, [], write_position(since, until, page_key))
        if keyed_end and (last > since or key):
            # The file back end answers a key whose event it does not know (rotated, another Auth server) with an empty page.
            fresh += await self._read(last if last > since else since, until, "")
        elif not fresh:
            fresh += await self._look_from_the_end(last, until)
        return fresh

    async def _look_from_the_end(self, since: float, until: float) -> int:
        """Ask newest first: an event over 1 MiB hides all that follow it from a search that is oldest first (PostgreSQL)."""
        events, key = await self._search(since, until, "", messages.NEWEST_FIRST)
        fresh = 0
        while events:
            before = self._pipeline.duplicates
            await self._pipeline.put(self._ledger, events, None)
            page_fresh = len(events) - (self._pipeline.duplicates - before)
            fresh += page_fresh
            if not page_fresh or not key:
                break
            events, key = await self._search(since, until, key, messages.NEWEST_FIRST)
        return fresh

    async def _pages(self, since: float, until: float, key: str) -> AsyncIterator[tuple[list[bytes], str]]:
        events, next_key = await self._search(since, until, key)
        while next_key and next_key != key:
            key = next_key
            ahead = asyncio.create_task(self._search(since, until, key))
            try:
                yield events, key
                events, next_key = await ahead
            finally:
                ahead.cancel()
        yield events, ""

    async def _search(self, since: float, until: float, key: str, order: int = messages.OLDEST_FIRST) -> tuple[list[bytes], str]:
        try:
            return await self._client.search(since, until, limit=self._page, key=key, types=self._types, order=order)
        except RpcError as error:
            if error.code != "INVALID_ARGUMENT":
                raise
            if "limit" in error.server_message and self._page > SMALLER_PAGE:
                log.info("the server refuses pages of this size", page=self._page, smaller=SMALLER_PAGE)
                self._page = SMALLER_PAGE
                return await self._search(since, until, key, order)
            if key:
                log.warning("the server refuses the page key; reading the window anew", error=str(error))
                return await self._search(since, until, "", order)
            raise


def read_position(store: Store) -> float | None:
    """The time up to which everything was delivered, None before the first position."""
    saved = store.positions(STREAM).get(STREAM)
    return float(orjson.loads(saved)["from"]) if saved else None


def write_position(since: float, until: float, key: str) -> str:
    """The position of a window and of the page in it ("" = its beginning); times in seconds."""
    return orjson.dumps({"from": since, "to": until, "key": key}).decode()
