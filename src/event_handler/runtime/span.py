"""Reads a span of the log that has passed, from one time to another, on purpose: to deliver it again, or to compare."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from event_handler.event import RawEvent
from event_handler.sources.pages import Search
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.raw import raw_events

Page = tuple[list[RawEvent], float]  # events, and the time before which all were read


async def read_span(
    client: Client, since: float, until: float, page: int, types: tuple[str, ...] = ()
) -> AsyncGenerator[Page]:
    """All events from `since` to `until` (seconds since the epoch), oldest first, some of them twice.

    `types` are asked of the server alone where there are any; `page` 0 is the largest. Raises RpcError or ConnectError.
    """
    search = Search(client, page, types)
    brought = False
    async with aclosing(search.pages(since, until)) as pages:
        async for wires, reached in pages:
            brought = True
            yield raw_events(wires), min(reached, until)
    if not brought:  # an event that is too large hides those behind it from a search that is oldest first
        async with aclosing(search.newest_first(since, until)) as hidden:
            async for wires in hidden:
                yield raw_events(wires), until
