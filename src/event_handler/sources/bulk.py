"""Reads by bulk export: the days from the start time on, chunk by chunk, several chunks at once.

A chunk is listed only when it is complete and never changes, but chunks of a past day can appear days later, so the
newest days stay polled. Positions: `bulk/<day>/<chunk>` holds the cursor, or DONE; the fact `bulk_from` is the first
day still polled, the fact `bulk_closed` names later ones that the Go plugin had finished.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from time import time
from uuid import UUID

import structlog

from event_handler.errors import ConnectError, RpcError
from event_handler.pipeline.delivery import backoff
from event_handler.pipeline.engine import Pipeline
from event_handler.pipeline.ledger import Ledger
from event_handler.state.store import Store
from event_handler.teleport.client import RUN, Client

FIRST_DAY, CLOSED_DAYS = "bulk_from", "bulk_closed"  # facts
DONE = "done"  # no server cursor looks like that: Athena's are `a1:<number>`
CHUNKS_AT_ONCE = 4  # a server downloads each chunk whole; 3 to 8 is what its documentation bears
LISTINGS_AT_ONCE = 8  # days; a start time years ago must not cost a round trip for each empty day
LONGEST_WAIT = 60.0  # seconds between tries of a chunk that fails
FOUND_WAIT = 0.5  # seconds to the next listing when this one brought new chunks
OLD_DAYS_EVERY = 6  # polls; days before yesterday are listed only at every sixth
DAY = 86_400.0  # seconds
CHUNK_SPAN = 300.0  # seconds; a back end closes a chunk after a minute, or later under load
SEARCH_PAGE = 10_000  # events; the largest page that servers give
REFUSED_CURSOR_TRIES = 3  # a back end may refuse a good cursor for a moment; after that the chunk is read from its start

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Chunk:
    """A chunk being read. `cursor` is the place after the last event that was put into the pipeline ("" = its start)."""

    day: date
    name: str
    cursor: str
    ledger: Ledger
    attempt: int = 0

    @property
    def stream(self) -> str:
        return self.ledger.stream


class BulkSource:
    """Follows the bulk export of one cluster until it is cancelled, or until all is read with `until_caught_up`."""

    def __init__(
        self,
        client: Client,
        pipeline: Pipeline,
        store: Store,
        *,
        start: float,
        late_days: int,
        poll: float,
        until_caught_up: bool,
    ) -> None:
        self._client = client
        self._pipeline = pipeline
        self._store = store
        self._late_days = late_days
        self._poll = poll
        self._until_caught_up = until_caught_up
        saved = store.fact(FIRST_DAY)
        self._first = date.fromisoformat(saved) if saved else day_of(start)
        self._closed = {date.fromisoformat(day) for day in store.fact(CLOSED_DAYS).split()}
        self._cursors: dict[str, str] = {}
        self._known: set[str] = set()
        self._open: set[_Chunk] = set()
        self._gone: dict[str, _Chunk] = {}  # not found when they were read; the server may list them again
        self._waiting: asyncio.Queue[_Chunk] = asyncio.Queue()  # bounded by what the listed days have

    async def run(self) -> None:
        """Raises RpcError or ConnectError when listing fails; chunks retry by themselves. Resumable at any time."""
        self._cursors = self._store.positions("bulk/")
        self._known = {stream for stream, cursor in self._cursors.items() if cursor == DONE}
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._read_chunks()) for _ in range(CHUNKS_AT_ONCE)]
            await self._list_for_ever()
            for worker in workers:
                worker.cancel()

    async def _list_for_ever(self) -> None:
        round_number = 0
        while True:
            found = 0
            days = self._days(round_number)
            for at in range(0, len(days), LISTINGS_AT_ONCE):
                some = days[at : at + LISTINGS_AT_ONCE]
                for day, names in zip(some, await asyncio.gather(*map(self._names, some)), strict=True):
                    found += self._queue(day, names)
                    self._close_if_old(day)
            if self._until_caught_up and not found and not self._unfinished():
                return
            round_number += 1
            await asyncio.sleep(0.2 if self._until_caught_up else FOUND_WAIT if found else self._poll)

    async def _names(self, day: date) -> list[str]:
        return [name async for name in self._client.chunks(_noon(day))]

    def _queue(self, day: date, names: list[str]) -> int:
        """Queue the chunks of a day that are not known yet and return how many. Listing never waits for the reading of one."""
        new = [name for name in names if f"bulk/{day}/{name}" not in self._known]
        for name in new:
            stream = f"bulk/{day}/{name}"
            # One that comes back keeps its ledger, in which events may still be in flight.
            chunk = self._gone.pop(stream, None) or _Chunk(day, name, self._cursors.pop(stream, ""), Ledger(stream))
            self._known.add(stream)
            self._open.add(chunk)
            self._waiting.put_nowait(chunk)
        return len(new)

    def _days(self, round_number: int) -> list[date]:
        today = day_of(time())
        days = [self._first + timedelta(days=n) for n in range((today - self._first).days + 1)]
        days = [day for day in days if day not in self._closed]
        if round_number % OLD_DAYS_EVERY and not self._until_caught_up:
            return days[-2:]
        return days

    def _unfinished(self) -> set[date]:
        """Days with chunks that are not read and delivered whole."""
        self._open = {chunk for chunk in self._open if chunk.cursor != DONE or not chunk.ledger.drained}
        return {chunk.day for chunk in self._open}

    def _close_if_old(self, day: date) -> None:
        """Stop polling the first day once it is older than the late window and all its chunks are delivered."""
        if day != self._first or day >= day_of(time()) - timedelta(days=self._late_days) or day in self._unfinished():
            return
        self._first += timedelta(days=1)
        while self._first in self._closed:
            self._first += timedelta(days=1)
        self._store.remember(FIRST_DAY, str(self._first))
        self._store.forget(f"bulk/{day}/")
        self._known = {stream for stream in self._known if not stream.startswith(f"bulk/{day}/")}
        self._gone = {stream: chunk for stream, chunk in self._gone.items() if chunk.day != day}

    async def _read_chunks(self) -> None:
        while True:
            chunk = await self._waiting.get()
            try:
                async for events, cursor in self._client.export(_noon(chunk.day), chunk.name, chunk.cursor):
                    await self._pipeline.put(chunk.ledger, events, cursor)
                    chunk.cursor, chunk.attempt = cursor, 0
                if not chunk.cursor:
                    await self._search_instead(chunk)
                await self._pipeline.put(chunk.ledger, [], DONE)
                chunk.cursor = DONE
            except (RpcError, ConnectError) as error:
                self._again(chunk, error)

    async def _search_instead(self, chunk: _Chunk) -> None:
        """Find the event of a chunk that came without any: servers before December 2025 give none of a chunk that has just one.

        Source: gravitational/teleport pull request 62138. What search finds beside it is dropped by id.
        """
        since, until = _made_between(chunk)
        log.info("chunk without events; searching for the one that it may have", day=str(chunk.day), chunk=chunk.name)
        key, asked = "", None
        while key != asked:
            asked = key
            events, key = await self._client.search(since, until, limit=SEARCH_PAGE, key=asked)
            for at in range(0, len(events), RUN):
                await self._pipeline.put(chunk.ledger, events[at : at + RUN], None)
            if not key:
                return

    def _again(self, chunk: _Chunk, error: RpcError | ConnectError) -> None:
        """Read a chunk on later, where it was interrupted; the other chunks do not wait for it."""
        code = error.code if isinstance(error, RpcError) else ""
        log.warning("chunk interrupted, will go on where it was", day=str(chunk.day), chunk=chunk.name, error=str(error))
        if code == "NOT_FOUND":  # gone from the server, or not there yet: it counts as new when it is listed again
            self._open.discard(chunk)
            self._gone[chunk.stream] = chunk
            self._known.discard(chunk.stream)
            return
        chunk.attempt += 1
        if code == "INVALID_ARGUMENT" and chunk.attempt > REFUSED_CURSOR_TRIES:
            chunk.cursor = ""  # duplicates are dropped by id
        asyncio.get_running_loop().call_later(backoff(chunk.attempt, LONGEST_WAIT), self._waiting.put_nowait, chunk)


def unfinished_since(store: Store) -> float | None:
    """The start of the first day that is not known to be delivered whole, None before the first listing.

    Without unfinished chunks that is yesterday: chunks appear minutes after their events.
    """
    known = store.positions("bulk/")
    if not known:
        return None
    days = [date.fromisoformat(stream.split("/")[1]) for stream, cursor in known.items() if cursor != DONE]
    newest = max(date.fromisoformat(stream.split("/")[1]) for stream in known)
    first = min([*days, newest - timedelta(days=1)])
    return datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()


def _made_between(chunk: _Chunk) -> tuple[float, float]:
    """The times between which the events of a chunk lie: its name tells when it was made (UUIDv7); otherwise its whole day."""
    begin = datetime(chunk.day.year, chunk.day.month, chunk.day.day, tzinfo=UTC).timestamp()
    try:
        made = (UUID(chunk.name).int >> 80) / 1000
    except ValueError:
        made = 0.0
    if not begin <= made < begin + 2 * DAY:
        return begin, begin + DAY
    return max(begin, made - CHUNK_SPAN), min(begin + DAY, made)


def day_of(seconds: float) -> date:
    """The UTC day of a time in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).date()


def _noon(day: date) -> float:
    """A time of `day`: only the UTC date counts for the server."""
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
