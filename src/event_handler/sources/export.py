"""Reads by bulk export: the days from the start time on, chunk by chunk, several chunks at once.

A chunk is listed only when it is complete and never changes, but chunks of a past day can appear days later, so the
newest days stay polled. A chunk that the server lists and does not give is replaced by a search of its day.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from time import monotonic, time
from uuid import UUID

import structlog

from event_handler.backoff import backoff
from event_handler.checkpoint import DONE, Chunk, ChunkCheckpoint, begin_of, day_of
from event_handler.errors import ConnectError, RpcError
from event_handler.ports import Consumer, SharedState, Stream
from event_handler.report import Position
from event_handler.sources.clock import ClockWatch, is_recent
from event_handler.sources.pages import Search, put_page
from event_handler.sources.stall_detector import StallDetector
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import event_time
from event_handler.teleport.wire.raw import raw_events

CHUNKS_AT_ONCE = (
    4  # a server downloads each chunk whole; 3 to 8 is what its documentation bears. One where order is kept
)
LOOK_AGAIN_AFTER = 2.0  # seconds until a chunk of another replica is looked at again
LISTINGS_AT_ONCE = 8  # days; a start time years ago must not cost a round trip for each empty day
LONGEST_CHUNK_WAIT = 60.0  # seconds between tries of a chunk that fails
FOUND_WAIT = 0.5  # seconds to the next listing when this one brought new chunks
LOOK_FOR_END_EVERY = 0.2  # seconds; with `until_caught_up` the process waits for nothing else then
OLD_DAYS_EVERY = 6  # polls; days before yesterday are listed only at every sixth
DAY = 86_400.0  # seconds
FAR = 400 * DAY  # seconds around our clock in which the newest event is looked for, however wrong that clock is
CHUNK_SPAN = 300.0  # seconds; a back end closes a chunk after a minute, or later under load
REFUSED_CURSOR_TRIES = (
    3  # a back end may refuse a good cursor for a moment; after that the chunk is read from its start
)
UNREADABLE_TRIES = 20  # in a row without an event, over about six minutes; then search has to find what the chunk holds
# chunks, about a week; while more are to be read, no day is listed, or a start years ago would fill the memory
LISTED_AHEAD = 10_000
CODES_OF_THE_CLUSTER = frozenset(
    {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED", "PERMISSION_DENIED", "UNAUTHENTICATED"}
)  # codes that tell nothing about the chunk that was asked for: waited out, however long that takes

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Reading:
    """A chunk being read. `cursor` is the place after the last event that was put into the pipeline ("" = its start).

    `attempt` counts the tries in a row without an event, `refused` those of them that failed because of the chunk
    itself, or all of those since it was begun `again` because its cursor was refused; `empty` is one that was read to
    its end and had no event. `asked` is the time by our clock from which on its events are, when it is known that it
    was just made.
    """

    chunk: Chunk
    cursor: str
    stream: Stream | None = None  # until it is taken: another replica may be reading it
    attempt: int = 0
    refused: int = 0
    again: bool = False
    empty: bool = False
    asked: float | None = None


class BulkSource:
    """Follows the bulk export of one cluster until it is cancelled.

    With `until_caught_up` until all is read and delivered, with `near` until a listing finds nothing new.
    """

    def __init__(
        self,
        client: Client,
        pipeline: Consumer,
        store: SharedState,
        *,
        start: float,
        late_days: int,
        poll: float,
        until_caught_up: bool,
        near: bool = False,
        longest_wait: float = LONGEST_CHUNK_WAIT,
    ) -> None:
        self._client = client
        self._search = Search(client)
        self._pipeline = pipeline
        self._store = store
        self._late_days = late_days
        self._poll = poll
        self._longest_wait = longest_wait
        self._until_caught_up = until_caught_up
        self._near = near
        self._first = day_of(start)
        self._start: float | None = start  # while nothing says that the clock it was made by was right
        self._newest: date | None = (
            None  # the last day that is known to have events: the cluster's time was at least that
        )
        self._clock = ClockWatch(lambda: time(), lambda: monotonic())
        self._caught_up = False
        self._complete = 0.0  # seconds since the epoch: when the last listing began that found nothing new
        self._closed: frozenset[date] = frozenset()
        self._cursors: dict[Chunk, str] = {}
        self._known: set[Chunk] = set()
        self._open: set[_Reading] = set()
        self._lost: dict[date, set[_Reading]] = {}  # chunks whose events a search has to find
        # In the order of the days and, by their names, of their making; bounded by LISTED_AHEAD and what a day has.
        self._waiting: asyncio.PriorityQueue[tuple[Chunk, _Reading]] = asyncio.PriorityQueue()
        self._behind = False
        self._stall_detector = StallDetector(client)

    async def run(self) -> None:
        """Raises RpcError or ConnectError when listing fails; chunks retry by themselves. Resumable at any time."""
        progress = await self._store.progress()
        if progress.first_day is not None:
            self._first, self._start = progress.first_day, None
        self._closed = progress.closed_days
        self._cursors = dict(progress.chunks)
        self._known = {chunk for chunk, cursor in self._cursors.items() if cursor == DONE}
        # For all searches of lost chunks: after one that failed, what it found may be in flight and is known.
        self._found = await self._pipeline.track()
        await self._look_for_the_newest()
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._read_chunks()) for _ in range(1 if self._pipeline.ordered else CHUNKS_AT_ONCE)
            ]
            await self._list_for_ever()
            for worker in workers:
                worker.cancel()

    @property
    def position(self) -> Position:
        """How far reading is. A chunk is listed when it is complete, so its events are up to a minute older."""
        unread = [reading.chunk for reading in self._open if reading.cursor != DONE]
        if not unread:
            return Position("bulk", self._complete or None, is_recent(self._complete, self._poll))
        oldest = min(unread)
        made = oldest.made or begin_of(oldest.day)
        return Position("bulk", made, False, len(unread))

    async def _look_for_the_newest(self) -> None:
        """Find out how far the log is, for our clock may be wrong by days, and a start time may have been made by
        such a clock.
        """
        now = time()
        try:
            newest = await self._search.newest(min(now, begin_of(self._first)) - FAR, now + FAR)
        except RpcError as error:  # not allowed, or too long for this server; the chunks tell as well, later
            log.debug("cannot search for the newest event", error=str(error))
            return
        if newest is None:
            return
        self._newest = day_of(newest)
        if self._start is not None and newest < self._start <= now:
            self._first = min(self._first, self._newest)

    async def _list_for_ever(self) -> None:
        round_number = 0
        while True:
            self._clock.jumped()
            began = time()
            found = await self._list(self._days(round_number))
            if found or self._unfinished():
                self._stall_detector.progress()
            elif self._until_caught_up or self._near:
                return
            else:
                self._caught_up, self._complete = True, began
                await self._stall_detector.look()
            round_number += 1
            await self._until_next_listing(found)

    async def _until_next_listing(self, found: int) -> None:
        """With `until_caught_up` the next one is that which finds nothing more, as soon as all is read and
        delivered.
        """
        if not self._until_caught_up:
            await asyncio.sleep(FOUND_WAIT if found else self._poll)
            return
        end = monotonic() + self._poll
        await asyncio.sleep(LOOK_FOR_END_EVERY)
        try:
            while (unfinished := self._unfinished()) and monotonic() < end:
                self._pipeline.nothing_follows(all(reading.cursor == DONE for reading in unfinished))
                await asyncio.sleep(LOOK_FOR_END_EVERY)
        finally:
            self._pipeline.nothing_follows(False)

    async def _list(self, days: list[date]) -> int:
        """List days, oldest first, as long as there is room for their chunks.

        Queue the new ones and return how many they are.
        """
        found, first = 0, self._first
        self._behind = False
        try:
            for at in range(0, len(days), LISTINGS_AT_ONCE):
                if len(self._unfinished()) > LISTED_AHEAD:
                    self._behind = True
                    break
                some = days[at : at + LISTINGS_AT_ONCE]
                for day, names in zip(some, await asyncio.gather(*map(self._names, some)), strict=True):
                    found += await self._queue(day, names)
                    self._close_if_old(day)
        except (RpcError, ConnectError):
            await self._remember_closed(first)
            raise
        await self._remember_closed(first)
        return found

    async def _names(self, day: date) -> list[str]:
        return [name async for name in self._client.chunks(_noon(day))]

    async def _queue(self, day: date, names: list[str]) -> int:
        """Queue the chunks of a day that are not known yet and return how many.

        Listing never waits for the reading of one.
        """
        if names:
            self._newest = max(day, self._newest or day)
        new = [chunk for name in dict.fromkeys(names) if (chunk := Chunk(day, name)) not in self._known]
        for chunk in new:
            reading = _Reading(chunk, self._cursors.pop(chunk, ""))
            if self._caught_up and day == self._newest:
                reading.asked = time() - self._poll - CHUNK_SPAN
            self._known.add(chunk)
            self._open.add(reading)
            self._wait(reading)
        return len(new)

    def _wait(self, reading: _Reading) -> None:
        self._waiting.put_nowait((reading.chunk, reading))

    def _days(self, round_number: int) -> list[date]:
        """To the last day that there can be: ours, or the log's where that is ahead of us, and now and then the one
        behind it.
        """
        last = max(day_of(time()), self._newest or self._first)
        often = bool(round_number % OLD_DAYS_EVERY) and not self._until_caught_up and not self._behind
        if not often and last == self._newest:
            last += timedelta(days=1)
        days = [self._first + timedelta(days=n) for n in range((last - self._first).days + 1)]
        days = [day for day in days if day not in self._closed]
        return days[-2:] if often else days

    def _unfinished(self) -> set[_Reading]:
        """Chunks that are not read and delivered whole."""
        self._open = {one for one in self._open if one.cursor != DONE or (one.stream and not one.stream.drained)}
        return self._open

    def _close_if_old(self, day: date) -> None:
        """Stop polling the first day once it is older than the late window and all its chunks are delivered.

        Our clock alone proves nothing: one that is ahead by days would close days that still get chunks.
        """
        if day != self._first or self._newest is None:
            return
        if day >= min(day_of(time()), self._newest) - timedelta(days=self._late_days):
            return
        if any(reading.chunk.day == day for reading in self._unfinished()):
            return
        self._first += timedelta(days=1)
        while self._first in self._closed:
            self._first += timedelta(days=1)

    async def _remember_closed(self, before: date) -> None:
        """Remember at once all days that were closed since `before` was the first day, and forget their chunks."""
        if self._first == before:
            return
        await self._store.close_days(self._first)
        self._known = {chunk for chunk in self._known if chunk.day >= self._first}

    async def _read_chunks(self) -> None:
        while True:
            _, reading = await self._waiting.get()
            stream = reading.stream or await self._take(reading)
            if stream is None:
                continue
            try:
                await self._read(reading, stream)
            except (RpcError, ConnectError) as error:
                self._interrupted(reading, error)
                if reading.refused < UNREADABLE_TRIES:
                    await self._read_again(reading)
                    continue
            if reading.empty or reading.refused >= UNREADABLE_TRIES:
                self._lost.setdefault(reading.chunk.day, set()).add(reading)
            else:
                await self._done(reading)
            await self._find_lost(reading.chunk.day)

    async def _take(self, reading: _Reading) -> Stream | None:
        """Make a chunk ours. None where another replica has read it, or does: then it is looked at again."""
        cursor = await self._store.take(reading.chunk)
        if cursor is None:
            asyncio.get_running_loop().call_later(LOOK_AGAIN_AFTER, self._wait, reading)
            return None
        reading.cursor = cursor
        if cursor == DONE:
            await self._find_lost(reading.chunk.day)
            return None
        reading.stream = await self._pipeline.track(reading.chunk)
        return reading.stream

    async def _read(self, reading: _Reading, stream: Stream) -> None:
        chunk = reading.chunk
        async for events, cursor in self._client.export(_noon(chunk.day), chunk.name, reading.cursor):
            await self._pipeline.put(stream, raw_events(events), ChunkCheckpoint(chunk, cursor))
            if reading.asked is not None and events:
                self._clock.saw(event_time(events[-1]), reading.asked)
            reading.cursor, reading.attempt = cursor, 0
            if not reading.again:
                reading.refused = 0
        reading.empty = not reading.cursor

    async def _done(self, reading: _Reading) -> None:
        await self._pipeline.put(reading.stream, [], ChunkCheckpoint(reading.chunk, DONE))
        reading.cursor = DONE

    async def _find_lost(self, day: date) -> None:
        """Search for what the lost chunks of a day hold, after all others of it were read: what is new then is
        theirs.
        """
        while lost := self._lost.get(day):
            if any(one.chunk.day == day and one.cursor != DONE and one not in lost for one in self._open):
                return
            del self._lost[day]
            try:
                await self._search_instead(day, lost)
            except (RpcError, ConnectError) as error:
                log.warning("search failed, will be repeated", day=str(day), chunks=len(lost), error=str(error))
                for reading in lost:
                    reading.attempt += 1
                    # It is read once more before the next search.
                    reading.refused = min(reading.refused, UNREADABLE_TRIES - 1)
                    self._wait_later(reading)
                return
            for reading in lost:
                await self._done(reading)

    async def _search_instead(self, day: date, lost: set[_Reading]) -> None:
        """Find the events of chunks in another way, and wait until they are delivered. What is found beside them is
        dropped by id.

        Servers before December 2025 give no event of a chunk that has just one (gravitational/teleport pull request
        62138), which is looked for around the chunk's making first, for a whole day may be long.
        """
        await self._store.know_others()
        found = 0
        unreadable = [reading.chunk.name for reading in lost if reading.refused >= UNREADABLE_TRIES]
        if not unreadable:
            for since, until in sorted({_made_between(reading.chunk) for reading in lost}):
                found += await self._put_span(since, until)
        # Fewer: one was late. More: events that left the window of ids since they were read are among them.
        if found != len(lost):
            found += await self._put_span(begin_of(day), begin_of(day) + DAY)
        await self._pipeline.drain(self._found)
        log.info("searched for chunks that the server gives no events of", day=str(day), chunks=len(lost), found=found)
        if unreadable:
            log.error(
                "chunks cannot be read; their events were taken from a search of the day, where those over 1 MiB are "
                "shortened",
                day=str(day),
                chunks=unreadable,
            )

    async def _put_span(self, since: float, until: float) -> int:
        """Put what a search finds between two times into the pipeline, and return how many events were new."""
        found = 0
        async with aclosing(self._search.pages(since, until)) as pages:
            async for events, _ in pages:
                found += await put_page(self._pipeline, self._found, events)
        return found

    def _interrupted(self, reading: _Reading, error: RpcError | ConnectError) -> None:
        day, name = reading.chunk.day, reading.chunk.name
        log.warning("chunk interrupted, will go on where it was", day=str(day), chunk=name, error=str(error))
        code = error.code if isinstance(error, RpcError) else ""
        reading.attempt += 1
        reading.refused += bool(code) and code not in CODES_OF_THE_CLUSTER
        if code == "INVALID_ARGUMENT" and reading.attempt > REFUSED_CURSOR_TRIES:
            reading.cursor, reading.again = "", True  # duplicates are dropped by id

    async def _read_again(self, reading: _Reading) -> None:
        """Read a chunk on after a pause; the others wait for that only where order is kept."""
        if self._pipeline.ordered:
            await asyncio.sleep(backoff(reading.attempt, self._longest_wait))
            self._wait(reading)
        else:
            self._wait_later(reading)

    def _wait_later(self, reading: _Reading) -> None:
        asyncio.get_running_loop().call_later(backoff(reading.attempt, self._longest_wait), self._wait, reading)


def _made_between(chunk: Chunk) -> tuple[float, float]:
    """The span of time in which the event of a chunk probably was, at most its whole day.

    Its name tells when it was made (UUIDv7), a minute or so after its events, unless it was late.
    """
    begin = begin_of(chunk.day)
    try:
        made = (UUID(chunk.name).int >> 80) / 1000
    except ValueError:
        made = 0.0
    since, until = max(begin, made - CHUNK_SPAN), min(begin + DAY, made)
    return (since, until) if since < until else (begin, begin + DAY)


def _noon(day: date) -> float:
    """A time of `day`: only the UTC date counts for the server."""
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
