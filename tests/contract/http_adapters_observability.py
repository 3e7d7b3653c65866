"""How the sinks for Loki and OpenTelemetry are built, and how their receivers talk."""

from __future__ import annotations

import orjson

from event_handler.ports import Sink
from event_handler.sinks.http import TlsFiles
from event_handler.sinks.loki import LokiOptions, LokiSink
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


OBSERVABILITY_ADAPTERS = [
    HttpAdapter("loki", _loki, _loki_ids, lambda _: Reply(204), False, "sinks.loki", packs=True),
]
