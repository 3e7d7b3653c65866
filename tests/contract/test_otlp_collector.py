"""The otlp sink against a real OpenTelemetry Collector, where `make receivers` has built it: HTTP and gRPC with TLS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import pytest

from event_handler.event import Event
from event_handler.ports import Delivered, Retry
from event_handler.report import Report
from event_handler.sinks.otlp import OtlpOptions, OtlpSink
from event_handler.telemetry.otlp import Exporter, ExportOptions
from event_handler.tracing import TRACES
from tests.contract.deliveries import eventually, verdict
from tests.contract.pki import Pki, make_pki
from tests.contract.ports import free_ports
from tests.contract.server_process import listens, serving
from tests.event_samples import samples
from tests.support.receiver_cache import absent, place
from tests.support.reports import report_of

PROGRAM = "bin/otelcol"
pytestmark = pytest.mark.skipif(bool(absent(PROGRAM)), reason=absent(PROGRAM))
CONFIGURATION = """
receivers:
  otlp:
    protocols:
      http: {{ endpoint: "127.0.0.1:{http}", tls: {tls} }}
      grpc: {{ endpoint: "127.0.0.1:{grpc}", tls: {tls} }}
exporters:
  file: {{ path: "{directory}/records.json", flush_interval: 50ms }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    logs: {{ receivers: [otlp], exporters: [file] }}
    metrics: {{ receivers: [otlp], exporters: [file] }}
    traces: {{ receivers: [otlp], exporters: [file] }}
"""


@contextmanager
def collector(directory: Path, pki: Pki) -> Iterator[tuple[int, int]]:
    """Its ports for HTTP and gRPC; it asks for client certificates."""
    key, cert = pki.issue("localhost")
    (directory / "server.key").write_bytes(key)
    (directory / "server.crt").write_bytes(cert)
    tls = json.dumps(
        {
            "cert_file": str(directory / "server.crt"),
            "key_file": str(directory / "server.key"),
            "client_ca_file": str(pki.path("ca.crt")),
        }
    )
    http, grpc = free_ports(2)
    configuration = directory / "collector.yaml"
    configuration.write_text(CONFIGURATION.format(http=http, grpc=grpc, tls=tls, directory=directory))
    command = [str(place(PROGRAM)), "--config", str(configuration)]
    with serving(command, directory / "log", lambda: listens(http) and listens(grpc)):
        yield http, grpc


def received(directory: Path) -> list[dict[str, Any]]:
    """The whole lines of its file, a request each; the last may be on the way."""
    text = (directory / "records.json").read_bytes() if (directory / "records.json").exists() else b""
    return [orjson.loads(line) for line in text.split(b"\n")[:-1]]


def records(directory: Path) -> list[dict[str, Any]]:
    return [
        record
        for request in received(directory)
        for resource in request["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def sink(pki: Pki, protocol: str, port: int, **options: Any) -> OtlpSink:
    files = pki.client_files()
    given = {"ca": files.ca, "cert": files.cert, "key": files.key, **options}
    return OtlpSink(OtlpOptions(url=f"https://localhost:{port}", protocol=protocol, **given), "otel", "sinks.otel")


@pytest.mark.parametrize("body", ["json", "map"])
async def test_an_event_of_every_type_arrives_by_both_protocols(tmp_path: Path, body: str) -> None:
    pki = make_pki(tmp_path, "otelcol")
    batch = [Event(one["event"], one["uid"], 1_790_000_000.123456, 0, orjson.dumps(one)) for one in samples()]
    with collector(tmp_path, pki) as ports:
        for protocol, port in zip(("http", "grpc"), ports, strict=True):
            there = sink(pki, protocol, port, body=body)
            assert await verdict(there, batch) == Delivered()
            await there.close()
        await eventually(lambda: len(records(tmp_path)) == 2 * len(batch))
    by_http, by_grpc = records(tmp_path)[: len(batch)], records(tmp_path)[len(batch) :]
    for one, other, event in zip(by_http, by_grpc, batch, strict=True):
        del one["observedTimeUnixNano"], other["observedTimeUnixNano"]
        assert one == other
        assert one["timeUnixNano"] == "1790000000123456000"
        assert one["eventName"] == event.type
        if body == "json":
            assert orjson.loads(one["body"]["stringValue"]) == orjson.loads(event.body)
        else:
            assert {entry["key"] for entry in one["body"]["kvlistValue"]["values"]} == set(orjson.loads(event.body))


async def test_http_to_the_port_of_grpc_says_so(tmp_path: Path) -> None:
    pki = make_pki(tmp_path, "otelcol")
    with collector(tmp_path, pki) as (_, grpc):
        there = sink(pki, "http", grpc)
        said = await verdict(there)
        await there.close()
    assert isinstance(said, Retry)
    assert f"localhost:{grpc}" in said.reason


async def test_our_own_metrics_and_traces_arrive_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = make_pki(tmp_path, "otelcol")
    files = pki.client_files()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files.ca)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", files.cert)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", files.key)

    async def report() -> Report:
        return report_of()

    with collector(tmp_path, pki) as (port, _):
        exporter = Exporter(report, ExportOptions(f"https://localhost:{port}", 0.05, traces=True))
        running = asyncio.create_task(exporter.run())
        await eventually(lambda: any("resourceMetrics" in one for one in received(tmp_path)))
        with TRACES.batch(monotonic, (("read", monotonic(), monotonic()),), {"sink": "siem"}):
            pass
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await eventually(lambda: any("resourceSpans" in one for one in received(tmp_path)))
    (metrics,) = next(one for one in received(tmp_path) if "resourceMetrics" in one)["resourceMetrics"]
    names = {one["name"] for one in metrics["scopeMetrics"][0]["metrics"]}
    assert names >= {"teleport_event_handler_lag_seconds", "teleport_event_handler_request_duration_seconds"}
    (traces,) = next(one for one in received(tmp_path) if "resourceSpans" in one)["resourceSpans"]
    assert [span["name"] for span in traces["scopeSpans"][0]["spans"]] == ["read", "batch"]
