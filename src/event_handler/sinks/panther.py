"""Delivers to an HTTP source of Panther, whose schema `Gravitational.TeleportAudit` takes events as they are.

Facts: Panther's documentation of HTTP sources.
"""

from __future__ import annotations

from typing import Annotated

from event_handler.setting import Setting
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.http_login import LoginOptions
from event_handler.sinks.http_options import Gzip
from event_handler.sinks.http_signature import SignatureOptions
from event_handler.sinks.registry import SinkType
from event_handler.sinks.webhook import WebhookOptions, WebhookSink


class PantherOptions(LoginOptions, SignatureOptions):
    """The source's URL, and the way to sign in that was chosen for it in Panther."""

    url: Annotated[
        str, Setting("url", "URL of the HTTP source, as https://logs.DOMAIN/http/SOURCE-ID", required=True)
    ] = ""
    compression: Gzip = "gzip"


class PantherSink(WebhookSink):
    """A `panther` sink: lines of JSON. Raises SinkError as a webhook does."""

    def __init__(self, options: PantherOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        super().__init__(WebhookOptions(**dict(options), body="ndjson"), name, section, keepalive=keepalive)


SINK = SinkType("Panther, by an HTTP source", PantherOptions, PantherSink)
