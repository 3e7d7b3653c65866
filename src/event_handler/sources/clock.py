"""Watches this machine's clock: whether it jumps, and how far the times of new events are from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from time import monotonic, time

import structlog

JUMP = 60.0  # seconds that the clock may move against the time that really passed; time servers slew less than that
WRONG = 3600.0  # seconds between the clock and the times of new events that are worth a line
TELL_CLOCK_EVERY = 3600.0  # seconds between two such lines
SAMPLES = 9  # the middle one counts, so that a machine of the cluster with a wrong clock proves nothing

STALE = 120.0  # seconds without a whole look at the log, beside some pauses between looks, after which it is not known

log = structlog.get_logger()


def is_recent(complete: float, poll: float) -> bool:
    """Whether the last whole look at the log (seconds since the epoch, 0 = none) shows that nothing is missing now."""
    return bool(complete) and time() - complete < STALE + 3 * poll


class ClockWatch:
    """`wall` is the clock, in seconds since the epoch, `steady` one that never jumps."""

    def __init__(self, wall: Callable[[], float] = time, steady: Callable[[], float] = monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._logged = -TELL_CLOCK_EVERY

    def jumped(self) -> bool:
        """Whether the clock was set since the last look."""
        jump = self._wall() - self._steady() - self._offset
        if abs(jump) < JUMP:
            return False
        self._offset += jump
        self._samples = deque((sample - jump for sample in self._samples), SAMPLES)
        log.warning(
            "this machine's clock was set, or it was asleep; reading goes on from the events that were seen",
            seconds=round(jump),
        )
        return True

    def saw(self, moment: float, asked: float) -> None:
        """The newest of the new events that a search brought, which was begun at the time `asked` by this clock, is
        of that time.
        """
        self._samples.append(moment - min(max(moment, asked), self._wall()))
        drift = median(self._samples)
        if abs(drift) > WRONG and self._steady() - self._logged >= TELL_CLOCK_EVERY:
            self._logged = self._steady()
            log.warning(
                "the times of new events are far from this machine's clock; they may arrive late, none is lost",
                hours=round(drift / 3600.0, 1),
                next_step="Set this machine's clock, or find the machines of the cluster whose clock is wrong.",
            )

    def at_most(self) -> float:
        """The cluster's time as far as it is certain: ours, or that of new events where they are behind it."""
        return self._wall() + min(0.0, median(self._samples) if self._samples else 0.0)
