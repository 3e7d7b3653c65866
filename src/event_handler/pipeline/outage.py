"""Says that deliveries fail and why, at once and then every minute, and that they work again."""

from __future__ import annotations

from collections.abc import Callable
from time import time

import structlog

REMIND_EVERY = 60.0  # seconds between lines while the receiver does not take events

log = structlog.get_logger()


class Outage:
    """The state of one sink as its user sees it. `reason` is why deliveries fail at the moment, "" while they work."""

    def __init__(self, sink: str, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._clock = clock
        self._logged: dict[str, float] = {}  # when each reason was logged last
        self._suspect_logged_at = float("-inf")
        self._said = False
        self.reason = ""
        self.next_step = ""
        self.since: float | None = None  # seconds since the epoch

    def failed(self, reason: str, wait: float, next_step: str = "", *, person: bool) -> None:
        """`person` when it stays so until a person does something about it."""
        self.reason, self.next_step = reason, next_step
        if self.since is None:
            self.since = time()
        now = self._clock()
        if now - self._logged.get(reason, float("-inf")) < REMIND_EVERY:
            return
        self._logged = {old: at for old, at in self._logged.items() if now - at < REMIND_EVERY} | {reason: now}
        self._said = True
        say = log.error if person else log.warning
        hint = {"next_step": next_step} if next_step else {}
        say("delivery fails, will repeat until it works", sink=self._sink, reason=reason, wait_s=round(wait, 1), **hint)

    def suspected(self, type_: str, id_: str, reason: str) -> None:
        """One event is not taken while others are, which is no outage."""
        now = self._clock()
        if now - self._suspect_logged_at < REMIND_EVERY:
            return
        self._suspect_logged_at = now
        text = "an event is not taken while others are; it is tried again, and kept as a dead letter if that stays so"
        log.warning(text, sink=self._sink, type=type_, id=id_, reason=reason)

    def works(self) -> None:
        self.reason = self.next_step = ""
        self.since = None
        if self._said:
            self._said = False
            log.info("delivery works again", sink=self._sink)
