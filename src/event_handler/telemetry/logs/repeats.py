"""Lets the first few of a line through and counts the rest, so that a fault that lasts does not fill the disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic

import structlog
from structlog.typing import EventDict, WrappedLogger

AT_MOST = 5  # identical lines within the span
SPAN = 60.0  # seconds, as often as the counters are logged
MOST_KEYS = 1000  # different lines remembered; a few hundred bytes each
SUMMARY = "line repeated, left out"


@dataclass(slots=True)
class _Window:
    began: float
    level: str
    line: str
    seen: int = 0
    left_out: int = 0


class Repeats:
    """A structlog processor, and a filter for the handlers of the standard library, which count together.

    Lines are identical when level, event and all fields that are text are; numbers (counts, waits) may differ. `clock`
    gives seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._windows: dict[Hashable, _Window] = {}  # the oldest first

    def __call__(self, _: WrappedLogger, level: str, line: EventDict) -> EventDict:
        event = str(line.get("event"))
        if event == SUMMARY:
            return line
        texts = [(name, value) for name, value in line.items() if isinstance(value, str) and name != "timestamp"]
        if not self._passes((level, *sorted(texts)), level, event):
            raise structlog.DropEvent
        return line

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return self._passes((record.levelname, record.name, text), record.levelname.lower(), text)

    def _passes(self, key: Hashable, level: str, line: str) -> bool:
        now = self._clock()
        self._log_ended(now)
        window = self._windows.setdefault(key, _Window(now, level, line))
        window.seen += 1
        if window.seen <= AT_MOST:
            return True
        window.left_out += 1
        return False

    def _log_ended(self, now: float) -> None:
        while self._windows:
            key, oldest = next(iter(self._windows.items()))
            if now - oldest.began < SPAN and len(self._windows) < MOST_KEYS:
                return
            del self._windows[key]
            if oldest.left_out:
                say = getattr(structlog.get_logger(), oldest.level, structlog.get_logger().warning)
                say(SUMMARY, line=oldest.line, times=oldest.left_out, within_s=round(now - oldest.began))
