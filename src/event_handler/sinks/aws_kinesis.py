"""Delivers to a data stream of Amazon Kinesis, a record for each event, as far as the stream has taken each record.

Facts: "PutRecords" in the Kinesis Data Streams API reference.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated

import orjson

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Limits, Verdict
from event_handler.setting import Setting
from event_handler.sinks.aws_json import AwsJson, AwsJsonOptions, of_records
from event_handler.sinks.fields import with_session
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.registry import SinkType

KINESIS_EVENTS = 500  # records of a request, at most
LONGEST_KEY = 256  # characters of a partition key, at most
AROUND_RECORD = 4 * LONGEST_KEY + 120  # bytes beside the event: the key in UTF-8, and the field with the session
KINESIS_RECORD = 1024 * 1024 - AROUND_RECORD  # bytes; a record with its key has 1 MiB at most, before base64
KINESIS_BYTES = 3_600_000  # of the events of a request, which may have 5 MiB: base64 makes a third more
KINESIS_AGE = 0.5  # seconds an incomplete batch waits for more events


class AwsKinesisOptions(AwsJsonOptions):
    """Which stream."""

    stream: Annotated[str, Setting("text", "name of the data stream, or its ARN", required=True)] = ""


class AwsKinesisSink:
    """An `aws-kinesis` sink. Raises SinkError when the options cannot be used."""

    def __init__(self, options: AwsKinesisOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        if not options.stream:
            raise SinkError(f"{section}.stream is missing", "Set it to the name of the data stream.")
        self.name = name
        self.limits = Limits(
            KINESIS_EVENTS, KINESIS_BYTES, options.max_connections, KINESIS_AGE, event_bytes=KINESIS_RECORD
        )
        self._service = AwsJson(options, section, "kinesis", "Kinesis_20131202", resource="stream", keepalive=keepalive)
        key = b"StreamARN" if options.stream.startswith("arn:") else b"StreamName"
        self._before = b'{"%b":%b,"Records":[' % (key, orjson.dumps(options.stream))

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        body = self._before + b",".join(map(_record, events)) + b"]}"
        said = await self._service.call("PutRecords", body)
        return said.verdict or of_records(self._service, said, len(events), "Records", "SequenceNumber")

    async def reopen(self) -> None:
        self._service.reload()

    async def close(self) -> None:
        await self._service.close()


def _record(event: Event) -> bytes:
    """Events of a session share a key, and so a shard; all others are spread."""
    key = (event.session_id or event.id)[:LONGEST_KEY]
    return b'{"Data":"%b","PartitionKey":%b}' % (b64encode(with_session(event)), orjson.dumps(key))


SINK = SinkType("Amazon Kinesis Data Streams", AwsKinesisOptions, AwsKinesisSink)
