"""The real process sends its metrics and the traces of its batches to an OpenTelemetry Collector, also at its end."""

from __future__ import annotations

from pathlib import Path

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.contract.ports import free_ports
from tests.contract.receiver import Reply, receiving
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated


async def run(tmp_path: Path, collector: Collector, endpoint: str, *more: str) -> Started:
    """A run to the end of a short log."""
    async with simulated(tmp_path / "sim", "--events=300") as ready:
        config = configuration(tmp_path, ready, collector)
        options = (f"--telemetry-endpoint={endpoint}", "--exit-on-last-event", *more)
        running = Started(await handler(config, *options))
        await running.rest()
    return running


async def test_a_run_to_the_end_of_the_log_is_told_whole(tmp_path: Path, collector: Collector) -> None:
    async with receiving(lambda _: Reply(200), None) as otel:
        running = await run(tmp_path, collector, otel.url, "--telemetry-traces")
    assert running.process.returncode == 0, running.error
    delivered, requests, traces = 0.0, 0, set()
    for request in otel.requests:
        if request.target == "/v1/metrics":
            told = ExportMetricsServiceRequest.FromString(request.body)
            for metric in told.resource_metrics[0].scope_metrics[0].metrics:
                if metric.name == "teleport_event_handler_events_delivered":
                    delivered = max(delivered, sum(point.as_double for point in metric.sum.data_points))
        else:
            spans = ExportTraceServiceRequest.FromString(request.body).resource_spans[0].scope_spans[0].spans
            requests += sum(span.name == "request" for span in spans)
            traces |= {span.trace_id for span in spans}
    assert delivered == sum(len(events) for events in collector.events.values())
    assert requests == collector.requests
    assert 0 < len(traces) <= requests


async def test_without_a_collector_all_is_delivered_and_a_line_says_so(tmp_path: Path, collector: Collector) -> None:
    (port,) = free_ports(1)
    running = await run(tmp_path, collector, f"http://127.0.0.1:{port}")
    assert running.process.returncode == 0
    assert running.told("the last telemetry was not exported") == 1
    assert len(collector.ids()) >= 300


async def test_what_is_no_address_ends_the_start(tmp_path: Path, collector: Collector) -> None:
    running = await run(tmp_path, collector, "127.0.0.1:4318")
    assert running.process.returncode not in (0, None)
    assert "expected a URL such as http://127.0.0.1:4318 in telemetry-endpoint" in running.error + str(running.lines)
