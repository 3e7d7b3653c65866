"""What goes to an OpenTelemetry Collector is what /metrics tells, and no fault of it is one of delivery."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from event_handler.errors import ConfigurationError
from event_handler.report import Counters, Report
from event_handler.runtime.supervise import supervise
from event_handler.telemetry import otlp
from event_handler.telemetry.metrics import metrics_of
from event_handler.telemetry.otlp import Exporter, ExportOptions
from event_handler.tracing import TRACES
from tests.contract.receiver import Receiver, Reply, Request, receiving, stay_silent
from tests.support.reports import report_of, sink_of
from tests.support.waiting import until


def a_report() -> Report:
    counters = Counters(delivered=6)
    for seconds in (0.003, 0.02, 0.02, 99.0):
        counters.requests["delivered"].observe(seconds)
    return report_of(sink_of(audit=counters))


async def reporting() -> Report:
    return a_report()


@asynccontextmanager
async def exporting(
    receiver: Receiver, report: Callable[[], Awaitable[Report]] = reporting, **options: Any
) -> AsyncIterator[None]:
    exporter = Exporter(report, ExportOptions(receiver.url, options.pop("every", 0.01), **options))
    running = asyncio.create_task(exporter.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def metrics_in(request: Request) -> dict[str, Any]:
    told = ExportMetricsServiceRequest.FromString(request.body)
    return {
        metric.name: metric
        for resource in told.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def labelled(points: Any) -> dict[tuple[tuple[str, str], ...], Any]:
    return {tuple(sorted((one.key, one.value.string_value) for one in point.attributes)): point for point in points}


async def test_every_metric_arrives_with_its_values() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver, exporting(receiver):
        await until(lambda: bool(receiver.requests))
    request = receiver.requests[0]
    assert request.target == "/v1/metrics"
    told = metrics_in(request)
    for family in metrics_of(a_report()):
        if not family.samples or family.type == "histogram":
            continue
        metric = told[family.samples[0].name if family.type == "info" else family.name]
        points = labelled(metric.sum.data_points if family.type == "counter" else metric.gauge.data_points)
        assert {labels: point.as_double for labels, point in points.items()} == {
            tuple(sorted(one.labels.items())): one.value for one in family.samples
        }
        assert metric.sum.is_monotonic == (family.type == "counter")
    assert told["teleport_event_handler_lag_seconds"].unit == "s"
    assert told["teleport_event_handler_delivered_bytes"].unit == "By"


async def test_a_histogram_counts_between_its_bounds() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver, exporting(receiver):
        await until(lambda: bool(receiver.requests))
    durations = metrics_in(receiver.requests[0])["teleport_event_handler_request_duration_seconds"].histogram
    point = labelled(durations.data_points)[("outcome", "delivered"), ("sink", "siem")]
    assert (point.count, point.sum, len(point.bucket_counts)) == (4, 99.043, len(point.explicit_bounds) + 1)
    counted = dict(zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True))
    assert {bound: count for bound, count in counted.items() if count} == {0.005: 1, 0.025: 2, float("inf"): 1}
    assert not point.HasField("min")


async def test_who_it_is_from_can_be_said_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=audit")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=of-the-collector")
    async with receiving(lambda _: Reply(200), None) as receiver, exporting(receiver):
        await until(lambda: bool(receiver.requests))
    told = ExportMetricsServiceRequest.FromString(receiver.requests[0].body)
    of = {one.key: one.value.string_value for one in told.resource_metrics[0].resource.attributes}
    assert of["service.name"] == "audit"
    assert of["deployment.environment.name"] == "prod"
    assert of["service.version"]
    assert receiver.requests[0].headers["api-key"] == "of-the-collector"


async def test_traces_are_exported_with_their_times_and_the_last_ones_at_the_end() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        async with exporting(receiver, traces=True, every=60.0):
            await until(lambda: TRACES.wanted)
            now = monotonic()
            with TRACES.batch(monotonic, (("read", now - 2.0, now - 1.0),), {"sink": "siem", "events": 3}):
                TRACES.request(now - 0.5, now - 0.25, {"outcome": "failed"}, "no password=abcdefgh, it says")
        assert not TRACES.wanted
    (request,) = [one for one in receiver.requests if one.target == "/v1/traces"]
    told = ExportTraceServiceRequest.FromString(request.body)
    spans = {span.name: span for span in told.resource_spans[0].scope_spans[0].spans}
    assert set(spans) == {"batch", "read", "request"}
    assert spans["request"].parent_span_id == spans["read"].parent_span_id == spans["batch"].span_id
    assert spans["request"].end_time_unix_nano - spans["request"].start_time_unix_nano == pytest.approx(25e7, abs=1e6)
    assert spans["request"].status.code == 2
    assert spans["request"].status.message == "no password=***, it says"
    assert spans["batch"].parent_span_id == b""


async def test_a_collector_that_refuses_is_told_and_asked_again() -> None:
    answers = iter([401, 200, 200])
    with capture_logs() as told:
        async with receiving(lambda _: Reply(next(answers, 200)), None) as receiver, exporting(receiver):
            await until(lambda: len(receiver.requests) >= 2)
    (line,) = [one for one in told if one["event"] == "telemetry cannot be exported"]
    assert "401" in line["error"]
    assert line["url"] == receiver.url
    assert "Delivery goes on" in line["next_step"]


async def test_a_collector_that_hangs_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "LAST_WITHIN", 0.05)
    async with receiving(lambda _: Reply(200), None) as receiver:
        receiver.otherwise = stay_silent
        async with exporting(receiver):
            await until(lambda: receiver.open > 0)
        assert receiver.open > 0  # and nobody waited for it


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:4318", "ftp://a", "http://", "http://user:pass@host:4318", "https://a?key=1"]
)
def test_what_is_no_address_is_refused_without_its_secrets(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a URL such as") as refused:
        Exporter(reporting, ExportOptions(endpoint, 1.0))
    assert "pass@" not in str(refused.value)


def test_without_the_client_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'teleport-event-handler\[opentelemetry\]'"):
        Exporter(reporting, ExportOptions("http://127.0.0.1:4318", 1.0))


async def test_an_export_that_died_by_a_fault_of_ours_works_when_it_is_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("event_handler.runtime.supervise.FIRST_PAUSE", 0.001)
    faults = [ZeroDivisionError("a fault of ours")]

    async def odd() -> Report:
        if faults:
            raise faults.pop()
        return a_report()

    with capture_logs() as told:
        async with receiving(lambda _: Reply(200), None) as receiver:
            exporter = Exporter(odd, ExportOptions(receiver.url, 0.01))
            running = asyncio.create_task(supervise("the export of telemetry", exporter.run))
            await until(lambda: len(receiver.requests) > 1)  # the first may be the last one of the run that died
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert [line["event"] for line in told] == ["the export of telemetry failed and is started again"]
