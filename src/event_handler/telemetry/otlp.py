"""Sends the metrics of the report, and the traces of batches if asked, to an OpenTelemetry Collector over OTLP/HTTP.

The client is OpenTelemetry's own, an extra. Its environment variables (`OTEL_EXPORTER_OTLP_HEADERS`, …_CERTIFICATE,
…_COMPRESSION, `OTEL_RESOURCE_ATTRIBUTES`, …) are in force: https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from event_handler import __version__
from event_handler.errors import ConfigurationError
from event_handler.redact import without_secrets
from event_handler.report import Report
from event_handler.telemetry.metrics import metrics_of
from event_handler.thread import WorkerThread
from event_handler.tracing import TRACES, Span

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from prometheus_client.core import Metric

METRICS_PATH, TRACES_PATH = "/v1/metrics", "/v1/traces"  # OTLP specification, "OTLP/HTTP Request"
TRACES_EVERY = 5.0  # seconds, as OpenTelemetry's own batch processor
MOST_SPANS = 2_000  # in a request, about 500 kB; a Collector takes some MB
PROBE_WITHIN = 12.0  # seconds; the client itself gives up after 10
LAST_WITHIN = 2.0  # seconds that the end of the process waits for the last export
SERVICE = "teleport-event-handler"
CLIENT_LOG = "opentelemetry"
UNIT_OF = {"_seconds": "s", "_bytes": "By"}  # UCUM, by the end of a metric's name

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The URL of a Collector, the seconds between two exports of metrics, and whether traces are wanted."""

    endpoint: str
    every: float
    traces: bool = False


class Reasons(logging.Handler):
    """Keeps the last that the client logs: it returns only whether an export failed, and the reason may be a try
    before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: deque[str] = deque(maxlen=2)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within the block, what the client logs comes here and nowhere else."""
        client_log = logging.getLogger(CLIENT_LOG)
        before = client_log.propagate
        client_log.propagate = False
        client_log.addHandler(self)
        try:
            yield
        finally:
            client_log.removeHandler(self)
            client_log.propagate = before

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(" ".join(record.getMessage().split()))


class Exporter:
    """Exports until cancelled. Raises ConfigurationError for an address that is none, and without the client."""

    def __init__(self, report: Callable[[], Awaitable[Report]], options: ExportOptions) -> None:
        _check(options.endpoint)
        self._clients = _clients()
        self._metrics: Any = None  # a client while it is open
        self._traces: Any = None
        self._report = report
        self._options = options
        self._thread = WorkerThread("telemetry")  # an export may wait for its receiver
        self._resource = _resource()
        self._reasons = Reasons()
        self._left: list[Span] = []  # at the end

    async def run(self) -> None:
        """An export that fails is told, and the next one has newer figures; spans that it had are lost.

        It may be run again when it has failed.
        """
        with self._opened():
            try:
                async with asyncio.TaskGroup() as group:
                    if self._traces is not None:
                        group.create_task(self._export_traces())
                    # Not a task as well: a group that fails at its end leaves its owner half cancelled in Python 3.11.
                    await self._export_metrics()
            finally:
                await self._end()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Within the block there are clients; at its end what is on its way is given up."""
        metrics, traces = self._clients
        base = self._options.endpoint.rstrip("/")
        self._metrics = metrics(endpoint=base + METRICS_PATH, session=_session())
        self._traces = traces(endpoint=base + TRACES_PATH, session=_session()) if self._options.traces else None
        try:
            with self._reasons.heard():
                yield
        finally:
            self._thread.stop()
            for client in (self._metrics, self._traces):
                if client is not None:
                    client.shutdown()

    async def _end(self) -> None:
        # asyncio.timeout of Python 3.11.2 (Debian 12) gives no TimeoutError to who is being cancelled.
        last = asyncio.create_task(self._last())
        _, late = await asyncio.wait([last], timeout=LAST_WITHIN)
        if late:
            log.warning("the last telemetry was not exported in time", url=self._options.endpoint)
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)

    async def _export_metrics(self) -> None:
        while True:
            await asyncio.sleep(self._options.every)
            await self._send_metrics()

    async def _export_traces(self) -> None:
        with TRACES.kept():
            try:
                while True:
                    await asyncio.sleep(TRACES_EVERY)
                    await self._send_spans(TRACES.take())
            finally:
                self._left = TRACES.take()

    async def _last(self) -> None:
        await self._send_metrics()
        if self._traces is not None:
            await self._send_spans(self._left)

    async def _send_metrics(self) -> None:
        report = await self._report()
        made = await self._thread.run(metrics_data, report, self._resource)
        await self._send(self._metrics, made)

    async def _send_spans(self, spans: Sequence[Span]) -> None:
        if TRACES.missed:
            log.warning("traces are missing: batches come faster than they are exported", spans=TRACES.missed)
            TRACES.missed = 0
        for first in range(0, len(spans), MOST_SPANS):
            part = spans[first : first + MOST_SPANS]
            made = await self._thread.run(readable, part, self._resource, time() - monotonic())
            await self._send(self._traces, made)

    async def probe(self) -> str:
        """Send a request without a metric; return why it failed, "" if it did not."""
        with self._opened():
            return await self._sent(self._metrics, no_metrics(self._resource))

    async def _sent(self, client: Any, what: object) -> str:
        self._reasons.said.clear()
        result = await self._thread.run(client.export, what)
        return "" if result.name == "SUCCESS" else without_secrets(" ".join(self._reasons.said)) or "no reason given"

    async def _send(self, client: Any, what: object) -> None:
        if reason := await self._sent(client, what):
            log.warning(
                "telemetry cannot be exported",
                url=self._options.endpoint,
                error=reason,
                next_step="Check telemetry-endpoint, and that the Collector runs. Delivery goes on without it.",
            )


async def probe(options: ExportOptions) -> str:
    """Ask the Collector whether it takes metrics; return why not, "" if it does. Raises as an Exporter."""

    async def nothing() -> Report:
        raise NotImplementedError

    exporter = Exporter(nothing, options)
    try:
        async with asyncio.timeout(PROBE_WITHIN):
            return await exporter.probe()
    except TimeoutError:
        return f"no answer within {PROBE_WITHIN:.0f} s"


def _check(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.query:
        raise ConfigurationError(
            f"expected a URL such as http://127.0.0.1:4318 in telemetry-endpoint, got {without_secrets(endpoint)!r}",
            "Secrets for it belong into the variable OTEL_EXPORTER_OTLP_HEADERS.",
        )


def _clients() -> tuple[Any, Any]:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigurationError(
            "telemetry-endpoint is set, and OpenTelemetry's client is not installed",
            "Run: pip install 'teleport-event-handler[opentelemetry]'.",
        ) from None
    return OTLPMetricExporter, OTLPSpanExporter


def _session() -> Any:
    """What the client sends by: a CA that is set for it counts more than REQUESTS_CA_BUNDLE, as its users expect."""
    import requests

    class Session(requests.Session):
        def merge_environment_settings(self, *arguments: Any) -> Any:
            merged = super().merge_environment_settings(*arguments)
            if isinstance(self.verify, str):
                merged["verify"] = self.verify
            return merged

    return Session()


def _resource() -> Resource:
    """Who we are; the environment knows better."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    return Resource({"service.name": SERVICE, "service.version": __version__}).merge(OTELResourceDetector().detect())


