"""One sentence says what is the matter, and how long a backlog still takes."""

from __future__ import annotations

import pytest

from event_handler.report import Position, Report
from event_handler.telemetry.progress_line import progress_text
from event_handler.telemetry.summary import seconds_left, summary
from tests.support.reports import ALL_READ, NOW, report_of, sink_of


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (report_of(), "delivering to siem"),
        (report_of(sink_of("a"), sink_of("b", lag=None)), "delivering to a, b"),
        (report_of(sink_of("a", lag=7500.0), sink_of("b")), "a is 2 h 5 min behind"),
        (report_of(sink_of(failing="it\nanswered 503"), sink_of("b", lag=900.0)), "siem fails: it answered 503"),
        (report_of(connected=False, failing="refused"), "no connection to Teleport: refused"),
        (report_of(connected=False), "no connection to Teleport: connecting"),
    ],
)  # fmt: skip
def test_a_summary_tells_the_worst_first(report: Report, said: str) -> None:
    assert summary(report) == said


def at(now: float, until: float | None) -> Report:
    return report_of(position=Position("bulk", until, False), now=now)


@pytest.mark.parametrize(
    ("earlier", "report", "left"),
    [
        # In 60 seconds 660 were read; the clock went on for 60, so that 600 were gained of 6000.
        (at(NOW, NOW - 6600), at(NOW + 60, NOW - 5940), 600.0),
        (at(NOW, NOW - 6600), at(NOW + 60, NOW - 6540), None),  # as fast as the clock: never
        (at(NOW, NOW - 6600), at(NOW + 60, NOW - 6600), None),
        (at(NOW, NOW - 6600), at(NOW, NOW - 6000), None),
        (at(NOW, None), at(NOW + 60, NOW), None),
        (at(NOW, NOW - 6600), report_of(position=ALL_READ, now=NOW + 60), 0.0),
        (at(NOW, NOW - 6600), at(NOW + 60, NOW + 30), 0.0),  # what is on its way anyway
        (at(NOW, NOW - 6600), report_of(position=None, now=NOW + 60), None),
    ],
)
def test_the_time_left_is_that_of_the_pace_so_far(earlier: Report, report: Report, left: float | None) -> None:
    assert seconds_left(earlier, report) == left


def test_the_progress_line_is_there_while_something_is_far_behind() -> None:
    behind = report_of(sink_of(lag=7500.0), position=Position("bulk", NOW - 5940, False), now=NOW + 60)
    earlier = at(NOW, NOW - 6600)
    assert progress_text(earlier, behind, 1_200_000) == "20,000 events/s, 2 h 5 min behind, about 10 min 0 s left"
    assert progress_text(behind, behind, 0) == "2 h 5 min behind"
    assert progress_text(earlier, report_of(), 100) == ""
    assert progress_text(earlier, report_of(sink_of(lag=None)), 100) == ""
