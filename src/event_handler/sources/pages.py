"""Asks for the pages of a search: every event of a span of time, whatever becomes of the page keys.

Page keys live within one read only: servers lose them (rotated files, another Auth server).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

import structlog

from event_handler.errors import RpcError
from event_handler.pipeline.engine import Pipeline
from event_handler.pipeline.ledger import Ledger
from event_handler.teleport.client import RUN, Client
from event_handler.teleport.decode import event_time
from event_handler.teleport.messages import NEWEST_FIRST, OLDEST_FIRST

LARGEST_PAGE = 10_000  # events; the server's limit, a page ends at about 1 MiB anyway
SMALLER_PAGE = 500  # events; for back ends that refuse the largest page

Page = tuple[list[bytes], float]  # events, and the time before which every event is in this page or one before it

log = structlog.get_logger()


class Search:
    """Searches the log of one cluster: at most `page` events at a time (0 = the largest page), of `types` only where there are any.

    `seconds` is how long the server took for the last page. All methods raise RpcError or ConnectError.
    """

    def __init__(self, client: Client, page: int = 0, types: tuple[str, ...] = ()) -> None:
        self._client = client
        self._limit = min(page or LARGEST_PAGE, LARGEST_PAGE)
        self._types = types
        self.seconds = 0.0

    async def pages(self, since: float, until: float) -> AsyncGenerator[Page]:
        """All pages from `since` to `until` (seconds since the epoch), oldest first, each next one requested ahead.

        Behind a page key that was lost it reads on from the last event, so some events come twice.
        """
        while True:
            reached, count, lost = since, 0, False
            async with aclosing(self._oldest_first(since, until)) as pages:
                async for events in pages:
                    # The file back end answers a key whose event it does not know (rotated, another Auth server) with an empty page.
                    lost = count > 0 and not events
                    count += 1
                    if events:
                        reached = max(reached, min(event_time(events[-1]), until))
                        yield events, reached
            if not lost:
                return
            if reached == since:
                break
            since = reached
        async with aclosing(self.newest_first(since, until)) as pages:
            async for events in pages:
                yield events, since

    async def newest_first(self, since: float, until: float) -> AsyncGenerator[list[bytes]]:
        """Pages from the end: an event over 1 MiB hides all that follow it from a search that is oldest first (PostgreSQL)."""
        key = ""
        while True:
            events, next_key = await self._page(since, until, key, NEWEST_FIRST)
            yield events
            if not next_key or next_key == key:
                return
            key = next_key

    async def _oldest_first(self, since: float, until: float) -> AsyncGenerator[list[bytes]]:
        key = ""
        events, next_key = await self._page(since, until, key, OLDEST_FIRST)
        while next_key and next_key != key:
            key = next_key
            ahead = asyncio.create_task(self._page(since, until, key, OLDEST_FIRST))
            try:
                yield events
                events, next_key = await ahead
            finally:
                ahead.cancel()
        yield events

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
            if key and order == OLDEST_FIRST:
                log.warning("the server refuses the page key; reading on from the last event", error=str(error))
                return [], ""
            raise


async def put_page(pipeline: Pipeline, ledger: Ledger, events: list[bytes]) -> int:
    """Put a page into the pipeline, a run at a time, and return how many of its events go to the sink for the first time."""
    fresh = 0
    for at in range(0, len(events), RUN):
        fresh += await pipeline.put(ledger, events[at : at + RUN], None)
    return fresh
