"""A report in one sentence: for systemd, and for the line that the log has each minute."""

from __future__ import annotations

from event_handler.report import Report
from event_handler.telemetry.status_text import span

WORTH_TELLING = 60.0  # seconds of lag; less is on its way anyway


def summary(report: Report) -> str:
    """What a person must know, on one line: what fails, else what is behind, else that all is well."""
    failing = [f"{sink.name} fails: {sink.failing}" for sink in report.sinks if sink.failing]
    apart = [
        f"no connection to Teleport: {one.failing or 'connecting'}" for one in report.readings if not one.connected
    ]
    if failing or apart:
        return " ".join("; ".join([*apart, *failing]).split())
    behind = [
        f"{sink.name} is {span(sink.lag)} behind"
        for sink in report.sinks
        if sink.lag is not None and sink.lag > WORTH_TELLING
    ]
    if behind:
        return "; ".join(behind)
    return f"delivering to {', '.join(sink.name for sink in report.sinks)}"


def seconds_left(earlier: Report, report: Report) -> float | None:
    """How long a backlog still takes at the pace since an `earlier` report; 0 without one, None while nothing tells.

    The end of the log goes on as the clock does while it is read.
    """
    now, before = _reached(report), _reached(earlier)
    if now is None or before is None or report.now <= earlier.now:
        return None
    if report.now - now <= WORTH_TELLING:
        return 0.0
    gained = (now - before) - (report.now - earlier.now)
    return None if gained <= 0.0 else (report.now - now) * (report.now - earlier.now) / gained


def _reached(report: Report) -> float | None:
    """The time up to which the slowest reading has read; that of the report where all is read."""
    positions = [one.position for one in report.readings]
    if not positions or any(one is None or one.until is None for one in positions):
        return None
    return min((report.now if one.caught_up else one.until or 0.0) for one in positions if one is not None)
