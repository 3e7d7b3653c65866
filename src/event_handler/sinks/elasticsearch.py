"""Delivers to Elasticsearch 8 and 9 or to OpenSearch with the bulk API, so that an event sent twice is stored once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

import orjson
from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.sinks.base import Delivered, Limits, Partial, Retry, Verdict, with_fields
from event_handler.sinks.http import (
    KEEPALIVE,
    MISCONFIGURED_WAIT,
    REASON_LENGTH,
    REQUEST_TIMEOUT,
    Answer,
    Compression,
    HttpClient,
    TlsFiles,
    endpoint,
    judge,
    readable,
)

SECTION = "forward.elasticsearch"
BULK_EVENTS = 1000  # documents of a request; Elastic advises 1,000 to 5,000, and a lost answer repeats all of them
BULK_BYTES = 4 * 1024 * 1024  # bytes; even doubled by quoting they stay below the 10 MiB that small OpenSearch nodes of AWS take
BULK_AGE = 0.5  # seconds an incomplete batch waits for more events; a bulk of a few costs the cluster as much as one of hundreds
BULK_ANSWER_LIMIT = 8 * 1024 * 1024  # bytes; 1,000 refusals with their reasons are below 1 MiB
LONGEST_ID = 512  # bytes that an `_id` may have
FIRST_SECOND, LAST_SECOND = -62_135_596_800.0, 253_402_300_799.0  # of the years 1 to 9999; the date format has no others
ANSWER_FIELDS = "errors,items.*.status,items.*.error.type,items.*.error.reason"  # all that is read of an answer
ALREADY_THERE = (409, "version_conflict_engine_exception")  # a document has this id: the answer to an earlier try was lost
INDEX_NAME = re.compile(r"""[^-_+\\/*?"<>|,#:\s][^\\/*?"<>|,#:\s]*""")  # as in the reference of Elasticsearch's create index API
# Answers to one document that are about the cluster or its rules, not about the document.
MISCONFIGURED_ITEMS = frozenset({"index_not_found_exception", "index_closed_exception", "invalid_index_name_exception"})


@dataclass(frozen=True, slots=True)
class ElasticsearchSettings:
    """Where and how to deliver.

    `url` is the cluster's address, with a path where a proxy adds one. `target` and `session_target` are data streams or indices,
    for audit events and for events of recordings. `document` is `message` (`@timestamp` and the event as text in `message`, what
    Elastic's Teleport integration reads) or `plain` (the event's own fields and `@timestamp`). At most one of `api_key` (encoded, as
    Kibana shows it), `username` with `password`, and `bearer` is set. TLS files as everywhere, "" = none.
    `timeout` limits a request and `keepalive` an idle connection, both in seconds.
    """

    url: str
    target: str = "logs-teleport.audit-default"
    session_target: str = "logs-teleport.session-default"
    document: Literal["message", "plain"] = "message"
    api_key: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    compression: Compression = "gzip"
    max_connections: int = 4
    timeout: float = REQUEST_TIMEOUT
    keepalive: float = KEEPALIVE


class ElasticsearchSink:
    """The `elasticsearch` sink. Raises SinkError when the settings contradict one another or the TLS files cannot be used."""

    name = "elasticsearch"

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self._settings = settings
        self.limits = Limits(BULK_EVENTS, BULK_BYTES, settings.max_connections, BULK_AGE)
        files = TlsFiles(settings.ca, settings.cert, settings.key)
        base = endpoint(settings.url, f"{SECTION}.url", files)
        self._url = _bulk_url(base, settings.target, "target")
        self._session_url = _bulk_url(base, settings.session_target, "session-target")
        self._client = HttpClient(
            SECTION,
            files,
            connections=settings.max_connections,
            headers={"Content-Type": "application/x-ndjson", "Accept": "application/json", **_authorization(settings)},
            timeout=settings.timeout,
            keepalive=settings.keepalive,
            answer_limit=BULK_ANSWER_LIMIT,
            compression=settings.compression,
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        body = await asyncio.to_thread(self._encode, events)
        answer = await self._client.post(self._session_url if events[0].session_id else self._url, body)
        if isinstance(answer, Retry):
            return answer
        said = judge(answer)
        return judge_items(answer, len(events)) if isinstance(said, Delivered) else said

    def _encode(self, events: Sequence[Event]) -> bytes:
        lines = bytearray()
        for event in events:
            lines += b'{"create":{"_id":%b}}\n%b\n' % (orjson.dumps(document_id(event)), self._document(event))
        return bytes(lines)

    def _document(self, event: Event) -> bytes:
        fields = b'"@timestamp":"%b"' % _stamp(event.time)
        if event.session_id:
            fields += b',"teleport_session_id":%b' % orjson.dumps(event.session_id)
        if self._settings.document == "message":
            return b'{%b,"message":%b}' % (fields, orjson.dumps(event.body.decode()))
        return with_fields(event.body, fields)

    async def reopen(self) -> None:
        self._client.look_again()

    async def close(self) -> None:
        await self._client.close()


def _stamp(seconds: float) -> bytes:
    """`2026-11-24T10:45:14.123456Z`. A time outside the years that have such a form becomes the nearest that has one."""
    moment = datetime.fromtimestamp(min(max(seconds, FIRST_SECOND), LAST_SECOND), UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z").encode()


def document_id(event: Event) -> str:
    """The same for every try of an event; events of recordings are told apart by their place, for some have equal content."""
    name = f"{event.session_id}/{event.index}/{event.id}" if event.session_id else event.id
    return name if len(name.encode()) <= LONGEST_ID else hashlib.sha256(name.encode()).hexdigest()


def judge_items(answer: Answer, count: int) -> Verdict:
    """Turn the answer to a bulk of `count` documents into a verdict; an answer that does not name each of them proves nothing."""
    items = _items(answer)
    if items is None or len(items) != count:
        cut = "" if answer.complete else ", and it was cut off"
        reason = f"the answer names {'no' if items is None else len(items)} documents of {count}{cut}: {readable(answer.body)}"
        return Retry(f"{reason}; check {SECTION}.url", MISCONFIGURED_WAIT, misconfigured=answer.complete)
    retry: dict[int, str] = {}
    rejected: dict[int, str] = {}
    misconfigured = ""
    for place, (status, kind, reason) in enumerate(items):
        said = f"the receiver answered {status} {kind} for a document: {reason}"
        if 200 <= status < 300 or (status, kind) == ALREADY_THERE:
            continue
        if status in (401, 403) or kind in MISCONFIGURED_ITEMS:
            retry[place] = misconfigured = f"{said}; check {SECTION} and the rights of its user"
        elif status in (408, 409, 429) or status >= 500:
            retry[place] = said
        else:
            rejected[place] = said
    if not retry and not rejected:
        return Delivered()
    why = misconfigured or next(iter(retry.values()), "")
    return Partial(frozenset(retry), rejected, why, MISCONFIGURED_WAIT if misconfigured else 0.0, bool(misconfigured))


def _items(answer: Answer) -> list[tuple[int, str, str]] | None:
    """Status, error type and reason of each document, or None when this is no answer of a bulk API."""
    try:
        found = [next(iter(item.values())) for item in orjson.loads(answer.body)["items"]]
        return [(int(item["status"]), *_error(item.get("error", {}))) for item in found]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def _error(error: dict[str, str]) -> tuple[str, str]:
    # Elasticsearch shows a piece of the document after this word; a log line must not.
    reason = str(error.get("reason", "")).partition(" Preview of field's value")[0]
    return str(error.get("type", "")), readable(reason.encode())[:REASON_LENGTH]


def _bulk_url(base: URL, target: str, option: str) -> URL:
    if not INDEX_NAME.fullmatch(target) or target in (".", ".."):
        raise SinkError(f"{SECTION}.{option} {target!r} is no name of an index or data stream", "Leave it out for the default.")
    path = f"{base.raw_path.rstrip('/')}/{quote(target, safe='')}/_bulk"
    return base.with_path(path, encoded=True, keep_query=True).update_query(filter_path=ANSWER_FIELDS)


def _authorization(settings: ElasticsearchSettings) -> dict[str, str]:
    ways = {
        f"{SECTION}.api-key": f"ApiKey {settings.api_key}" if settings.api_key else "",
        f"{SECTION}.username": _basic(settings.username, settings.password) if settings.username or settings.password else "",
        f"{SECTION}.bearer": f"Bearer {settings.bearer}" if settings.bearer else "",
    }
    chosen = {option: header for option, header in ways.items() if header}
    if len(chosen) > 1:
        raise SinkError(f"{' and '.join(chosen)} are set together", "Set one of them.")
    for option, header in chosen.items():
        if not header.isascii() or not header.isprintable():
            raise SinkError(f"{option} has a character that no HTTP header may hold", "Is there a line break at its end?")
        return {"Authorization": header}
    return {}


def _basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
