"""Delivers to a queue of Amazon SQS, a message for each event, to a FIFO queue in order and without repeats.

Facts: "SendMessageBatch" in the Amazon SQS API reference.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any

import orjson

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Partial, Reject, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import readable
from event_handler.sinks.aws_json import ABOUT, NOT_PASSING, About, AwsJson, AwsJsonOptions, Said
from event_handler.sinks.fields import with_session
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.registry import SinkType

SQS_EVENTS = 10  # messages of a request, at most
# Bytes of the events of a request: 256 KiB is what every queue takes, of one message and of all in a request together.
SQS_BYTES = 256 * 1024 - 1024
SQS_AGE = 0.1  # seconds an incomplete batch waits for more events
NO_CHARACTERS = (b"\xef\xbf\xbe", b"\\ufffe"), (b"\xef\xbf\xbf", b"\\uffff")  # not taken in a message
FIFO_NAME = re.compile(r"[!-~]{1,128}")  # what a group or a deduplication id may be


class AwsSqsOptions(AwsJsonOptions):
    """Which queue, and which group its messages are of."""

    queue_url: Annotated[
        str, Setting("url", "URL of the queue, as https://sqs.REGION.amazonaws.com/ACCOUNT/NAME", required=True)
    ] = ""
    group: Annotated[
        str,
        Setting("text", "message group in a FIFO queue", unset="`audit`, and of recorded events their session"),
    ] = ""


class AwsSqsSink:
    """An `aws-sqs` sink. Raises SinkError when the options cannot be used."""

    def __init__(self, options: AwsSqsOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        options.address(options.queue_url, f"{section}.queue-url")
        self.name = name
        self._group = options.group
        self._fifo = options.queue_url.endswith(".fifo")
        if options.group and not (self._fifo and FIFO_NAME.fullmatch(options.group)):
            raise SinkError(
                f"{section}.group is for FIFO queues only, and has 1 to 128 characters without blanks", "Correct it."
            )
        self.limits = Limits(
            SQS_EVENTS, SQS_BYTES, options.max_connections, SQS_AGE, ordered=self._fifo, event_bytes=SQS_BYTES
        )
        self._service = AwsJson(
            options, section, "sqs", "AmazonSQS", resource="queue-url", version="1.0", keepalive=keepalive
        )
        self._before = b'{"QueueUrl":%b,"Entries":[' % orjson.dumps(options.queue_url)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        entries = b",".join(self._entry(place, event) for place, event in enumerate(events))
        said = await self._service.call("SendMessageBatch", self._before + entries + b"]}")
        return said.verdict or self._judge(said, len(events))

    def _entry(self, place: int, event: Event) -> bytes:
        body = with_session(event)
        for raw, escaped in NO_CHARACTERS:
            body = body.replace(raw, escaped)
        fifo = b""
        if self._fifo:
            group = self._group or event.session_id or "audit"
            fifo = b',"MessageGroupId":%b,"MessageDeduplicationId":"%b"' % (orjson.dumps(group), _once(event))
        return b'{"Id":"%d","MessageBody":%b%b}' % (place, orjson.dumps(body.decode()), fifo)

    def _judge(self, said: Said, count: int) -> Verdict:
        """A message is delivered when it is among the successful ones and among no others."""
        taken, failed = (_by_place((said.content or {}).get(name)) for name in ("Successful", "Failed"))
        retry: dict[int, Retry] = {}
        rejected: dict[int, str] = {}
        for place in range(count):
            if place in failed:
                verdict = self._of_message(failed[place])
                if isinstance(verdict, Retry):
                    retry[place] = verdict
                else:
                    rejected[place] = verdict.reason
            elif place not in taken:
                retry[place] = said.proves_nothing(f"names message {place}")
        if not retry and not rejected:
            return Delivered()
        why = max(retry.values(), key=lambda one: one.misconfigured, default=Retry(""))
        if len(retry) == count:
            return why
        return Partial(frozenset(retry), rejected, why.reason, why.after, why.misconfigured)

    def _of_message(self, failed: dict[str, Any]) -> Retry | Reject:
        code = str(failed.get("Code", "")).rpartition(".")[2]
        reason = f"the queue did not take a message: {code} {readable(str(failed.get('Message', '')).encode())}"
        about = ABOUT.get(code)
        if about in NOT_PASSING:
            return self._service.refused(code, reason)
        return Reject(reason) if failed.get("SenderFault") is True and about is not About.MOMENT else Retry(reason)

    async def reopen(self) -> None:
        self._service.reload()

    async def close(self) -> None:
        await self._service.close()


def _by_place(entries: object) -> dict[int, dict[str, Any]]:
    found = entries if isinstance(entries, list) else []
    return {int(one["Id"]): one for one in found if isinstance(one, dict) and str(one.get("Id", "")).isdecimal()}


def _once(event: Event) -> bytes:
    """The id by which a FIFO queue drops what comes again within five minutes.

    Events of recordings are told apart by their place, for some have equal content.
    """
    name = f"{event.session_id}/{event.index}/{event.id}" if event.session_id else event.id
    if FIFO_NAME.fullmatch(name) and not {'"', "\\"} & set(name):
        return name.encode()
    return hashlib.sha256(name.encode()).hexdigest().encode()


SINK = SinkType("Amazon SQS, standard and FIFO queues", AwsSqsOptions, AwsSqsSink)
