"""Reads a window of a search ahead: its pages are fetched while those of the windows before it are still delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from event_handler.sources.pages import Page

PAGES_AHEAD = 1  # pages kept for each window beside the one that waits to be kept; a page has up to 1 MiB


class ReadAhead:
    """The pages of the window from `since` to `until` (seconds since the epoch), fetched from now on."""

    def __init__(self, since: float, until: float, pages: AsyncGenerator[Page]) -> None:
        self.since = since
        self.until = until
        self._kept: asyncio.Queue[Page | Exception | None] = asyncio.Queue(PAGES_AHEAD)
        self._fetching = asyncio.create_task(self._fetch(pages))

    async def _fetch(self, pages: AsyncGenerator[Page]) -> None:
        try:
            async with aclosing(pages):
                async for page in pages:
                    await self._kept.put(page)
            await self._kept.put(None)
        except Exception as error:  # raised again where the pages are used, in their order
            await self._kept.put(error)

    async def pages(self) -> AsyncGenerator[Page]:
        """The pages in their order. Raises what fetching them raised."""
        while (page := await self._kept.get()) is not None:
            if isinstance(page, Exception):
                raise page
            yield page

    async def stop(self) -> None:
        self._fetching.cancel()
        await asyncio.gather(self._fetching, return_exceptions=True)
