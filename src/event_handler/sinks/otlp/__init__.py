"""Delivers logs by OTLP to an OpenTelemetry Collector or to whatever takes OTLP."""

from __future__ import annotations

from event_handler.sinks.otlp.sink import OtlpOptions as OtlpOptions
from event_handler.sinks.otlp.sink import OtlpSink as OtlpSink
from event_handler.sinks.registry import SinkType

SINK = SinkType("an OpenTelemetry Collector, or any receiver of OTLP logs, over HTTP or gRPC", OtlpOptions, OtlpSink)
