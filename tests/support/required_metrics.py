"""What /metrics must tell of a sink and of a reading, whichever they are.

Vector's component specification asks as much of each of its components.
"""

from __future__ import annotations

from time import time

from prometheus_client.core import Sample

from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.pauses import RetryPolicy
from event_handler.pipeline.select import Selector
from event_handler.ports import Remembering, Sink
from event_handler.report import Counters, Report
from event_handler.state.sqlite import SqliteStore
from event_handler.telemetry.metrics import METRIC_PREFIX, metrics_of
from event_handler.teleport.wire.raw import raw_events
from tests.support.reports import report_of, sink_of
from tests.support.scripted_cluster import wire_at

OF_A_SINK = {
    "events_read_total", "events_filtered_total", "events_duplicate_total", "events_delivered_total",
    "events_refused_total", "events_dead_lettered_total", "delivered_bytes_total", "delivery_retries_total",
    "request_duration_seconds_count", "batch_events_count", "requests_in_flight", "requests_allowed", "budget_bytes",
    "budget_limit_bytes", "sink_up", "lag_seconds", "dead_letters", "recordings_waiting", "state_bytes",
}  # fmt: skip
OF_A_READING = {
    "reading_connected", "reading_caught_up", "reading_position_timestamp_seconds", "reading_connections_total",
    "reading_route", "chunks_waiting",
}  # fmt: skip
EVENTS = 3
Told = dict[tuple[str, str], float]  # value by the metric's name and its outcome, "" where it has none


def told_of(report: Report) -> Told:
    """All values, added up over the labels."""
    found: Told = {}
    samples: list[Sample] = [sample for family in metrics_of(report) for sample in family.samples]
    for sample in samples:
        key = sample.name.removeprefix(METRIC_PREFIX), sample.labels.get("outcome", "")
        found[key] = found.get(key, 0.0) + sample.value
    return found


async def delivering(sink: Sink) -> Told:
    """What is told of a sink after some events were delivered, one of them twice."""
    store = SqliteStore(None)
    if isinstance(sink, Remembering):
        await sink.remember_in(store)
    limits = PipelineLimits(max(1, sink.limits.requests), 10_000_000)
    selector = Selector(sink.name, DuplicateWindow())
    wires = [wire_at(f"m{number}", time()) for number in range(EVENTS)]
    async with Pipeline(sink, store, selector, limits, policy=RetryPolicy(first=0.01)) as pipeline:
        await pipeline.put(await pipeline.track(), raw_events([*wires, wires[0]]), None)
        await pipeline.drain_all()
        return told_of(
            report_of(sink_of(name=sink.name, audit=pipeline.counters, recordings=Counters(), load=(pipeline.load,)))
        )


def assert_told(told: Told, *, failed: str = "") -> None:
    """All that is required is there, and right. `failed` is the outcome of the first request, "" for no failure."""
    names = {name for name, _ in told}
    assert names >= OF_A_SINK, OF_A_SINK - names
    counted = ("read", "duplicate", "delivered", "refused", "dead_lettered")
    assert [told[f"events_{name}_total", ""] for name in counted] == [EVENTS + 1, 1, EVENTS, 0, 0]
    assert told["delivered_bytes_total", ""] > 0
    assert told["batch_events_sum", ""] >= EVENTS
    assert told["request_duration_seconds_count", "delivered"] >= 1
    assert (told["requests_in_flight", ""], told["budget_bytes", ""]) == (0, 0)
    if failed:
        assert told["request_duration_seconds_count", failed] >= 1
        assert told["delivery_retries_total", ""] >= 1
    else:
        assert told["delivery_retries_total", ""] == 0
