"""How many requests a pipeline may have in flight: more while the answers come as quickly as before, fewer when the
receiver suffers.

The rule is that of Vector's "adaptive request concurrency": additive growth, multiplicative decrease, judged once a
round trip.
Until it had to decrease for the first time it grows faster, as TCP does, so that a far collector is soon used.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from time import monotonic

# requests; about what the Go plugin sends at a time, so nobody's collector is met by more before it has shown that it
# can
START = 8
FIRST_GROWTH = (
    4  # the limit grows by one part of so many a round trip until it was first lowered, by one request afterwards
)
AFTER_REFUSAL = 0.5  # share of the limit that stays when the receiver says itself that it cannot (429, 5xx, no answer)
AFTER_SLOW_ROUND = 0.9  # share that stays when its answers take longer, which may also be chance
WEIGHT = 0.4  # of the newest round in the moving average: it forgets the pace of a while ago within some ten rounds
DEVIATIONS = 2.5  # standard deviations above the average that chance hardly explains
LEAST_MARGIN = (
    0.05  # of the average; a receiver that always took equally long is not slow at the first millisecond more
)


class Concurrency:
    """The limit of one pipeline, between 1 and `ceiling`. It hears of every request; `clock` gives seconds.

    A round ends when as many answers came as the limit allowed requests at its beginning.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = monotonic) -> None:
        self._ceiling = ceiling
        self._clock = clock
        self._usual = 0.0  # seconds; 0 before the first round has ended
        self._variance = 0.0
        self._refused_at = -1.0
        self._lowered = False
        self.limit = min(START, ceiling)
        self.in_flight = 0
        self._full = False  # whether this round has used the limit up
        self._begin_round()

    @property
    def free(self) -> int:
        """Requests that may be sent now; below 1 when the limit has been reached or lowered."""
        return self.limit - self.in_flight

    def sent(self) -> float:
        """A request goes out now. Returns its time, by which one of the methods below knows it."""
        self.in_flight += 1
        self._full = self._full or self.in_flight >= self.limit
        return self._clock()

    def answered(self, sent: float) -> None:
        """The receiver has looked at what it was sent, and took it or refused its content."""
        self.in_flight -= 1
        self._answers += 1
        self._seconds += self._clock() - sent
        if self._answers >= self._round:
            self._judge(self._seconds / self._answers)

    def refused(self, sent: float) -> None:
        """The receiver could not take it.

        Of the requests of one round trip only the first that fails counts: they fail together.
        """
        self.in_flight -= 1
        if sent > self._refused_at:
            self._refused_at = self._clock()
            self._change(AFTER_REFUSAL)

    def told_nothing(self) -> None:
        """The request ended in a way that says nothing about how much the receiver can take, as a wrong password."""
        self.in_flight -= 1

    def _judge(self, average: float) -> None:
        """Compare a round with those before it; a round that left the limit unused only counts for the average."""
        change = average - self._usual
        if not self._usual:
            self._usual = average
        elif self._full and change <= 0.0:
            self.limit = min(self.limit + (1 if self._lowered else max(1, self.limit // FIRST_GROWTH)), self._ceiling)
        elif self._full and change > max(DEVIATIONS * sqrt(self._variance), LEAST_MARGIN * self._usual):
            self._change(AFTER_SLOW_ROUND)
        step = WEIGHT * (average - self._usual)
        self._variance = (1.0 - WEIGHT) * (self._variance + step * (average - self._usual))
        self._usual += step
        self._begin_round()

    def _change(self, share: float) -> None:
        self.limit = max(1, int(self.limit * share))
        self._lowered = True
        self._begin_round()

    def _begin_round(self) -> None:
        self._round = self.limit
        self._answers = 0
        self._seconds = 0.0
        self._full = False
