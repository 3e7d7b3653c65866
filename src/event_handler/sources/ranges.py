"""Cuts a span of the log into ranges of about equal numbers of events, so that several can be read side by side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from event_handler.ports import Stream

RANGES_AT_ONCE = 3  # each is a search on the server; a real one gives 18,500 events/s to one and 31,200 to three
EVENTS_OF_A_RANGE = (
    10_000  # about four pages, half a second: the last one to end keeps the others waiting for no longer
)
MOST_OF_A_RANGE = 16_000  # events; one that has more is cut at the place that was reached
WORTH_A_CUT = 3_000  # events still expected of a range, when another reader has nothing to do
# events read beyond a range that stands still: after a kill they are known by their ids, of which there is a bound
FARTHEST_AHEAD = 250_000
LONGEST_EMPTY = 90 * 86_400.0  # seconds; a start time years ago must not cost two searches for each empty day
SHORTEST = 1.0  # seconds; the coarsest back ends tell times apart by the second


@dataclass(slots=True, eq=False)
class Range:
    """A span of time to read, both ends included, and its place in the stream.

    `count` is how many events it has brought so far.
    """

    since: float
    until: float
    part: Stream
    count: int = 0
    done: bool = False


class Ranges:
    """Hands out the ranges of the span from `since` to `until`, none longer than `window` seconds unless the log is
    empty there.

    How long they are follows from what the ones before had. Each reader takes one after the other until there is none.
    """

    def __init__(self, since: float, until: float, window: float, part: Stream) -> None:
        self._rest = [Range(since, until, part)]  # in the order of time, as is what was taken
        self._taken: list[Range] = []  # from the first that is not done
        self._window = window
        self._length = min(window, max((until - since) / RANGES_AT_ONCE, SHORTEST))
        self._waiting = 0
        self._news = asyncio.Event()

    async def take(self) -> Range | None:
        """The next range to read, None when there is none. Waits while the one that is read may still be cut."""
        while True:
            if self._rest and self._ahead() < FARTHEST_AHEAD:
                return self._next()
            if not self._rest and all(one.done for one in self._taken):
                return None
            self._waiting += 1
            try:
                await self._news.wait()
            finally:
                self._waiting -= 1

    @property
    def begin(self) -> float | None:
        """Where the first range begins that is not read to its end, None when all are."""
        left = [one for one in (*self._taken, *self._rest) if not one.done]
        return min(map(_begin, left), default=None)

    def goes_on(self, one: Range, reached: float) -> bool:
        """Whether to read on in a range that has come to the time `reached`.

        When it is to end there, the rest is handed out again.
        """
        if not one.since < reached < one.until - SHORTEST:
            return True
        expected = one.count / (reached - one.since) * (one.until - reached)
        if one.count < MOST_OF_A_RANGE and not (self._waiting and expected > WORTH_A_CUT):
            return True
        self._rest.append(Range(reached, one.until, one.part.split()))
        self._rest.sort(key=_begin)
        one.until = reached
        return False

    def finish(self, one: Range) -> None:
        """A range was read to its end."""
        one.part.close()
        one.done = True
        length = max(one.until - one.since, SHORTEST)
        if one.count:
            self._length = min(self._window, max(length * EVENTS_OF_A_RANGE / one.count, SHORTEST))
        else:
            self._length = max(self._length, min(2 * length, max(self._window, LONGEST_EMPTY)))
        while self._taken and self._taken[0].done:
            del self._taken[0]
        self._wake()

    def _next(self) -> Range:
        first = self._rest[0]
        if first.until - first.since <= self._length + SHORTEST:
            taken = self._rest.pop(0)
        else:
            taken = Range(first.since, first.since + self._length, first.part)
            first.since, first.part = taken.until, taken.part.split()
        self._taken.append(taken)
        self._taken.sort(key=_begin)
        return taken

    def _ahead(self) -> int:
        """Events that were read beyond the first range that is not done."""
        return sum(one.count for one in self._taken[1:])

    def _wake(self) -> None:
        """Wake the readers that have nothing to do."""
        self._news.set()
        self._news = asyncio.Event()


def _begin(one: Range) -> float:
    return one.since
