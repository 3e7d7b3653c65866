"""How the sinks for Loki, OpenTelemetry and ClickHouse are built, and how their receivers talk."""

from __future__ import annotations

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from event_handler.ports import Sink
from event_handler.sinks.clickhouse import ClickhouseOptions, ClickhouseSink
from event_handler.sinks.http import TlsFiles
from event_handler.sinks.loki import LokiOptions, LokiSink
from event_handler.sinks.otlp import OtlpOptions, OtlpSink
from tests.contract.http_adapter import HttpAdapter
from tests.contract.receiver import Reply, Request


def _loki(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = LokiOptions(
        url=url,
        tenant="security",
        bearer="a-token",
        labels={"env": "test"},
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        timeout=timeout,
    )
    return LokiSink(options, "loki", "sinks.loki", keepalive=keepalive)


def _loki_ids(request: Request) -> list[str]:
    streams = orjson.loads(request.body)["streams"]
    return [orjson.loads(value[1])["uid"] for stream in streams for value in stream["values"]]


def _otlp(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = OtlpOptions(
        url=url, bearer="a-token", ca=files.ca, cert=files.cert, key=files.key, timeout=timeout, body="json"
    )
    return OtlpSink(options, "otel", "sinks.otel", keepalive=keepalive)


def otlp_records(body: bytes) -> list[LogRecord]:
    request = ExportLogsServiceRequest.FromString(body)
    return [record for one in request.resource_logs for scope in one.scope_logs for record in scope.log_records]


def _otlp_ids(request: Request) -> list[str]:
    return [orjson.loads(record.body.string_value)["uid"] for record in otlp_records(request.body)]


def _clickhouse(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = ClickhouseOptions(
        url=url,
        username="teleport",
        password="a-password",
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        timeout=timeout,
        max_connections=8,
    )
    return ClickhouseSink(options, "click", "sinks.click", keepalive=keepalive)


def _clickhouse_ids(request: Request) -> list[str]:
    return [orjson.loads(line)["uid"] for line in request.body.splitlines()]


OBSERVABILITY_ADAPTERS = [
    HttpAdapter("clickhouse", _clickhouse, _clickhouse_ids, lambda _: Reply(200), False, "sinks.click", packs=True),
    HttpAdapter("otlp", _otlp, _otlp_ids, lambda _: Reply(200), True, "sinks.otel", packs=True, empty_is_success=True),
    HttpAdapter("loki", _loki, _loki_ids, lambda _: Reply(204), False, "sinks.loki", packs=True),
]
