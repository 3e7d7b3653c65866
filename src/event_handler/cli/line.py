"""One sink at work: its state, its lines, and its own reading of the cluster, so that a sink that is down stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from event_handler.event import Event
from event_handler.pipeline.duplicates import DuplicateWindow
from event_handler.pipeline.engine import LineLimits, Pipeline
from event_handler.pipeline.letters import retry_letters
from event_handler.pipeline.select import Selector
from event_handler.sinks.base import Sink
from event_handler.sources.follow import Follower, FollowSettings
from event_handler.state.store import Store
from event_handler.teleport.client import Client

RECORDINGS_SHARE = 4  # recordings get a quarter of the bytes and requests: a backlog of them never holds up the audit log


@dataclass(frozen=True, slots=True)
class Filters:
    """Event types, patterns and codes to deliver (docs/filters.md); empty `types` means all."""

    types: tuple[str, ...]
    skip_types: tuple[str, ...]
    skip_session_types: tuple[str, ...]

    def lists(self) -> dict[str, tuple[str, ...]]:
        """The lists by the names of their options."""
        return {"types": self.types, "skip-event-types": self.skip_types, "skip-session-types": self.skip_session_types}


@dataclass(slots=True)
class Line:
    """A running line. `audit` and `recordings` deliver apart from each other."""

    sink: Sink
    store: Store
    selector: Selector
    audit: Pipeline
    recordings: Pipeline
    follower: Follower
    retrying: asyncio.Task[None]
    read: asyncio.Event  # everything was, so letters are tried for the last time

    async def run(self) -> None:
        """Read and deliver until cancelled, or with `exit_on_last_event` until all is delivered and all letters were tried."""
        await self.follower.run()
        self.read.set()
        await self.retrying

    async def finish(self, seconds: float) -> bool:
        """Wait up to `seconds` until what is in flight has been delivered; return whether it has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.follower.drain()
                return True
        return False


@asynccontextmanager
async def open_line(
    sink: Sink,
    store: Store,
    filters: Filters,
    connect: Callable[[], Client],
    follow: FollowSettings,
    max_bytes: int,
) -> AsyncIterator[Line]:
    """Start the deliverers of a sink; reading begins with `follower.run()`. The sink is closed at the end."""
    window = DuplicateWindow()
    window.load(store.delivered_ids())
    selector = Selector(
        sink.name,
        window,
        types=filters.types,
        skip_types=filters.skip_types,
        skip_session_types=filters.skip_session_types,
        recordings=follow.recordings,
    )
    requests = max(1, sink.limits.requests // RECORDINGS_SHARE)
    limits = LineLimits(max(1, sink.limits.requests - requests), max_bytes - max_bytes // RECORDINGS_SHARE)
    try:
        async with (
            Pipeline(sink, store, selector, limits) as audit,
            Pipeline(sink, store, selector, LineLimits(requests, max_bytes // RECORDINGS_SHARE)) as recordings,
        ):
            read = asyncio.Event()

            def delivered(event: Event) -> None:
                (recordings if event.session_id else audit).letter_delivered(event)

            retrying = asyncio.create_task(retry_letters(sink, store, read, delivered))
            follower = Follower(connect, audit, recordings, store, follow)
            try:
                yield Line(sink, store, selector, audit, recordings, follower, retrying, read)
            finally:
                retrying.cancel()
                await asyncio.gather(retrying, return_exceptions=True)
    finally:
        await sink.close()
