"""Every figure of a report is a metric with a name and a help text by Prometheus' rules, and labels stay few."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from event_handler.report import (
    OUTCOMES,
    Counters,
    Histogram,
    Load,
    Position,
    Reading,
    ReplicaReport,
    Report,
    SinkReport,
    lag,
)
from event_handler.telemetry.metrics import (
    COUNTERS,
    METRIC_PREFIX,
    READING_GAUGES,
    SINK_GAUGES,
    ReportCollector,
    registry,
    table,
)
from tests.support.reports import sink_of

POSITION = Position("bulk", 900.0, False, 3)
READING = Reading(("siem",), True, 100.0, 2, "auth:3025", "direct", "18.1", POSITION)


def sink(name: str = "siem", **more: object) -> SinkReport:
    audit = Counters(
        read=10, filtered=1, duplicates=2, delivered=6, bytes=600, refused=1, dead=1, retries=4, newest=95.0
    )
    audit.requests["delivered"].observe(0.02)
    audit.requests["failed"].observe(40.0)
    audit.batches.observe(6)
    recordings = Counters(read=5, delivered=5, newest=50.0)
    known: dict[str, object] = {
        "audit": audit,
        "recordings": recordings,
        "load": (Load(2, 8, 1000, 8000, 93.0), Load(0, 2, 0, 2000, None)),
        "oldest": 93.0,
        "dead_letters": 1,
        "dead_letter_bytes": 321,
        "recordings_waiting": 4,
        "certificate_expires": 2000.0,
    }
    return sink_of(name, **{**known, **more})


def report(*sinks: SinkReport) -> Report:
    known = (
        ReplicaReport(4, "a/1", True, True, 60.0, 3, ("siem: reading",), 2.5, 700),
        ReplicaReport(3, "b/2", False, False, 90.0, 1, (), None, 0),
    )
    return Report("example.com", 1.0, 1000.0, 0.0, 5000.0, 1, 10_000, 9000.0, (READING,), sinks or (sink(),), known)


def samples(of: Report) -> dict[tuple[str, ...], float]:
    """Values by name and sorted labels."""
    collector = ReportCollector()
    collector.report = of
    text = generate_latest(registry(collector)).decode()
    families = text_string_to_metric_families(text)
    return {
        (
            one.name.removeprefix(METRIC_PREFIX),
            *(f"{key}={value}" for key, value in sorted(one.labels.items())),
        ): one.value
        for family in families
        for one in family.samples
    }


def test_replicas_are_counted_by_whether_they_live_and_this_one_tells_its_number_and_claims() -> None:
    found = samples(report())
    assert (found[("replicas", "state=alive")], found[("replicas", "state=silent")]) == (1, 1)
    assert (found[("replica_epoch",)], found[("replica_claims",)]) == (4, 3)


def test_every_counter_and_gauge_is_there_for_each_sink_and_stream() -> None:
    found = samples(report(sink("a"), sink("b")))
    for name in COUNTERS:
        for one in ("a", "b"):
            for stream in ("audit", "recordings"):
                assert (f"{name}_total", f"sink={one}", f"stream={stream}") in found
    for name in SINK_GAUGES:
        assert (name, "sink=a") in found
    for name in READING_GAUGES:
        assert (name, "reading=siem") in found


def test_values_are_those_of_the_report() -> None:
    found = samples(report())
    assert found["events_delivered_total", "sink=siem", "stream=audit"] == 6
    assert found["lag_seconds", "sink=siem"] == 7.0
    assert found["requests_in_flight", "sink=siem"] == 2
    assert found["requests_allowed", "sink=siem"] == 10
    assert found["newest_delivered_timestamp_seconds", "sink=siem"] == 95.0
    assert found["credentials_expire_timestamp_seconds",] == 5000.0
    assert found["request_duration_seconds_count", "outcome=failed", "sink=siem"] == 1
    assert found["request_duration_seconds_bucket", "le=0.025", "outcome=delivered", "sink=siem"] == 1
    assert found["request_duration_seconds_bucket", "le=30.0", "outcome=failed", "sink=siem"] == 0
    assert found["request_duration_seconds_bucket", "le=+Inf", "outcome=failed", "sink=siem"] == 1


def test_what_is_not_known_is_left_out_and_no_zero() -> None:
    found = samples(report(sink(lag=None, dead_letters=None, certificate_expires=None)))
    assert not {name for name, *_ in found} & {
        "lag_seconds",
        "dead_letters",
        "sink_certificate_expire_timestamp_seconds",
    }


def test_names_have_the_prefix_a_unit_and_a_help_text() -> None:
    collector = ReportCollector()
    collector.report = report()
    for family in collector.collect():
        assert re.fullmatch(r"teleport_event_handler_[a-z_]+", family.name)
        assert family.documentation
        assert not re.search(r"_(ms|kb|minutes)$", family.name)


def test_the_number_of_series_does_not_grow_with_what_passes() -> None:
    many = sink()
    for _ in range(1000):
        many.audit.requests["delivered"].observe(0.1)
    assert len(samples(report(many))) == len(samples(report()))
    assert {outcome for name, *labels in samples(report()) for outcome in labels if outcome.startswith("outcome=")} == {
        f"outcome={outcome}" for outcome in OUTCOMES
    }


@given(st.lists(st.floats(0.0, 100.0), max_size=50))
def test_a_histogram_counts_each_value_once_below_its_bound(values: list[float]) -> None:
    histogram = Histogram((1.0, 10.0))
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [
        sum(value <= 1.0 for value in values),
        sum(1.0 < value <= 10.0 for value in values),
        sum(value > 10.0 for value in values),
    ]
    assert histogram.sum == pytest.approx(sum(values))


@pytest.mark.parametrize(
    ("position", "oldest", "expected"),
    [
        (Position("search", 990.0, True), None, 0.0),  # caught up and nothing on its way
        (Position("search", 990.0, True), 980.0, 20.0),  # what is on its way counts
        (Position("bulk", 700.0, False), 980.0, 300.0),  # the backlog counts more
        (Position("bulk", None, False), None, None),
        (None, None, None),
        (None, 999.0, 1.0),
        (Position("search", 990.0, True), 1005.0, 0.0),  # an event of a clock that is ahead
    ],
)
def test_lag_is_the_age_of_what_is_missing(
    position: Position | None, oldest: float | None, expected: float | None
) -> None:
    assert lag(1000.0, position, oldest) == expected


def test_the_documentation_lists_every_metric() -> None:
    assert table() in (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    collector = ReportCollector()
    collector.report = report()
    listed = {line.split("`")[1].removesuffix("_total").removesuffix("_info") for line in table().splitlines()[2:]}
    assert listed == {family.name for family in collector.collect()}
