"""Publishes to a topic of Google Cloud Pub/Sub, or of its emulator.

Facts: Pub/Sub's REST reference of topics.publish, "Quotas and limits", "Order messages".
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated

import orjson

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.access_token import AccessTokens
from event_handler.sinks.answers import readable
from event_handler.sinks.fields import SESSION_FIELD, with_session
from event_handler.sinks.google_answers import judge_google
from event_handler.sinks.google_identity import GoogleOptions, google_source
from event_handler.sinks.http import KEEPALIVE, MISCONFIGURED_WAIT, Answer
from event_handler.sinks.http_options import Gzip
from event_handler.sinks.moments import rfc3339
from event_handler.sinks.registry import SinkType

PUBLISH_EVENTS = 1000  # messages of a request at most
PUBLISH_BYTES = 6_000_000  # of the events of a request, which may have 10 MB: base64 makes a third more, and attributes
PUBLISH_AGE = 0.1  # seconds an incomplete batch waits for more events
ATTRIBUTE_BYTES = 1024  # of the value of an attribute at most
IDS_LIMIT = 256 * 1024  # bytes of an answer; it has an id of some twenty digits for each message
PUBSUB = "https://pubsub.googleapis.com"
PUBSUB_SCOPE = "https://www.googleapis.com/auth/pubsub"
PROJECT_ID = re.compile(r"[a-z](?:[a-z0-9.:-]*[a-z0-9])?")
TOPIC_ID = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")


class GcpPubsubOptions(GoogleOptions):
    """Which topic, and how the messages are."""

    project_id: Annotated[str, Setting("text", "project of the topic", required=True)] = ""
    topic: Annotated[str, Setting("text", "id of the topic, without projects/…/topics/", required=True)] = ""
    ordering: Annotated[
        bool, Setting("flag", "give recorded events their session as ordering key, and publish in order")
    ] = False
    attributes: Annotated[bool, Setting("flag", "name type, id, time and session beside the event")] = True
    emulator: Annotated[bool, Setting("flag", "url is an emulator, which wants nobody to sign in")] = False
    url: Annotated[str, Setting("url", "address of Pub/Sub, of a region of it, or of an emulator", unset=PUBSUB)] = ""
    compression: Gzip = "none"


class GcpPubsubSink:
    """A `gcp-pubsub` sink. Raises SinkError when an option cannot be used. `tokens` stands in for Google's."""

    def __init__(
        self,
        options: GcpPubsubOptions,
        name: str,
        section: str,
        *,
        keepalive: float = KEEPALIVE,
        tokens: AccessTokens | None = None,
    ) -> None:
        self.name = name
        self.limits = Limits(
            PUBLISH_EVENTS,
            PUBLISH_BYTES,
            options.max_connections,
            PUBLISH_AGE,
            ordered=options.ordering,
            event_bytes=PUBLISH_BYTES,
        )
        for option, value, form in (
            ("project-id", options.project_id, PROJECT_ID),
            ("topic", options.topic, TOPIC_ID),
        ):
            if not form.fullmatch(value):
                raise SinkError(f"{section}.{option} is none", "Run gcloud pubsub topics list to see what there is.")
        if options.emulator and not options.url:
            raise SinkError(f"{section}.emulator is set without {section}.url", "Set the address of the emulator.")
        base = options.address(options.url or PUBSUB, f"{section}.url")
        path = f"{base.path.rstrip('/')}/v1/projects/{options.project_id}/topics/{options.topic}:publish"
        self._url = base.with_path(path)
        self._ordering = options.ordering
        self._attributes = options.attributes
        self._section = section
        self._check = {
            401: f"{section}.credentials-file",
            403: f"that the service account has the role roles/pubsub.publisher on the topic, and {section}.project-id",
            404: f"{section}.project-id and {section}.topic",
        }
        self._tokens = (
            None
            if options.emulator
            else tokens or AccessTokens(google_source(options, section, PUBSUB_SCOPE, os.environ))
        )
        self._client = options.client(
            section, {"Content-Type": "application/json"}, keepalive=keepalive, answer_limit=IDS_LIMIT
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        content = b'{"messages":[%b]}' % b",".join(map(self._message, events))
        if self._tokens is None:
            answer = await self._client.post(self._url, content)
        else:
            answer = await self._tokens.signed_in(self._client, lambda: self._client.post(self._url, content))
        return answer if isinstance(answer, Retry) else self._judge(answer, len(events))

    def _judge(self, answer: Answer, count: int) -> Verdict:
        """All messages are published, or none: the answer that they are has an id for each."""
        if not 200 <= answer.status < 300 or ids(answer.body) == count:
            return judge_google(answer, self._check)
        if not answer.complete:
            return Retry(f"the receiver answered {answer.status}, but its answer was cut off", unanswered=True)
        reason = f"the receiver answered {answer.status} without an id for each message ({readable(answer.body)})"
        return Retry(f"{reason}; check {self._section}.url", MISCONFIGURED_WAIT, misconfigured=True)

    def _message(self, event: Event) -> bytes:
        session = event.session_id
        more = b""
        if self._attributes:
            named = {"event": event.type, "uid": event.id, "time": rfc3339(event.time).decode(), SESSION_FIELD: session}
            more = b',"attributes":%b' % orjson.dumps({k: v for k, v in named.items() if v and _fits(v)})
        if self._ordering and session:
            more += b',"orderingKey":%b' % orjson.dumps(session)
        return b'{"data":"%b"%b}' % (b64encode(with_session(event)), more)

    async def reopen(self) -> None:
        self._client.reload()
        if self._tokens is not None:
            self._tokens.reload()

    async def close(self) -> None:
        await self._client.close()
        if self._tokens is not None:
            await self._tokens.close()


def ids(body: bytes) -> int:
    """How many ids of messages an answer has."""
    try:
        found = orjson.loads(body)["messageIds"]
    except (ValueError, KeyError, TypeError):
        return 0
    return len(found) if isinstance(found, list) else 0


def _fits(value: str) -> bool:
    return len(value) * 4 <= ATTRIBUTE_BYTES or len(value.encode()) <= ATTRIBUTE_BYTES


SINK = SinkType("Google Cloud Pub/Sub, a topic", GcpPubsubOptions, GcpPubsubSink)
