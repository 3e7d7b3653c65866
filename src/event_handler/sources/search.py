"""Reads by search: what is past in ranges side by side, then the tail by time with a look-back, so that late events are
not missed.

What is remembered is a time: every event before it has been delivered. It never passes the newest event that the
cluster has shown, whatever this machine's clock says. Each poll of the tail asks from a little before the newest event
seen to the future; beside the polls, sweeps look back at what may have come late. Events already delivered are dropped
by their id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from math import inf
from time import monotonic, time

import structlog

from event_handler.checkpoint import SearchCheckpoint
from event_handler.errors import RpcError
from event_handler.ports import REMEMBERED_IDS, Consumer, ReadingState, Stream
from event_handler.report import Position
from event_handler.sources.clock import ClockWatch, is_recent
from event_handler.sources.pages import Search, put_page
from event_handler.sources.ranges import RANGES_AT_ONCE, Range, Ranges
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import event_id, event_time
from event_handler.teleport.wire.raw import raw_events

OVERLAP = 10.0  # seconds that a poll of the tail looks back: back ends write with that much delay and round to seconds
BUSY_OVERLAP = 2.0  # seconds; in a busy log the rest of OVERLAP is left to the sweeps
AHEAD = 3600.0  # seconds that our clock and the server's may differ: so far into the future a poll reaches
BUSY_SWEEP_EVERY = 5.0  # seconds; then a sweep takes only what has just become as old as the look-back time
BUSY = 100_000  # events that a sweep would read each minute; where there are more the log is busy
CLOCK_WRONG = (
    25 * 3600.0
)  # seconds that sweeps look ahead: a clock of ours that is a time zone behind delays events by one
FAR_FROM_NOW = 10 * 365 * 86_400.0  # seconds; where nothing is near our clock, the cluster's time may be so far from it
BEHIND = 60.0  # seconds; what is older is read in ranges
BEHIND_EVENTS = 30_000  # the tail is read in ranges, too, when so many are waiting
BUSY_PAUSE = 0.5  # seconds between polls while events come; doubled with every poll that finds nothing new
FRUITLESS_REST = 30.0  # seconds, when the server answered a search with empty pages without end
IDS_FOR_SWEEPS = (
    0.8  # of those remembered, the share that what a sweep looks back at may have; others are in flight or late
)
LOOK_FOR_LAST_ID = (
    2000  # events from the floor on; the plugin's page that the last id is in has 20, unless it was told otherwise
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SearchPace:
    """`sweep` are the seconds between sweeps, which look back the whole look-back time, and a day ahead.

    `deep` are those between sweeps that go back to the newest event seen, however long ago that is by our clock.
    `rest` is how many times as long as a search took the server has rest of us: a file back end sorts the whole day for
    each.
    """

    sweep: float = 60.0
    deep: float = 3600.0
    rest: float = 4.0


SEARCH_PACE = SearchPace()


@dataclass(slots=True)
class _Front:
    """A place in time where new events appear: at this machine's time, and perhaps at another one when a clock is
    wrong.

    `newest` is the time of the newest event seen there. Before `settled` nothing can appear any more, for it was read
    when it was as old as the look-back time; before `near` it was read when it was as old as OVERLAP.
    """

    newest: float
    settled: float
    near: float


class SearchSource:
    """Follows the searchable log of one cluster until it is cancelled.

    With `until_caught_up` until all is read, with `near` until the past is read and the tail follows.
    """

    def __init__(
        self,
        client: Client,
        pipeline: Consumer,
        store: ReadingState,
        *,
        start: float,
        window: float,
        page: int,
        types: tuple[str, ...],
        look_back: float,
        poll: float,
        until_caught_up: bool,
        near: bool = False,
        pace: SearchPace = SEARCH_PACE,
    ) -> None:
        self._search = Search(client, page, types)
        self._pipeline = pipeline
        self._store = store
        self._start = start
        self._window = window
        self._filtered = bool(types)
        self._look_back = look_back
        self._poll_interval = poll
        self._pace = pace
        self._until_caught_up = until_caught_up
        self._near = near
        self._clock = ClockWatch(lambda: time(), lambda: monotonic())
        self._go_on_from(None)
        self._far: _Front | None = None  # more than AHEAD of our clock
        self._from = start
        self._ranges: Ranges | None = None  # the last long span that was read
        self._rate = 0.0  # events a second of the log's time, lately
        self._deep_due = 0.0
        self._deep_pause = self._pace.sweep
        self._hurry = asyncio.Event()
        self._look_back_logged = False
        self._complete = 0.0  # seconds since the epoch: when the last look began that read all that there was

    async def run(self) -> None:
        """Raises RpcError or ConnectError when a call fails, or a group of them.

        A new source goes on from what was remembered.
        """
        progress = await self._store.progress()
        self._stream = await self._pipeline.track()
        floor, searched = progress.floor, progress.searched
        self._start = min(
            self._start if floor is None else max(self._start, floor), inf if searched is None else searched
        )
        self._go_on_from(searched)
        if progress.last_id:
            await self._skip_until(progress.last_id)
        if searched is None:
            await self._begin_no_later_than_the_log()
        await self._catch_up()
        await self._sweep(deep=True)
        if self._near:
            await self._reached(time())
            return
        if self._until_caught_up:
            while await self._poll():
                pass
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_for_ever())
            await self._poll_for_ever()

    @property
    def position(self) -> Position:
        """How far reading is."""
        begin = self._ranges.begin if self._ranges else None
        if begin is not None:
            return Position("search", begin, False)
        return Position("search", self._complete or self._from, is_recent(self._complete, self._poll_interval))

    def _go_on_from(self, saved: float | None) -> None:
        """Set out where reading was, or at the start."""
        self._from = self._floor = self._start if saved is None else saved
        # What was late may have come since the last sweep.
        back = 0.0 if saved is None else self._look_back + self._pace.sweep + OVERLAP
        self._begin = max(self._start, self._from - back)
        self._front = _Front(self._from, self._begin, self._begin)

    async def _skip_until(self, last_id: str) -> None:
        """Count the events from the floor to `last_id` as delivered. When it is not there, they are sent again."""
        before: list[bytes] = []
        async with aclosing(self._search.pages(self._start, time() + AHEAD)) as pages:
            async for events, _ in pages:
                ids = [event_id(event) for event in events]
                if last_id in ids:
                    await self._pipeline.skip(raw_events([*before, *events[: ids.index(last_id) + 1]]))
                    break
                before += events
                if len(before) >= LOOK_FOR_LAST_ID:
                    break
        await self._store.last_id_passed()

    async def _begin_no_later_than_the_log(self) -> None:
        """A start time that was made by a clock ahead of the cluster's would pass by all that happens until the
        cluster gets there.
        """
        now = time()
        if self._start > now:
            return  # the user wants to wait until then
        newest = await self._newest(self._start - FAR_FROM_NOW, now + AHEAD, of_any_type=True)
        if newest is not None and newest < self._start:
            begin = newest + 0.001  # seconds; not that event itself
            self._start = begin
            self._go_on_from(None)

    async def _catch_up(self) -> None:
        """Read everything up to now. What appeared late while it was read is left to the sweeps."""
        since, begun, now = self._begin, monotonic(), time()
        first = now
        while now - since > BEHIND:
            await self._read_ranges(since, now)
            since, now = now - OVERLAP, time()
        seen = min(
            first, self._front.newest - (monotonic() - begun)
        )  # the cluster's time at the beginning was not before that
        self._front.settled = max(self._front.settled, seen - self._look_back)
        self._front.near = self._front.settled

    async def _read_ranges(self, since: float, until: float) -> None:
        """Read a long span in ranges side by side, in any order unless order is to be kept."""
        first, self._stream = self._stream, self._stream.split()
        ranges = self._ranges = Ranges(since, until, self._window, first)
        async with asyncio.TaskGroup() as group:
            for _ in range(1 if self._pipeline.ordered else RANGES_AT_ONCE):
                group.create_task(self._read_one_by_one(ranges))

    async def _read_one_by_one(self, ranges: Ranges) -> None:
        while one := await ranges.take():
            await self._read_range(one, ranges)
            ranges.finish(one)

    async def _read_range(self, one: Range, ranges: Ranges) -> None:
        begin = one.since
        async with aclosing(self._search.pages(one.since, one.until)) as pages:
            async for events, reached in pages:
                one.count += len(events)
                await put_page(self._pipeline, one.part, events)
                self._see(events)
                await self._pipeline.put(one.part, [], SearchCheckpoint(self._position(reached)))
                if not ranges.goes_on(one, reached):
                    break
        if one.count:
            self._rate = one.count / max(one.until - begin, OVERLAP)
        else:
            await self._look_from_the_end(one.since, one.until, one.part)
        await self._pipeline.put(one.part, [], SearchCheckpoint(self._position(one.until)))

    async def _poll_for_ever(self) -> None:
        pause = BUSY_PAUSE
        while True:
            fruitless, began = self._search.fruitless, time()
            seen = await self._poll()
            self._complete = began
            pause = BUSY_PAUSE if seen else min(pause * 2, self._poll_interval)
            rest = max(min(pause, self._poll_interval), self._search.seconds * self._pace.rest)
            await asyncio.sleep(FRUITLESS_REST if self._search.fruitless > fruitless else rest)

    async def _poll(self) -> int:
        """Look for new events, at our time and, where there are any, far ahead of it.

        Return how many events were new.
        """
        if self._clock.jumped():
            self._after_jump()
        now, low, front = time(), self._clock.at_most(), self._front
        overlap = BUSY_OVERLAP if self._busy else OVERLAP
        if low - front.newest > BEHIND and self._rate * (low - front.newest) > BEHIND_EVENTS:
            await self._read_ranges(front.newest - overlap, now)
        # Older events can no longer appear, so a log in which nothing happens, or nothing that is asked for, stays
        # cheap.
        newest = min(max(front.newest, low - self._look_back - AHEAD), low)
        since = max(self._start, newest - overlap)
        until = max(since, now + (OVERLAP if self._far else AHEAD))  # a start time may lie in the future
        seen = await self._read(since, until, self._reached)
        await self._reached(now)
        if far := self._far:
            seen += await self._read(far.newest - overlap, far.newest + AHEAD)
            if far.newest <= time() + AHEAD:
                self._far = None
        return seen

    def _after_jump(self) -> None:
        """Our clock was wrong before or is wrong now: look everywhere soon.

        What was far ahead of it may be at its time now.
        """
        if self._far and self._far.newest <= time() + AHEAD:
            self._front, self._far = self._far, None
        self._deep_due, self._deep_pause = 0.0, self._pace.sweep
        self._hurry.set()

    async def _sweep_for_ever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BUSY_SWEEP_EVERY if self._busy else self._pace.sweep):
                    await self._hurry.wait()
            self._hurry.clear()
            await self._sweep(deep=monotonic() >= self._deep_due)

    async def _sweep(self, *, deep: bool) -> None:
        """Look for what came late.

        A `deep` sweep believes no clock; it is done seldom, for it may go back far in a log with few events.
        """
        low, shown = self._clock.at_most(), 0.0
        if deep:
            self._deep_due, self._deep_pause = (
                monotonic() + self._deep_pause,
                min(2 * self._deep_pause, self._pace.deep),
            )
            await self._look_far_ahead()
            if (
                self._filtered
            ):  # what is asked for may be rare, or never happen; the other events tell the cluster's time
                shown = await self._newest(self._front.settled, time() + AHEAD, of_any_type=True) or 0.0
        oldest = self._front.settled if deep else low - 2 * self._look_back - AHEAD
        await self._sweep_front(self._front, low, oldest, time() + (OVERLAP if self._far else CLOCK_WRONG))
        self._front.newest = max(self._front.newest, min(shown, low))
        if far := self._far:
            await self._sweep_front(far, far.newest, far.settled, far.newest + CLOCK_WRONG)

    async def _sweep_front(self, front: _Front, low: float, oldest: float, until: float) -> None:
        newest, look_back = min(front.newest, low), self._look_back
        if self._busy:  # each event is read once more when it is as old as OVERLAP, and as the look-back time
            look_back = self._bearable_look_back()
            near, front.near = front.near, max(front.near, newest - OVERLAP)
            await self._read_back(near, front.near)
            await self._read_back(front.settled, newest - look_back)
        else:
            since = max(self._start, front.settled, oldest)
            await self._read(since, max(since, until))
            front.near = max(front.near, newest - OVERLAP)
        front.settled = max(front.settled, newest - look_back)

    async def _read_back(self, since: float, until: float) -> None:
        since = max(self._start, since - BUSY_OVERLAP)
        if until - since > BEHIND and self._rate * (until - since) > BEHIND_EVENTS:
            await self._read_ranges(since, until)
        elif until > since:
            await self._read(since, until)

    @property
    def _busy(self) -> bool:
        return self._rate * (self._look_back + self._pace.sweep) > BUSY

    def _bearable_look_back(self) -> float:
        """The look-back time, or less where more events come in it than ids are remembered: they would all be sent
        twice.
        """
        known = IDS_FOR_SWEEPS * REMEMBERED_IDS / self._rate - 2 * BUSY_SWEEP_EVERY
        if known >= self._look_back:
            return self._look_back
        if not self._look_back_logged:
            self._look_back_logged = True
            log.warning(
                "so many events come that not all ids of the look-back time can be remembered; it is shortened",
                events_a_second=round(self._rate),
                look_back=f"{known:.0f}s",
            )
        return max(known, OVERLAP)

    async def _look_far_ahead(self) -> None:
        """Where nothing is near our time, the cluster may be far ahead of it: find out, and read what is there."""
        now = time()
        if abs(now - self._front.newest) < AHEAD or self._far:
            return
        newest = await self._newest(now + CLOCK_WRONG, now + FAR_FROM_NOW)
        if newest is not None:
            await self._read_ranges(max(self._start, now - OVERLAP), newest)
            self._far = _Front(newest, newest - self._look_back, newest - self._look_back)
            self._clock.saw(newest, now)

    async def _newest(self, since: float, until: float, *, of_any_type: bool = False) -> float | None:
        """The time of the newest event between two times, None when there is none or the server does not tell."""
        try:
            return await self._search.newest(since, until, of_any_type=of_any_type)
        except RpcError as error:  # too long for this server, or refused
            log.debug("cannot search for the newest event", error=str(error))
            return None

    def _position(self, moment: float) -> float:
        """What may be remembered when all before `moment` has been put into the pipeline: a clock that is ahead proves
        nothing.
        """
        return max(self._floor, min(moment, time(), self._clock.at_most(), self._front.newest))

    async def _reached(self, moment: float) -> None:
        """Everything before `moment` has been put into the pipeline."""
        self._from = max(self._from, self._position(moment))
        await self._pipeline.put(self._stream, [], SearchCheckpoint(self._from))

    async def _read(self, since: float, until: float, reach: Callable[[float], Awaitable[None]] | None = None) -> int:
        """Read one span page by page, and `reach` the time of each page. Return how many events were new."""
        asked, count, fresh, newest = time(), 0, 0, since
        async with aclosing(self._search.pages(since, until)) as pages:
            async for events, reached in pages:
                count += len(events)
                fresh += await put_page(self._pipeline, self._stream, events)
                newest = self._see(events)
                if reach:
                    await reach(reached)
        if not count:
            return await self._look_from_the_end(since, until, self._stream)
        if reach:
            self._rate = (self._rate + count / max(newest - since, OVERLAP)) / 2
        if fresh:
            self._clock.saw(newest, asked)
        return fresh

    async def _look_from_the_end(self, since: float, until: float, stream: Stream) -> int:
        """Up to a page without anything new: what an event that is too large hides from a search that is oldest
        first.
        """
        fresh, asked = 0, time()
        async with aclosing(self._search.newest_first(since, until)) as pages:
            async for events in pages:
                new = await put_page(self._pipeline, stream, events)
                newest = self._see(events)
                if new and not fresh:
                    self._clock.saw(newest, asked)
                fresh += new
                if not new:
                    break
        return fresh

    def _see(self, events: list[bytes]) -> float:
        """Take note of the times of a page, and return that of its newest event."""
        times = event_time(events[0]), event_time(events[-1])
        for moment in times:
            if moment <= time() + AHEAD:
                self._front.newest = max(self._front.newest, moment)
            elif self._far is None:
                self._far = _Front(moment, time(), time())
            else:
                self._far.newest = max(self._far.newest, moment)
        return max(times)
