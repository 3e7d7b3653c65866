"""A line at the end of a terminal that tells how a backlog goes, as long as there is one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from event_handler.report import Report
from event_handler.telemetry.logs import show
from event_handler.telemetry.status_text import span
from event_handler.telemetry.summary import WORTH_TELLING, seconds_left

EVERY = 1.0  # seconds between two looks
PACE_OF = 15  # looks that a pace is told by: chunks come in jerks


async def show_progress(report: Callable[[], Awaitable[Report]]) -> None:
    """Draw the line anew until cancelled; nothing stays of it."""
    seen: deque[tuple[Report, int]] = deque(maxlen=PACE_OF)
    shown = ""
    try:
        while True:
            now = await report()
            seen.append((now, sum(sink.delivered for sink in now.sinks)))
            earlier, before = seen[0]
            text = progress_text(earlier, now, seen[-1][1] - before)
            if text or shown:
                show(text)
            shown = text
            await asyncio.sleep(EVERY)
    finally:
        if shown:
            show("")


def progress_text(earlier: Report, report: Report, delivered: int) -> str:
    """Rate, lag and what is left, "" while nothing is far behind. `delivered` since the `earlier` report."""
    if report.lag is None or report.lag <= WORTH_TELLING:
        return ""
    seconds = report.now - earlier.now
    rate = f"{delivered / seconds:,.0f} events/s, " if seconds > 0 else ""
    left = seconds_left(earlier, report)
    estimate = f", about {span(left)} left" if left else ""
    return f"{rate}{span(report.lag)} behind{estimate}"
