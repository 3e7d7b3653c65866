"""Reads the events out of a request, whatever form its sink gives them, and tells what a receiver answers."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

OK = b"{}"


def _plain(body: bytes) -> list[Any]:
    """One event, an array of them, lines of them, or lines that each hold one, as Splunk takes them."""
    if body.startswith(b"["):
        return list(orjson.loads(body))
    parsed = [orjson.loads(line) for line in body.splitlines()]
    return [one["event"] if "sourcetype" in one else one for one in parsed]


def _bulk(body: bytes) -> list[Any]:
    return [orjson.loads(line) for line in body.splitlines()[1::2]]


def _loki(body: bytes) -> list[Any]:
    return [orjson.loads(line[1]) for stream in orjson.loads(body)["streams"] for line in stream["values"]]


def _otlp(body: bytes) -> list[Any]:
    request = ExportLogsServiceRequest.FromString(body)
    return [
        orjson.loads(record.body.string_value)
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def _rows(body: bytes) -> list[Any]:
    return [orjson.loads(line) for line in body.splitlines()]


def _kinesis(body: bytes) -> list[Any]:
    return [orjson.loads(b64decode(record["Data"])) for record in orjson.loads(body)["Records"]]


def _cloudwatch(body: bytes) -> list[Any]:
    return [orjson.loads(event["message"]) for event in orjson.loads(body)["logEvents"]]


def _messages(body: bytes) -> list[Any]:
    return [orjson.loads(one["message"]) for one in orjson.loads(body)]


FORMS: dict[str, Callable[[bytes], list[Any]]] = {
    "/_bulk": _bulk,
    "/loki/api/v1/push": _loki,
    "/v1/logs": _otlp,
    "/rows": _rows,
    "/kinesis": _kinesis,
    "/logs": _cloudwatch,
    "/log/v1": _messages,
}


def events_of(path: str, body: bytes) -> list[Any]:
    """The events of a request to that path, without its query."""
    return FORMS.get(path.removeprefix("/logs-teleport.audit-default"), _plain)(body)


def answer_to(path: str, count: int) -> bytes:
    """What says that a receiver took `count` events."""
    if path.endswith("/_bulk"):
        items = [{"create": {"status": 201}}] * count
        return orjson.dumps({"errors": False, "items": items})
    if path == "/kinesis":
        return orjson.dumps({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1", "ShardId": "s"}] * count})
    return b"" if path == "/v1/logs" else OK
