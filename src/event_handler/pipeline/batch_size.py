"""How many bytes a batch may have at the moment: fewer after time-outs and resets of large ones, more while answers are
quick.

A receiver that needs too long for a large batch, or drops it without a word, would otherwise be sent the same one for
ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

# bytes; grows with each quick answer, so a receiver that is slow for each event is not met by its time-out at once
START_BYTES = 16 * 1024
AT_ONCE = 1.0  # seconds; four times as much still is quick
QUICK = 5.0  # seconds; twice as much still ends well within a time-out of 30 s
SLOW = 10.0  # seconds; a third of the usual time-out, within which the next answers may take longer than this one
RAISE_AFTER = (
    20.0  # seconds at a size that is known to be the largest until a larger one is tried again, doubled if it fails
)
LONGEST_RAISE = (
    600.0  # seconds; each try of a size that is too large may cost a time-out, and its events may arrive twice
)
RECENT = 60.0  # seconds; a batch that fails so soon after another as large was answered does not fail for its size
REMEMBERED = 16  # answers, the largest of a while


class BatchSize:
    """The limit for one sink, between 1 and `most` bytes; `clock` gives seconds.

    A size that fails and works the next time is forgotten: an outage leaves nothing. One that fails while smaller ones
    are answered, twice, is a ceiling for a while.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._ceiling = most
        self._failed = 0  # the size that failed last, 0 when one of that size was answered since
        self._lowered_at = float("-inf")
        self._answered_since = float("inf")  # when the first answer came after that
        self._raise_at = 0.0
        self._raise_after = RAISE_AFTER
        self._largest: deque[tuple[float, int]] = deque(
            maxlen=REMEMBERED
        )  # when the answer came, and the size; falling sizes
        self.limit = min(START_BYTES, most)

    def answered(self, size: int, sent: float, full: bool) -> None:
        """The receiver answered for `size` bytes; `full` when there was more to send."""
        now = self._clock()
        while self._largest and self._largest[-1][1] <= size:
            self._largest.pop()
        self._largest.append((now, size))
        if self._failed:
            self._answered_since = min(self._answered_since, now)
            if size >= self._failed:
                self._failed, self._ceiling, self._raise_after = 0, self._most, RAISE_AFTER
        if self._ceiling < self._most and now >= self._raise_at:
            self._ceiling = min(self._ceiling * 2, self._most)
            self._raise_at = now + self._raise_after
        if not full:
            return
        if now - sent < QUICK:
            more = 4 if now - sent < AT_ONCE else 2
            self.limit = max(1, min(max(self.limit, more * size), self._ceiling))
        elif now - sent > SLOW:
            self.limit = max(1, min(self.limit, size // 2))

    def failed(self, size: int, sent: float) -> None:
        """Several events of `size` bytes together got no answer, or the answer that they are too large."""
        now = self._clock()
        if sent < self._lowered_at or any(now - came < RECENT and others >= size for came, others in self._largest):
            return  # sent before the limit was lowered, or others as large are answered: not the size
        if self._failed and sent >= self._answered_since:
            self._ceiling = max(1, min(size // 2, self._ceiling))
            self._raise_at = now + self._raise_after
            self._raise_after = min(2 * self._raise_after, LONGEST_RAISE)
        self._failed = size
        self._lowered_at = now
        self._answered_since = float("inf")
        self.limit = max(1, min(size // 2, self._ceiling))
