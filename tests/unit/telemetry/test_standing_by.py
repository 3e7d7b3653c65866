"""A replica that stands by is ready, says what it does, and looks like no failure."""

from __future__ import annotations

from dataclasses import replace

import orjson
from prometheus_client.exposition import generate_latest

from event_handler.telemetry.listener import readiness, report_json
from event_handler.telemetry.metrics import ReportCollector, registry
from event_handler.telemetry.status_text import status_lines
from tests.support.reports import report_of

WAITING = replace(report_of(), readings=(), sinks=(), standing_by=True)


def test_it_is_ready_to_take_over() -> None:
    assert readiness(WAITING)["ready"]
    assert not readiness(replace(WAITING, standing_by=False))["ready"], "it waits for an API server that is away"


def test_status_says_so() -> None:
    first, *_ = status_lines(orjson.loads(report_json(WAITING)))
    assert "stands by: another replica is at work" in first


def test_no_metric_tells_of_a_failure() -> None:
    collector = ReportCollector()
    collector.report = WAITING
    text = generate_latest(registry(collector)).decode()
    assert "teleport_event_handler_standing_by 1.0" in text
    assert "reading_connected{" not in text
    assert "sink_up{" not in text
