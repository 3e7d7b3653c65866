"""How long a delivery waits before it tries again, and what ends a pause early."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from event_handler.backoff import FIRST_WAIT, backoff


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """All in seconds. Pauses are random, up to `first` at the first try and twice as long at each further one.

    `longest` is the limit: a receiver that is back is noticed within half a minute. `misconfigured` is that where only
    a person can help, `suspect` that of an event which is refused while others are taken, `narrowing` that between
    smaller and smaller batches, which soon tell whether it is the receiver or one event. A receiver that asks for a
    longer pause than `asked` is tried again after that one. Tries of events that are set aside are `spacing` apart,
    however many they are, while nothing is taken.
    """

    first: float = FIRST_WAIT
    longest: float = 30.0
    misconfigured: float = 60.0
    suspect: float = 10.0
    narrowing: float = 2.0
    asked: float = 300.0
    spacing: float = 2.0

    def pause(self, attempt: int, longest: float) -> float:
        """Seconds before the next try after the `attempt`-th failure, from 0."""
        return backoff(attempt, longest, self.first)


RETRY = RetryPolicy()


class Pauses:
    """The pauses of one delivery. `taken` is called whenever the receiver has taken something."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def taken(self) -> None:
        self._count += 1
        while self._waiting:
            waiting = self._waiting.pop()
            if not waiting.done():
                waiting.set_result(None)

    async def until_taken(self, seconds: float) -> None:
        """Sleep so long, or until something is taken, and then a little, for others wake at the same time."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiting
        self._waiting.discard(waiting)
        if waiting.done() and not waiting.cancelled():
            await asyncio.sleep(min(self._policy.pause(0, self._policy.first), seconds))

    async def for_all_of(self, seconds: float) -> None:
        """Sleep so long; of a longer pause than `longest`, which the receiver has asked for, the rest only while it
        takes nothing.
        """
        count = self._count
        await asyncio.sleep(min(seconds, self._policy.longest))
        if seconds > self._policy.longest and self._count == count:
            await self.until_taken(seconds - self._policy.longest)
