"""Delivers JSON to any receiver over HTTP, in the form, to the address, and signed in as the receiver wants.

`panther` and `sumologic` are the same with what these receivers want set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

import orjson
from pydantic import Field
from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Limits, Partial, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge, partly, readable
from event_handler.sinks.fields import with_session
from event_handler.sinks.http import KEEPALIVE, About, Answer
from event_handler.sinks.http_login import HEADER_NAME, Headers, LoginClient, LoginOptions, checked_headers
from event_handler.sinks.http_signature import Signature, SignatureOptions
from event_handler.sinks.registry import SinkType
from event_handler.sinks.repeat_key import repeat_key

AGE = 0.2  # seconds an incomplete batch waits for more events
REQUEST_EVENTS = 500  # of a request; more brings nothing and makes a lost answer dearer
REQUEST_BYTES = 1024 * 1024  # of a request; most services take no more
MOST_URLS = 50  # that one batch is divided by; the rest of it comes again, so that nothing waits for very long

Body = Literal["single", "array", "ndjson", "template"]
Method = Literal["POST", "PUT", "PATCH"]
CONTENT_TYPES = {
    "single": "application/json",
    "array": "application/json",
    "ndjson": "application/x-ndjson",
    "template": "application/json",
}
URL_FIELD = re.compile(r"\{([A-Za-z0-9_.]+)\}")
DOTS = frozenset({".", ".."})  # a part of a path that means another part


class WebhookOptions(LoginOptions, SignatureOptions):
    """Where to deliver, in which form, and how to sign in."""

    url: Annotated[
        str,
        Setting(
            "url", "URL that audit events are sent to; its path may have fields of an event, as {event}", required=True
        ),
    ] = ""
    session_url: Annotated[str, Setting("url", "URL of session recordings", unset="the same URL")] = ""
    method: Annotated[Method, Setting("choice", "method of the requests")] = "POST"
    body: Annotated[
        Body,
        Setting(
            "choice", "what a request holds: one event, a JSON array of many, a line for each, or what template says"
        ),
    ] = "array"
    template: Annotated[
        str,
        Setting("text", "JSON around the events: $EVENTS stands for an array of many, $EVENT for one, once in all"),
    ] = ""
    headers: Headers = Field(default_factory=dict, repr=False)
    success_codes: Annotated[
        tuple[int, ...], Setting("list", "statuses that mean that the events were taken", unset="200 to 299")
    ] = ()
    idempotency_header: Annotated[
        str, Setting("text", "header with a key that is the same for every try of the same events")
    ] = ""
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
        self._options = options
        self._section = section
        self._around = template_parts(options, section)
        single = options.body == "single" or "$EVENT" in options.template.replace("$EVENTS", "")
        self.limits = Limits(
            1 if single else options.max_events, options.max_bytes, options.max_connections, 0.0 if single else AGE
        )
        self._url = Address(options, options.url, f"{section}.url")
        self._session_url = (
            Address(options, options.session_url, f"{section}.session-url") if options.session_url else self._url
        )
        if options.idempotency_header and not HEADER_NAME.fullmatch(options.idempotency_header):
            raise SinkError(f"{section}.idempotency-header is no name of a header", "As Idempotency-Key.")
        self._signature = Signature(options, section)
        named = {
            "Content-Type": CONTENT_TYPES[options.body],
            **(headers or {}),
            **checked_headers(options.headers, section),
        }
        self._client = LoginClient(options, section, named, keepalive=keepalive, status_only=True)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        address = self._session_url if events[0].session_id else self._url
        if not address.fields:
            return await self._send(address.url, events)
        groups = address.groups(events)
        done: set[int] = set()
        for url, places in list(groups.items())[:MOST_URLS]:
            verdict = await self._send(url, [events[place] for place in places])
            if not isinstance(verdict, Delivered):
                # Content or size that is refused comes again with the rest, and in smaller batches at last.
                return verdict if len(groups) == 1 else partly(frozenset(range(len(events))) - done, verdict)
            done.update(places)
        left = frozenset(range(len(events))) - done
        return Partial(left, {}, f"the events of a batch have more than {MOST_URLS} URLs") if left else Delivered()

    async def _send(self, url: URL, events: Sequence[Event]) -> Verdict:
        about = self._about(events) if self._options.idempotency_header or self._signature.signs else None
        answer = await self._client.post(url, self._content(events), self._options.method, about)
        return answer if isinstance(answer, Retry) else self._judge(answer)

    def _judge(self, answer: Answer) -> Verdict:
        verdict, codes = judge(answer), self._options.success_codes
        if not codes:
            return verdict
        if answer.status in codes:
            return Delivered()
        if isinstance(verdict, Delivered):
            reason = f"the receiver answered {answer.status} {readable(answer.body)}".strip()
            return Denied(f"{reason}, which is not one of {self._section}.success-codes")
        return verdict

    def _about(self, events: Sequence[Event]) -> About:
        """What gives a request its key and its signature."""
        header = self._options.idempotency_header
        key = {header: repeat_key(events)} if header else {}
        return lambda body: {**key, **self._signature.headers(body)}

    def _content(self, events: Sequence[Event]) -> bytes:
        bodies = [with_session(event) for event in events]
        body = self._options.body
        if body == "ndjson":
            return b"\n".join([*bodies, b""])
        if body == "single":
            return bodies[0]
        before, array, after = self._around
        return before + (b"[%b]" % b",".join(bodies) if array else bodies[0]) + after

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


class Address:
    """A URL whose path may have fields of the event. Raises SinkError for one that is none."""

    def __init__(self, options: WebhookOptions, text: str, option: str) -> None:
        self.fields = frozenset(URL_FIELD.findall(text))
        self._template = text
        self.url = options.address(URL_FIELD.sub("x", text), option)
        if URL_FIELD.search(text.partition("://")[2].partition("/")[0]) or URL_FIELD.search(text.partition("?")[2]):
            raise SinkError(f"{option} has a field outside its path", "As https://host/events/{event}.")

    def groups(self, events: Sequence[Event]) -> dict[URL, list[int]]:
        """The places of the events of each URL."""
        found: dict[URL, list[int]] = {}
        for place, event in enumerate(events):
            found.setdefault(self._of(event), []).append(place)
        return found

    def _of(self, event: Event) -> URL:
        content: dict[str, Any] = orjson.loads(event.body)
        return URL(URL_FIELD.sub(lambda field: _part(content.get(field[1])), self._template), encoded=True)


def _part(value: object) -> str:
    """A value as a part of a path, whatever an event holds; `none` where it holds nothing that can be one."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return "none" if not text or text in DOTS else quote(text[:200], safe="")


def template_parts(options: WebhookOptions, section: str) -> tuple[bytes, bool, bytes]:
    """What stands before the events, whether they are an array, and what stands behind. Raises SinkError."""
    if options.body != "template":
        if options.template:
            raise SinkError(f"{section}.template is set, and {section}.body is not template", "Set both, or none.")
        return b"", True, b""
    array = options.template.count("$EVENTS")
    single = options.template.count("$EVENT") - array
    hint = """As {"source": "teleport", "records": $EVENTS}."""
    if array + single != 1:
        raise SinkError(f"{section}.template must have $EVENTS or $EVENT once", hint)
    before, _, after = options.template.partition("$EVENTS" if array else "$EVENT")
    try:
        orjson.loads(f"{before}{'[]' if array else '{}'}{after}")
    except ValueError:
        raise SinkError(f"{section}.template is not JSON around the events", hint) from None
    return before.encode(), bool(array), after.encode()


SINK = SinkType("any receiver of JSON over HTTP, with headers and a login of your own", WebhookOptions, WebhookSink)
