"""Finds a destination by the name of its type: our own, and those of other packages, which have an entry point."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from event_handler.errors import SinkError
from event_handler.ports import Sink
from event_handler.setting import Options

GROUP = "event_handler.sinks"  # entry points of other packages: `siem = "their_package.module:SINK"`
PRESETS = "event_handler.sinks.presets"  # has several types, in SINKS
OWN = {  # modules are loaded when their type is used; each has its SinkType in SINK
    "aws-cloudwatch": "event_handler.sinks.aws_cloudwatch",
    "aws-firehose": "event_handler.sinks.aws_firehose",
    "aws-kinesis": "event_handler.sinks.aws_kinesis",
    "aws-sqs": "event_handler.sinks.aws_sqs",
    "axiom": PRESETS,
    "betterstack": PRESETS,
    "clickhouse": "event_handler.sinks.clickhouse",
    "datadog": "event_handler.sinks.datadog",
    "elasticsearch": "event_handler.sinks.elasticsearch",
    "file": "event_handler.sinks.file",
    "fluentd": "event_handler.sinks.fluentd",
    "forward": "event_handler.sinks.forward",
    "gcp-pubsub": "event_handler.sinks.gcp_pubsub",
    "graylog-gelf": PRESETS,
    "google-secops": "event_handler.sinks.google_secops",
    "honeycomb": PRESETS,
    "kafka": "event_handler.sinks.kafka",
    "loki": "event_handler.sinks.loki",
    "nats": "event_handler.sinks.nats",
    "newrelic": PRESETS,
    "otlp": "event_handler.sinks.otlp",
    "panther": "event_handler.sinks.panther",
    "postgresql": "event_handler.sinks.postgresql",
    "redis-streams": "event_handler.sinks.redis_streams",
    "s3": "event_handler.sinks.s3",
    "sentinel": "event_handler.sinks.sentinel",
    "splunk-hec": "event_handler.sinks.splunk_hec",
    "sumologic": "event_handler.sinks.sumologic",
    "syslog": "event_handler.sinks.syslog",
    "webhook": "event_handler.sinks.webhook",
}
LIKE = 0.6  # how alike two names are at least, of 1, before one is offered for the other


@dataclass(frozen=True, slots=True)
class SinkType:
    """A destination: what it is in one line, its options, and how a sink of that type is made.

    `make` gets the options, the name of the sink, and the table in which its options stand, for errors
    (`sinks.siem`). It raises SinkError for options that cannot be used.
    """

    summary: str
    options: type[Options]
    make: Callable[[Any, str, str], Sink]


def sink_types() -> list[str]:
    """The names of all types that there are."""
    return sorted({*OWN, *(point.name for point in metadata.entry_points(group=GROUP))})


def sink_type(name: str) -> SinkType:
    """Load the module of a type. Raises SinkError when there is none of that name, or when it cannot be loaded."""
    if name in OWN:
        module = import_module(OWN[name])
        found: object = module.SINKS[name] if OWN[name] == PRESETS else module.SINK
    else:
        points = {point.name: point for point in metadata.entry_points(group=GROUP)}
        if name not in points:
            near = difflib.get_close_matches(name, sink_types(), n=1, cutoff=LIKE)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise SinkError(f"there is no sink type {name!r}", f"{hint}The types are {', '.join(sink_types())}.")
        found = _load(points[name])
    if not isinstance(found, SinkType):
        raise SinkError(f"the sink type {name} cannot be used: expected a SinkType, got {type(found).__name__}")
    return found


def _load(point: metadata.EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # whatever another package does when it is loaded
        reason = f"{type(error).__name__}: {error}"
        raise SinkError(
            f"the sink type {point.name} of {point.value} cannot be loaded ({reason})", "Repair that package."
        ) from None