def no_metrics(resource: Resource) -> MetricsData:
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics

    return MetricsData([ResourceMetrics(resource, [], "")])


def metrics_data(report: Report, resource: Resource) -> MetricsData:
    """The metrics as /metrics has them, with the names that Prometheus knows them by."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    made = [_metric(one, report) for one in metrics_of(report)]
    scope = ScopeMetrics(InstrumentationScope(SERVICE, __version__), [one for one in made if one is not None], "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Metric, report: Report) -> Any:
    """None where there is no value."""
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Histogram,
        Metric,
        NumberDataPoint,
        Sum,
    )

    began, now = _nanoseconds(report.started), _nanoseconds(report.now)
    if not family.samples:
        return None
    data: Any
    if family.type == "histogram":
        data = Histogram(_histograms(family, began, now), AggregationTemporality.CUMULATIVE)
    else:
        points = [NumberDataPoint(dict(one.labels), began, now, float(one.value)) for one in family.samples]
        data = Sum(points, AggregationTemporality.CUMULATIVE, True) if family.type == "counter" else Gauge(points)
    name = family.samples[0].name if family.type == "info" else family.name
    unit = next((unit for end, unit in UNIT_OF.items() if name.endswith(end)), "")
    return Metric(name, family.documentation, unit, data)


def _histograms(family: Metric, began: int, now: int) -> list[Any]:
    """Prometheus counts in each bucket all below its bound, OpenTelemetry those between two bounds."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    points, bounds, counts, below, total = [], list[float](), list[int](), 0.0, 0
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            counts.append(int(sample.value - below))
            below = sample.value
            if sample.labels["le"] != "+Inf":
                bounds.append(float(sample.labels["le"]))
        elif sample.name.endswith("_count"):
            total = int(sample.value)
        elif sample.name.endswith("_sum"):  # the last sample of each
            unknown: Any = None  # the smallest and the largest value, which nobody keeps
            labels = dict(sample.labels)
            points.append(HistogramDataPoint(labels, began, now, total, sample.value, counts, bounds, unknown, unknown))
            bounds, counts, below = [], [], 0.0
    return points


def readable(spans: Iterable[Span], resource: Resource, epoch: float) -> list[ReadableSpan]:
    """Spans as the client wants them. `epoch` is what turns a time of the monotonic clock into one since the epoch."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    scope, sampled = InstrumentationScope(SERVICE, __version__), TraceFlags(TraceFlags.SAMPLED)
    return [
        ReadableSpan(
            span.name,
            SpanContext(span.trace, span.id, False, sampled),
            SpanContext(span.trace, span.parent, False, sampled) if span.parent else None,
            resource,
            span.facts,
            kind=SpanKind.CLIENT if span.name == "request" else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, without_secrets(span.failing))
            if span.failing
            else Status(StatusCode.UNSET),
            start_time=_nanoseconds(epoch + span.begin),
            end_time=_nanoseconds(epoch + span.end),
            instrumentation_scope=scope,
        )
        for span in spans
    ]


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
