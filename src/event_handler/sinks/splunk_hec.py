"""Delivers to Splunk's HTTP Event Collector, on request until the indexers have acknowledged the events.

Facts: Splunk's "HTTP Event Collector REST API endpoints" and "Troubleshoot HTTP Event Collector" for the codes, "About
HTTP Event Collector Indexer Acknowledgment" for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import uuid4

import orjson
from pydantic import Field
from yarl import URL

from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Limits, Partial, Reject, Retry, Split, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import json_of, judge, readable
from event_handler.sinks.fields import session_field
from event_handler.sinks.http import KEEPALIVE, MISCONFIGURED_WAIT, Answer, HttpClient, retry_seconds
from event_handler.sinks.http_options import Gzip, HttpOptions
from event_handler.sinks.registry import SinkType
from event_handler.sinks.secret import Secret

HEC_EVENTS = 500  # of a request; what is around each event then takes at most a tenth of the megabyte
HEC_BYTES = 750_000  # of the events of a request; Splunk Cloud and its load balancers take about 1 MB
HEC_AGE = 0.5  # seconds an incomplete batch waits for more events
PATH = "/services/collector/event"
POLL_EVERY = 1.0  # seconds between questions whether something is acknowledged; indexers do so every few seconds
ACKNOWLEDGED_AT_ONCE = 500  # ids of one question

# Codes of an answer.
TOO_LARGE, BUSY = 27, frozenset({8, 9, 18, 19, 20, 23})
OF_AN_EVENT = frozenset({5, 6, 12, 13, 15})
NEXT_STEP = {
    1: "enable the token in Splunk",
    2: "set the option token",
    3: "check the option token",
    4: "check the option token",
    7: "let the token write to that index, or correct the option index",
    10: "the token has indexer acknowledgement: set acknowledge = true, or turn that off in Splunk",
    11: "the token has indexer acknowledgement: set acknowledge = true, or turn that off in Splunk",
    14: "turn indexer acknowledgement on for the token in Splunk, or set acknowledge = false",
}


class SplunkHecOptions(HttpOptions):
    """Where to deliver, with which token, and what Splunk is to call the events."""

    url: Annotated[
        str, Setting("url", f"address of the collector, as https://host:8088; {PATH} is added to it", required=True)
    ] = ""
    token: Annotated[
        str,
        Setting("text", "token of the collector; better in token-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    token_file: Annotated[str, Setting("file", "file with the token; it is read again when it changes")] = ""
    index: Annotated[str, Setting("text", "index of the events", unset="the token's default index")] = ""
    source: Annotated[str, Setting("text", "source of the events")] = "teleport"
    sourcetype: Annotated[str, Setting("text", "source type of audit events")] = "teleport:audit"
    session_sourcetype: Annotated[str, Setting("text", "source type of recorded events")] = "teleport:session"
    host: Annotated[str, Setting("text", "host of the events", unset="the address that they come from")] = ""
    acknowledge: Annotated[
        bool, Setting("flag", "count events as delivered only when the indexers have acknowledged them")
    ] = False
    acknowledge_timeout: Annotated[
        float, Setting("duration", "time after which what is not acknowledged is sent again"), Field(ge=2.0)
    ] = 300.0
    compression: Gzip = "gzip"


class SplunkHecSink:
    """A `splunk-hec` sink. Raises SinkError when the URL, the token or the TLS files cannot be used."""

    def __init__(
        self,
        options: SplunkHecOptions,
        name: str,
        section: str,
        *,
        keepalive: float = KEEPALIVE,
        poll_every: float = POLL_EVERY,
    ) -> None:
        self.name = name
        self.limits = Limits(HEC_EVENTS, HEC_BYTES, options.max_connections, HEC_AGE)
        base = options.address(options.url, f"{section}.url")
        self._url = base if base.raw_path.strip("/") else base.with_path(PATH)
        self._token = Secret(options.token, options.token_file, f"{section}.token")
        self._audit = _before_event(options, options.sourcetype)
        self._session = _before_event(options, options.session_sourcetype)
        self._client = options.client(
            section,
            {
                "Content-Type": "application/json",
                "Authorization": f"Splunk {self._token.value}",
                "X-Splunk-Request-Channel": str(uuid4()),
            },
            keepalive=keepalive,
            status_only=not options.acknowledge,
        )
        self._acknowledgements = (
            Acknowledgements(self._client, _ack_url(self._url), options.acknowledge_timeout, poll_every)
            if options.acknowledge
            else None
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if self._token.changed():
            self._client.set_header("Authorization", f"Splunk {self._token.value}")
        answer = await self._client.post(self._url, self._body(events))
        if isinstance(answer, Retry):
            return answer
        if self._acknowledgements is None or not 200 <= answer.status < 300:
            return judge_hec(answer, len(events))
        number = _said(answer).get("ackId")
        if not isinstance(number, int):
            reason = f"the receiver gave no ackId ({readable(answer.body)}); {NEXT_STEP[14]}"
            return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
        return await self._acknowledgements.wait(number)

    def _body(self, events: Sequence[Event]) -> bytes:
        session = events[0].session_id
        before, after = self._audit, b"}"
        if session:
            before, after = self._session, b',"fields":{%b}}' % session_field(session)
        return b"\n".join(b'{"time":%.3f,%b%b%b' % (event.time, before, event.body, after) for event in events)

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


class Acknowledgements:
    """Asks which requests the indexers have acknowledged: one question at a time, for all who wait."""

    def __init__(self, client: HttpClient, url: URL, timeout: float, every: float) -> None:
        self._client = client
        self._url = url
        self._timeout = timeout
        self._every = every
        self._pending: dict[int, asyncio.Future[bool]] = {}
        self._asking = asyncio.Lock()
        self._reason = ""

    async def wait(self, number: int) -> Verdict:
        """Delivered once that request is acknowledged, or a Retry when it is not in time.

        A number that is given again while somebody waits for it comes from a receiver that was started again, and has
        forgotten the first one.
        """
        loop = asyncio.get_running_loop()
        end, acknowledged = loop.time() + self._timeout, loop.create_future()
        if (before := self._pending.get(number)) is not None and not before.done():
            before.set_result(False)
        self._pending[number] = acknowledged
        try:
            while not acknowledged.done() and loop.time() < end:
                if self._asking.locked():
                    await asyncio.wait([acknowledged], timeout=self._every)
                    continue
                async with self._asking:
                    await self._ask()
                    if not acknowledged.done():
                        await asyncio.wait([acknowledged], timeout=self._every)
        finally:
            if self._pending.get(number) is acknowledged:
                del self._pending[number]
        if acknowledged.done():
            forgotten = "the receiver was started again before it acknowledged events"
            return Delivered() if acknowledged.result() else Retry(forgotten, unanswered=True)
        why = f"; {self._reason}" if self._reason else ""
        return Retry(f"the indexers did not acknowledge events within {self._timeout:g} s{why}", unanswered=True)

    async def _ask(self) -> None:
        numbers = list(self._pending)[:ACKNOWLEDGED_AT_ONCE]
        answer = await self._client.request("POST", self._url, orjson.dumps({"acks": numbers}))
        if isinstance(answer, Retry):
            self._reason = answer.reason
            return
        acks = _said(answer).get("acks")
        if not 200 <= answer.status < 300 or not isinstance(acks, dict):
            self._reason = f"asked for that, the receiver answered {answer.status} {readable(answer.body)}"
            return
        self._reason = ""
        for text, yes in acks.items():
            future = self._pending.get(int(text)) if text.isdigit() else None
            if yes is True and future is not None and not future.done():
                future.set_result(True)


def judge_hec(answer: Answer, count: int) -> Verdict:
    """Turn an answer to `count` events into a verdict, by Splunk's code where it has one."""
    said = _said(answer)
    code, bad = said.get("code"), said.get("invalid-event-number")
    if 200 <= answer.status < 300 or not isinstance(code, int):
        return judge(answer)
    reason = f"the receiver answered {answer.status}, code {code}: {readable(str(said.get('text', '')).encode())}"
    if code == TOO_LARGE:
        return Split(reason)
    if code in BUSY:
        return Retry(reason, after=retry_seconds(answer.retry_after))
    if code in OF_AN_EVENT:
        if isinstance(bad, int) and 0 <= bad < count:  # those before it are taken, those behind were not looked at
            return Partial(frozenset(range(bad + 1, count)), {bad: reason}, reason)
        return Reject(reason)
    if code in NEXT_STEP:
        return Denied(f"{reason}; {NEXT_STEP[code]}", after=retry_seconds(answer.retry_after))
    return judge(answer)


def _said(answer: Answer) -> dict[str, Any]:
    found = json_of(answer)
    return found if isinstance(found, dict) else {}


def _before_event(options: SplunkHecOptions, sourcetype: str) -> bytes:
    """What stands in each object between the time and the event."""
    named = {"host": options.host, "source": options.source, "sourcetype": sourcetype, "index": options.index}
    fields = [b"%b:%b" % (orjson.dumps(key), orjson.dumps(value)) for key, value in named.items() if value]
    return b",".join([*fields, b'"event":'])


def _ack_url(url: URL) -> URL:
    """Where to ask what is acknowledged: beside the event endpoint."""
    path = url.raw_path.rstrip("/").removesuffix("/1.0").removesuffix("/event")
    return url.with_path(f"{path}/ack", encoded=True, keep_query=True)


SINK = SinkType("Splunk Enterprise and Splunk Cloud, by the HTTP Event Collector", SplunkHecOptions, SplunkHecSink)
