"""Delivers to Grafana Loki: few labels, the event as the line, and its ids as structured metadata.

Facts: Grafana's "Loki HTTP API" (POST /loki/api/v1/push), "Structured metadata", and Loki's validation errors
(pkg/validation), which are part of the answer's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from pydantic import Field

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Denied, Limits, Reject, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge, readable
from event_handler.sinks.fields import with_session
from event_handler.sinks.http import KEEPALIVE, Answer
from event_handler.sinks.http_login import LoginClient, LoginOptions
from event_handler.sinks.http_options import Gzip
from event_handler.sinks.registry import SinkType

PUSH_EVENTS = 1000  # of a request
PUSH_BYTES = 1024 * 1024  # of a request; Loki takes 4 MiB of gRPC messages between its parts by default
PUSH_AGE = 0.5  # seconds an incomplete batch waits for more events
LINE_BYTES = 250_000  # of an event; Loki's `max_line_size` is 256 KiB, and it cuts or refuses what is longer
PUSH_PATH = "/loki/api/v1/push"
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
UNBOUNDED = frozenset({"uid", "user", "sid", "login", "time", "message", "session_id", "addr_remote"})
NOT_YET = ("rate limit", "too many outstanding", "per-stream rate", "stream limit", "ingestion rate")
STRUCTURED_HINT = "set structured-metadata = false, or allow it in Loki (limits_config.allow_structured_metadata)"


class LokiOptions(LoginOptions):
    """Where to deliver, under which labels, and how to sign in."""

    url: Annotated[str, Setting("url", f"address of Loki; {PUSH_PATH} is added to it", required=True)] = ""
    tenant: Annotated[str, Setting("text", "tenant (X-Scope-OrgID)", unset="none")] = ""
    labels: Annotated[dict[str, str], Setting("table", 'labels of all streams, as { env = "production" }')] = Field(
        default_factory=dict
    )
    job: Annotated[str, Setting("text", "label job of audit events")] = "teleport"
    session_job: Annotated[str, Setting("text", "label job of recorded events")] = "teleport-session"
    label_event: Annotated[bool, Setting("flag", "a label with the type of the event; there are about 300")] = True
    structured_metadata: Annotated[
        bool, Setting("flag", "id, code, user and session of an event as structured metadata (Loki 3)")
    ] = True
    compression: Gzip = "gzip"


class LokiSink:
    """A `loki` sink. Raises SinkError when the labels, the login or the TLS files cannot be used."""

    def __init__(self, options: LokiOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        self.name = name
        self.limits = Limits(PUSH_EVENTS, PUSH_BYTES, options.max_connections, PUSH_AGE, event_bytes=LINE_BYTES)
        self._options = options
        self._section = section
        for label in options.labels:
            if not LABEL_NAME.fullmatch(label):
                raise SinkError(f"{section}.labels has {label!r}, which no label can be named", "Correct it.")
            if label in UNBOUNDED:
                raise SinkError(
                    f"{section}.labels has {label}, which has too many values for a label",
                    "It is in each line, and in the structured metadata.",
                )
        base = options.address(options.url, f"{section}.url")
        self._url = base if base.raw_path.strip("/") else base.with_path(PUSH_PATH)
        tenant = {"X-Scope-OrgID": options.tenant} if options.tenant else {}
        headers = {"Content-Type": "application/json", **tenant}
        self._client = LoginClient(options, section, headers, keepalive=keepalive, status_only=True)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        answer = await self._client.post(self._url, self._body(events))
        return answer if isinstance(answer, Retry) else judge_loki(answer, self._section)

    def _body(self, events: Sequence[Event]) -> bytes:
        """A stream for each set of labels, its lines in the order of their times."""
        streams: dict[tuple[str, str], list[bytes]] = {}
        for event in sorted(events, key=lambda one: one.time):
            content: dict[str, Any] = orjson.loads(event.body)
            cluster = content.get("cluster_name")
            key = (event.type if self._options.label_event else "", cluster if isinstance(cluster, str) else "")
            streams.setdefault(key, []).append(self._line(event, content))
        session = bool(events[0].session_id)
        parts = [
            b'{"stream":%b,"values":[%b]}' % (self._labels(*key, session=session), b",".join(lines))
            for key, lines in streams.items()
        ]
        return b'{"streams":[%b]}' % b",".join(parts)

    def _labels(self, kind: str, cluster: str, *, session: bool) -> bytes:
        named = {"job": self._options.session_job if session else self._options.job, "event": kind, "cluster": cluster}
        return orjson.dumps({**self._options.labels, **{name: value for name, value in named.items() if value}})

    def _line(self, event: Event, content: dict[str, Any]) -> bytes:
        """`[time, line, metadata]`; the time is text in nanoseconds."""
        line = with_session(event).decode("utf-8", "replace")
        value: list[Any] = [f"{max(0, round(event.time * 1e6)) * 1000}", line]
        if self._options.structured_metadata:
            known = {"uid": event.id, "session_id": event.session_id or content.get("sid")}
            known |= {name: content.get(name) for name in ("code", "user")}
            value.append({name: text for name, text in known.items() if isinstance(text, str) and text})
        return orjson.dumps(value)

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


def judge_loki(answer: Answer, section: str) -> Verdict:
    """A 400 may be about one line, about a limit that passes, or about the tenant: Loki's text tells which."""
    if answer.status not in (400, 401, 429):
        return judge(answer)
    text = readable(answer.body)
    reason = f"the receiver answered {answer.status} {text}".strip()
    said = text.lower()
    if "no org id" in said or answer.status == 401:
        return Denied(f"{reason}; check {section}.tenant and how to sign in")
    if "structured metadata" in said and "disallowed" in said:
        return Denied(f"{reason}; {STRUCTURED_HINT}")
    if any(words in said for words in NOT_YET):
        return Retry(reason, after=1.0)
    return judge(answer) if answer.status == 429 else Reject(reason)


SINK = SinkType("Grafana Loki, and Grafana Cloud Logs", LokiOptions, LokiSink)
