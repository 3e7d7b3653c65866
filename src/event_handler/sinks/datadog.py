"""Delivers to Datadog's log intake, as the source `teleport`, for which Datadog has a pipeline of its own.

Facts: Datadog's API reference, "Logs: Send logs" (v2), and "Log collection: reserved attributes".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import orjson
from pydantic import Field

from event_handler.event import Event
from event_handler.ports import Denied, Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge
from event_handler.sinks.fields import session_field, with_fields
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.registry import SinkType
from event_handler.sinks.secret import Secret

INTAKE_EVENTS = 1000  # of a request, the intake's limit
INTAKE_BYTES = 4_000_000  # of the events of a request; the intake takes 5 MB with what is added to each
EVENT_BYTES = 990_000  # of one event; the intake takes 1 MB and cuts off the rest of a larger one without saying so
INTAKE_AGE = 0.5  # seconds an incomplete batch waits for more events
FAILED = b'"success":false'  # in an event, whose keys and values have no blank between

Site = Literal[
    "datadoghq.com",
    "us3.datadoghq.com",
    "us5.datadoghq.com",
    "datadoghq.eu",
    "uk1.datadoghq.com",
    "ap1.datadoghq.com",
    "ap2.datadoghq.com",
    "ddog-gov.com",
    "us2.ddog-gov.com",
]


class DatadogOptions(HttpOptions):
    """Which site, with which API key, and what Datadog is to call the events."""

    site: Annotated[Site, Setting("choice", "site of your organization, as in the address of Datadog's pages")] = (
        "datadoghq.com"
    )
    url: Annotated[str, Setting("url", "address of the intake", unset="https://http-intake.logs.SITE/api/v2/logs")] = ""
    api_key: Annotated[
        str, Setting("text", "API key; better in api-key-file or the variable", secret=True), Field(repr=False)
    ] = ""
    api_key_file: Annotated[str, Setting("file", "file with the API key; it is read again when it changes")] = ""
    source: Annotated[str, Setting("text", "ddsource; Datadog's pipeline for Teleport takes `teleport`")] = "teleport"
    service: Annotated[str, Setting("text", "service of the events")] = "teleport"
    hostname: Annotated[str, Setting("text", "host of the events", unset="none")] = ""
    tags: Annotated[tuple[str, ...], Setting("list", "tags of all events, as env:production")] = ()


class DatadogSink:
    """A `datadog` sink. Raises SinkError when the key, the URL or the TLS files cannot be used."""

    def __init__(self, options: DatadogOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        self.name = name
        self.limits = Limits(INTAKE_EVENTS, INTAKE_BYTES, options.max_connections, INTAKE_AGE, event_bytes=EVENT_BYTES)
        address = options.url or f"https://http-intake.logs.{options.site}/api/v2/logs"
        self._url = options.address(address, f"{section}.url")
        self._key = Secret(options.api_key, options.api_key_file, f"{section}.api-key")
        self._section = section
        named = {
            "ddsource": options.source,
            "service": options.service,
            "hostname": options.hostname,
            "ddtags": ",".join(options.tags),
        }
        self._same = b"".join(b"%b:%b," % (orjson.dumps(k), orjson.dumps(v)) for k, v in named.items() if v)
        self._client = options.client(
            section,
            {"Content-Type": "application/json", "DD-API-KEY": self._key.value},
            keepalive=keepalive,
            status_only=True,
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if self._key.changed():
            self._client.set_header("DD-API-KEY", self._key.value)
        answer = await self._client.post(self._url, b"[%b]" % b",".join(map(self._document, events)))
        if isinstance(answer, Retry):
            return answer
        verdict = judge(answer)
        if isinstance(verdict, Denied) and answer.status in (401, 403):
            return Denied(
                f"the receiver answered {answer.status}; check {self._section}.api-key, and that the organization is "
                f"of {self._section}.site",
                after=verdict.after,
            )
        return verdict

    def _document(self, event: Event) -> bytes:
        """The event's own fields behind those that Datadog reserves; `timestamp` is in milliseconds."""
        status = b"error" if FAILED in event.body else b"info"
        session = session_field(event.session_id) + b"," if event.session_id else b""
        fields = b'%b%b"status":"%b","timestamp":%d' % (self._same, session, status, round(event.time * 1000))
        return with_fields(event.body, fields)

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


SINK = SinkType("Datadog's log intake, on every site", DatadogOptions, DatadogSink)
