"""Delivers to Fluentd, or to any collector that takes JSON over HTTP: one event per request, or an array of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from yarl import URL

from event_handler.event import Event
from event_handler.sinks.answers import judge
from event_handler.sinks.base import Limits, Retry, Verdict
from event_handler.sinks.http import KEEPALIVE, REQUEST_TIMEOUT, Compression, HttpClient, TlsFiles, endpoint

ARRAY_EVENTS = 500  # events of an array; more brings nothing and makes a lost answer dearer
ARRAY_BYTES = 1024 * 1024  # bytes; Fluent Bit takes 4 MiB and Fluentd 32, but most SaaS intakes only 1
ARRAY_AGE = 0.05  # seconds an incomplete batch waits for more events
# Requests in flight at most, each on a connection: Fluentd often has 1,024 file descriptors, Logstash answers 429 above
# 200.
MAX_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class FluentdSettings:
    """Where and how to deliver: URLs, TLS files ("" = none), body format and the cap on requests in flight.

    `compression` packs the bodies, `ordered` keeps the events of a session in order.
    `timeout` limits a request from connect to the end of the answer, `keepalive` how long an idle connection is kept
    (seconds).
    """

    url: str
    session_url: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    format: Literal["single", "array"] = "single"
    max_connections: int = MAX_CONNECTIONS
    timeout: float = REQUEST_TIMEOUT
    keepalive: float = KEEPALIVE
    compression: Compression = "none"
    ordered: bool = False


class FluentdSink:
    """The `fluentd` sink. Raises SinkError when the URLs or the TLS files cannot be used."""

    name = "fluentd"

    def __init__(self, settings: FluentdSettings) -> None:
        self._single = settings.format == "single"
        events, age = (1, 0.0) if self._single else (ARRAY_EVENTS, ARRAY_AGE)
        self.limits = Limits(events, ARRAY_BYTES, settings.max_connections, age, settings.ordered)
        files = TlsFiles(settings.ca, settings.cert, settings.key)
        self._url = endpoint(settings.url, "forward.fluentd.url", files)
        self._session_url = endpoint(settings.session_url, "forward.fluentd.session-url", files)
        self._client = HttpClient(
            "forward.fluentd",
            files,
            connections=settings.max_connections,
            headers={"Content-Type": "application/json"},
            timeout=settings.timeout,
            keepalive=settings.keepalive,
            compression=settings.compression,
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
