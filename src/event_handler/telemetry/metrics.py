"""Turns a report into Prometheus metrics. Names and units follow https://prometheus.io/docs/practices/naming/.

Labels are the names of sinks, streams, outcomes and ways of reading: a few of each, and never data of a user.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from event_handler import __version__, about
from event_handler.report import OUTCOMES, Counters, Histogram, Reading, Report, SinkReport

METRIC_PREFIX = "teleport_event_handler_"
PIPELINES = ("audit", "recordings")  # the two pipelines of a sink

COUNTERS: dict[str, tuple[str, Callable[[Counters], int]]] = {
    "events_read": ("events that were read for a sink", lambda c: c.read),
    "events_filtered": ("events that the sink's filters do not want", lambda c: c.filtered),
    "events_duplicate": ("events that were read before and are not delivered again", lambda c: c.duplicates),
    "events_delivered": ("events that the receiver has answered for", lambda c: c.delivered),
    "events_refused": ("events that the receiver refused for good", lambda c: c.refused),
    "events_dead_lettered": ("events kept as dead letters, for whatever reason", lambda c: c.dead),
    "delivered_bytes": ("bytes of the events that were delivered", lambda c: c.bytes),
    "delivery_retries": ("requests that were repeated", lambda c: c.retries),
}
SINK_GAUGES: dict[str, tuple[str, Callable[[SinkReport], float | None]]] = {
    "lag_seconds": (
        "now less the newest time up to which everything is delivered; 0 while nothing is missing",
        lambda sink: sink.lag,
    ),
    "oldest_undelivered_timestamp_seconds": ("time of the oldest event on its way", lambda sink: sink.oldest),
    "newest_delivered_timestamp_seconds": (
        "time of the newest event that was delivered",
        lambda sink: max(sink.audit.newest, sink.recordings.newest) or None,
    ),
    "sink_up": ("whether deliveries work, or there was none yet", lambda sink: float(not sink.failing)),
    "sink_reads_alone": ("whether the sink reads the cluster for itself", lambda sink: float(sink.alone)),
    "requests_in_flight": ("requests without an answer", lambda sink: _sum(load.in_flight for load in sink.load)),
    "requests_allowed": ("requests that may be in flight now", lambda sink: _sum(load.allowed for load in sink.load)),
    "budget_bytes": ("bytes read and not yet remembered", lambda sink: _sum(load.bytes for load in sink.load)),
    "budget_limit_bytes": ("the most that they may be", lambda sink: _sum(load.bytes_allowed for load in sink.load)),
    "dead_letters": ("dead letters that are kept", lambda sink: sink.dead_letters),
    "dead_letters_bytes": ("bytes of the dead letters that are kept", lambda sink: sink.dead_letter_bytes),
    "recordings_waiting": ("recordings that are not finished", lambda sink: sink.recordings_waiting),
    "state_bytes": ("size of the sink's state", lambda sink: sink.state_bytes),
    "sink_certificate_expire_timestamp_seconds": (
        "when the client certificate for the sink expires",
        lambda sink: sink.certificate_expires,
    ),
}
READING_GAUGES: dict[str, tuple[str, Callable[[Reading], float | None]]] = {
    "reading_connected": ("whether there is a connection to the cluster", lambda reading: float(reading.connected)),
    "reading_caught_up": (
        "whether all that the cluster has was read",
        lambda reading: float(reading.position is not None and reading.position.caught_up),
    ),
    "reading_position_timestamp_seconds": (
        "everything in the log before this time was read",
        lambda reading: reading.position.until if reading.position else None,
    ),
    "chunks_waiting": (
        "chunks of bulk export that are listed and not read",
        lambda reading: reading.position.chunks_waiting if reading.position else None,
    ),
}


REPLICAS_HELP = "processes that share the work, by whether they tell that they live"
REPLICA_STATES = (("alive", True), ("silent", False))


def metrics_of(report: Report) -> Iterable[Metric]:
    """Every metric of the process."""
    build = InfoMetricFamily(METRIC_PREFIX + "build", "version of the event handler")
    build.add_metric([], {"version": __version__, "commit": about.commit(), "python": platform.python_version()})
    yield build
    yield _gauge("start_timestamp_seconds", "when the process started", report.started)
    yield _gauge("credentials_expire_timestamp_seconds", "when the identity expires", report.credentials_expire)
    yield _counter("credentials_renewals", "identities that replaced an older one", [([], report.renewals)], [])
    yield _gauge("standing_by", "whether another replica is at work and this one waits", float(report.standing_by))
    if report.free_bytes is not None:
        yield _gauge("storage_free_bytes", "bytes free on the disk of the state", report.free_bytes)
    if report.listener_certificate_expires is not None:
        name = "listener_certificate_expire_timestamp_seconds"
        yield _gauge(name, "when the certificate of --listen expires", report.listener_certificate_expires)
    if report.replicas:
        states = [([state], sum(one.alive is alive for one in report.replicas)) for state, alive in REPLICA_STATES]
        yield _gauges("replicas", REPLICAS_HELP, ["state"], states)
        own = next((one for one in report.replicas if one.own), None)
        if own is not None:
            yield _gauge("replica_epoch", "number of this process among the replicas", own.epoch)
            yield _gauge("replica_claims", "chunks, recordings and turns that this process has claimed", own.units)
    yield from _of_readings(report.readings)
    yield from _of_sinks(report.sinks)


def _of_readings(readings: Sequence[Reading]) -> Iterable[Metric]:
    named = [(_name(reading), reading) for reading in readings]
    for name, (help_, value) in READING_GAUGES.items():
        yield _gauges(name, help_, ["reading"], [([label], value(reading)) for label, reading in named])
    ways = [([label, reading.route], float(reading.connected)) for label, reading in named if reading.route]
    yield _gauges("reading_route", "the way into the cluster, 1 while it is used", ["reading", "route"], ways)
    connections = [([label], reading.connections) for label, reading in named]
    yield _counter("reading_connections", "connections to the cluster that were made", connections, ["reading"])


def _of_sinks(sinks: Sequence[SinkReport]) -> Iterable[Metric]:
    for name, (help_, count) in COUNTERS.items():
        values = [
            ([sink.name, stream], count(counters))
            for sink in sinks
            for stream, counters in zip(PIPELINES, (sink.audit, sink.recordings), strict=True)
        ]
        yield _counter(name, help_, values, ["sink", "stream"])
    for name, (help_, value) in SINK_GAUGES.items():
        yield _gauges(name, help_, ["sink"], [([sink.name], value(sink)) for sink in sinks])
    durations = HistogramMetricFamily(
        METRIC_PREFIX + "request_duration_seconds",
        "how long requests took, by their outcome",
        labels=["sink", "outcome"],
    )
    batches = HistogramMetricFamily(METRIC_PREFIX + "batch_events", "events of a request", labels=["sink"])
    for sink in sinks:
        both = (sink.audit, sink.recordings)
        for outcome in OUTCOMES:
            _add(durations, [sink.name, outcome], [counters.requests[outcome] for counters in both])
        _add(batches, [sink.name], [counters.batches for counters in both])
    yield durations
    yield batches


def _name(reading: Reading) -> str:
    """The sinks that take part are few, and the one that reads alone has its own name."""
    return reading.sinks[0] if len(reading.sinks) == 1 else "shared"


def _sum(values: Iterable[int]) -> float:
    return float(sum(values))


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(METRIC_PREFIX + name, help_, value=value)


def _gauges(name: str, help_: str, labels: list[str], values: Iterable[tuple[list[str], float | None]]) -> Metric:
    """A gauge with the values that are known."""
    family = GaugeMetricFamily(METRIC_PREFIX + name, help_, labels=labels)
    for of, value in values:
        if value is not None:
            family.add_metric(of, value)
    return family


def _counter(name: str, help_: str, values: Iterable[tuple[list[str], float]], labels: list[str]) -> Metric:
    family = CounterMetricFamily(METRIC_PREFIX + name, help_, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def _add(family: HistogramMetricFamily, labels: list[str], parts: Sequence[Histogram]) -> None:
    """Add the parts together, as Prometheus wants them: each bucket holds all below its bound."""
    total, buckets = 0, []
    for place, bound in enumerate((*parts[0].bounds, float("inf"))):
        total += sum(part.counts[place] for part in parts)
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    family.add_metric(labels, buckets, sum(part.sum for part in parts))


def table() -> str:
    """Every metric as a Markdown table, for docs/metrics.md; a test compares."""
    rows = [
        ("build_info", "-", "version of the event handler"),
        ("start_timestamp_seconds", "-", "when the process started"),
        ("credentials_expire_timestamp_seconds", "-", "when the identity expires"),
        ("credentials_renewals_total", "-", "identities that replaced an older one"),
        ("standing_by", "-", "whether another replica is at work and this one waits"),
        ("listener_certificate_expire_timestamp_seconds", "-", "when the certificate of --listen expires"),
        ("storage_free_bytes", "-", "bytes free on the disk of the state"),
        ("replicas", "state", REPLICAS_HELP),
        ("replica_epoch", "-", "number of this process among the replicas"),
        ("replica_claims", "-", "chunks, recordings and turns that this process has claimed"),
        *((name, "reading", help_) for name, (help_, _) in READING_GAUGES.items()),
        ("reading_route", "reading, route", "the way into the cluster, 1 while it is used"),
        ("reading_connections_total", "reading", "connections to the cluster that were made"),
        *((f"{name}_total", "sink, stream", help_) for name, (help_, _) in COUNTERS.items()),
        *((name, "sink", help_) for name, (help_, _) in SINK_GAUGES.items()),
        ("request_duration_seconds", "sink, outcome", "how long requests took, by their outcome (histogram)"),
        ("batch_events", "sink", "events of a request (histogram)"),
    ]
    lines = [f"| `{METRIC_PREFIX}{name}` | {labels} | {help_} |" for name, labels, help_ in rows]
    return "\n".join(["| metric | labels | what it tells |", "|---|---|---|", *lines]) + "\n"


class ReportCollector(Collector):
    """Gives a registry the metrics of the report that was set last."""

    def __init__(self) -> None:
        self.report: Report | None = None

    def collect(self) -> Iterable[Metric]:
        return metrics_of(self.report) if self.report else ()


def registry(collector: ReportCollector) -> CollectorRegistry:
    """A registry of our own with this collector; no global one is touched."""
    made = CollectorRegistry(auto_describe=False)
    made.register(collector)
    ProcessCollector(registry=made)  # CPU, memory and files where there is /proc
    return made
