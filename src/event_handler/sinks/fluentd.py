"""Delivers to Fluentd, or to any collector that takes JSON over HTTP: one event per request, or an array of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field
from yarl import URL

from event_handler.event import Event
from event_handler.ports import Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.registry import SinkType

ARRAY_EVENTS = 500  # events of an array; more brings nothing and makes a lost answer dearer
ARRAY_BYTES = 1024 * 1024  # bytes; Fluent Bit takes 4 MiB and Fluentd 32, but most SaaS intakes only 1
ARRAY_AGE = 0.05  # seconds an incomplete batch waits for more events
# Requests in flight at most, each on a connection: Fluentd often has 1,024 file descriptors, Logstash answers 429 above
# 200.
MAX_CONNECTIONS = 64


class FluentdOptions(HttpOptions):
    """Where and how to deliver: URLs, TLS files ("" = none), the form of the bodies, and requests in flight."""

    url: Annotated[
        str, Setting("url", "URL that audit events are sent to", unset="none: no events to this sink", required=True)
    ] = ""
    session_url: Annotated[
        str,
        Setting(
            "url",
            "URL of session recordings; .<session id>.log is appended",
            unset="none: needed with the other URL",
            required=True,
        ),
    ] = ""
    max_connections: Annotated[
        int,
        Setting("number", "requests in flight at most, 0 = 64, or twice the concurrency where that is more"),
        Field(ge=0, le=1000),
    ] = 0
    format: Annotated[
        Literal["single", "array"], Setting("choice", "one event per request, or a JSON array of many")
    ] = "single"
    compression: Annotated[
        Literal["none", "gzip"],
        Setting("choice", "how bodies are packed; Fluentd takes gzip from 1.2.3 on, Fluent Bit from 2.2.1 on"),
    ] = "none"
    ordered: Annotated[
        bool,
        Setting("flag", "keep the order of a session, and of events without one: one request, one chunk at a time"),
    ] = False


class FluentdSink:
    """A `fluentd` sink. `keepalive` is how long an idle connection is kept, in seconds.

    Raises SinkError when the URLs or the TLS files cannot be used.
    """

    def __init__(
        self,
        options: FluentdOptions,
        name: str = "fluentd",
        section: str = "forward.fluentd",
        *,
        keepalive: float = KEEPALIVE,
    ) -> None:
        self.name = name
        self._single = options.format == "single"
        events, age = (1, 0.0) if self._single else (ARRAY_EVENTS, ARRAY_AGE)
        requests = options.max_connections or MAX_CONNECTIONS
        self.limits = Limits(events, ARRAY_BYTES, requests, age, options.ordered)
        self._url = options.address(options.url, f"{section}.url")
        self._session_url = options.address(options.session_url, f"{section}.session-url")
        self._client = options.client(
            section,
            {"Content-Type": "application/json"},
            connections=requests,
            keepalive=keepalive,
            status_only=True,
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        session_id = events[0].session_id
        body = events[0].body if self._single else b"[" + b",".join(event.body for event in events) + b"]"
        answer = await self._client.post(session_url(self._session_url, session_id) if session_id else self._url, body)
        return answer if isinstance(answer, Retry) else judge(answer)

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


def session_url(base: URL, session_id: str) -> URL:
    """`<path>.<session id>.log` as the Go plugin has it, with the query kept behind.

    An odd id cannot leave the last segment.
    """
    return base.with_path(f"{base.raw_path}.{quote(session_id, safe='')}.log", encoded=True, keep_query=True)


SINK = SinkType("Fluentd, Fluent Bit, or any collector that takes JSON over HTTP", FluentdOptions, FluentdSink)
