"""Delivers JSON to any receiver over HTTP: an event, an array or lines in a request, signed in as the receiver wants.

`panther` and `sumologic` are the same with what these receivers want set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from event_handler.event import Event
from event_handler.ports import Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge
from event_handler.sinks.fields import with_session
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.http_login import Login, LoginOptions, checked_headers
from event_handler.sinks.registry import SinkType

AGE = 0.2  # seconds an incomplete batch waits for more events
REQUEST_EVENTS = 500  # of a request; more brings nothing and makes a lost answer dearer
REQUEST_BYTES = 1024 * 1024  # of a request; most services take no more

Body = Literal["single", "array", "ndjson"]
CONTENT_TYPES = {"single": "application/json", "array": "application/json", "ndjson": "application/x-ndjson"}


class WebhookOptions(LoginOptions):
    """Where to deliver, in which form, and how to sign in."""

    url: Annotated[str, Setting("url", "URL that audit events are sent to", required=True)] = ""
    session_url: Annotated[str, Setting("url", "URL of session recordings", unset="the same URL")] = ""
    body: Annotated[
        Body, Setting("choice", "what a request holds: one event, a JSON array of many, or a line for each")
    ] = "array"
    headers: Annotated[
        dict[str, str],
        Setting("table", "headers of every request; never shown, for they may hold a secret", secret=True),
    ] = Field(default_factory=dict, repr=False)
    max_events: Annotated[int, Setting("number", "events of a request at most"), Field(ge=1, le=10_000)] = (
        REQUEST_EVENTS
    )
    max_bytes: Annotated[
        int, Setting("number", "bytes of the events of a request at most"), Field(ge=1000, le=100 * 1024 * 1024)
    ] = REQUEST_BYTES


class WebhookSink:
    """A `webhook` sink. Raises SinkError when the options contradict one another or the TLS files cannot be used."""

    def __init__(
        self,
        options: WebhookOptions,
        name: str,
        section: str,
        *,
        keepalive: float = KEEPALIVE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._body = options.body
        single = options.body == "single"
        self.limits = Limits(
            1 if single else options.max_events, options.max_bytes, options.max_connections, 0.0 if single else AGE
        )
        self._url = options.address(options.url, f"{section}.url")
        self._session_url = (
            options.address(options.session_url, f"{section}.session-url") if options.session_url else self._url
        )
        self._login = Login(options, section)
        self._client = options.client(
            section,
            {
                "Content-Type": CONTENT_TYPES[options.body],
                **(headers or {}),
                **checked_headers(options.headers, section),
                **self._login.headers(),
            },
            keepalive=keepalive,
            status_only=True,
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        url = self._session_url if events[0].session_id else self._url
        content = self._content(events)
        answer = await self._login.signed_in(self._client, lambda: self._client.post(url, content))
        return answer if isinstance(answer, Retry) else judge(answer)

    def _content(self, events: Sequence[Event]) -> bytes:
        bodies = [with_session(event) for event in events]
        if self._body == "ndjson":
            return b"\n".join([*bodies, b""])
        return bodies[0] if self._body == "single" else b"[%b]" % b",".join(bodies)

    async def reopen(self) -> None:
        self._client.reload()
        self._login.reload()

    async def close(self) -> None:
        await self._client.close()
        await self._login.close()


SINK = SinkType("any receiver of JSON over HTTP, with headers and a login of your own", WebhookOptions, WebhookSink)
