"""How fast a server gives out events at most: a token bucket that all its streams and pages share."""

from __future__ import annotations

import asyncio
from time import monotonic

BURST = 0.01  # seconds of events that may come at once, so that waking up late costs nothing of the pace


class Pace:
    """At most `rate` events a second, 0 = no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = monotonic()  # when all events asked for so far may be out

    async def take(self, events: int) -> None:
        """Return when so many events more may go out; who asks first is served first."""
        if self._rate:
            now = monotonic()
            self._due = max(self._due, now - BURST) + events / self._rate
            await asyncio.sleep(self._due - now)
