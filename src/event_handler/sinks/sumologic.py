"""Delivers to an HTTP Logs source of Sumo Logic, whose URL is its secret.

Facts: Sumo Logic's documentation of the HTTP Logs and Metrics source.
"""

from __future__ import annotations

from typing import Annotated

from event_handler.setting import Setting
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.http_login import checked_headers
from event_handler.sinks.http_options import Gzip, HttpOptions
from event_handler.sinks.registry import SinkType
from event_handler.sinks.webhook import WebhookOptions, WebhookSink


class SumologicOptions(HttpOptions):
    """The source's URL, and what Sumo Logic is to call the events."""

    url: Annotated[
        str, Setting("url", "URL of the HTTP source; it is a secret, better in the variable", required=True)
    ] = ""
    category: Annotated[str, Setting("text", "source category of the events", unset="that of the source")] = ""
    source_name: Annotated[str, Setting("text", "source name of the events", unset="that of the source")] = ""
    source_host: Annotated[str, Setting("text", "source host of the events", unset="that of the source")] = ""
    compression: Gzip = "gzip"


class SumologicSink(WebhookSink):
    """A `sumologic` sink: lines of JSON. Raises SinkError as a webhook does."""

    def __init__(self, options: SumologicOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        named = {
            "X-Sumo-Category": options.category,
            "X-Sumo-Name": options.source_name,
            "X-Sumo-Host": options.source_host,
        }
        headers = checked_headers({header: value for header, value in named.items() if value}, section)
        shared = {field: getattr(options, field) for field in HttpOptions.model_fields}
        given = WebhookOptions(url=options.url, body="ndjson", **shared)
        super().__init__(given, name, section, keepalive=keepalive, headers=headers)


SINK = SinkType("Sumo Logic, by an HTTP source", SumologicOptions, SumologicSink)
