"""Delivers to a stream of Amazon Data Firehose, a line of JSON for each event, as far as it has taken each of them.

Facts: "PutRecordBatch" in the Amazon Data Firehose API reference.
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

FIREHOSE_EVENTS = 500  # records of a request, at most
# Bytes of one event: a record has 1,000 KiB at most before base64, and the session and a line end stand in it too.
FIREHOSE_RECORD = 1000 * 1024 - 128
FIREHOSE_BYTES = 2_900_000  # of the events of a request, which may have 4 MiB: base64 makes a third more
FIREHOSE_AGE = 0.5  # seconds an incomplete batch waits for more events


class AwsFirehoseOptions(AwsJsonOptions):
    """Which stream."""

    stream: Annotated[str, Setting("text", "name of the Firehose stream", required=True)] = ""


class AwsFirehoseSink:
    """An `aws-firehose` sink. Raises SinkError when the options cannot be used."""

    def __init__(self, options: AwsFirehoseOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        if not options.stream:
            raise SinkError(f"{section}.stream is missing", "Set it to the name of the Firehose stream.")
        self.name = name
        self.limits = Limits(
            FIREHOSE_EVENTS, FIREHOSE_BYTES, options.max_connections, FIREHOSE_AGE, event_bytes=FIREHOSE_RECORD
        )
        self._service = AwsJson(
            options, section, "firehose", "Firehose_20150804", resource="stream", keepalive=keepalive
        )
        self._before = b'{"DeliveryStreamName":%b,"Records":[' % orjson.dumps(options.stream)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        records = b",".join(b'{"Data":"%b"}' % b64encode(with_session(event) + b"\n") for event in events)
        said = await self._service.call("PutRecordBatch", self._before + records + b"]}")
        return said.verdict or of_records(self._service, said, len(events), "RequestResponses", "RecordId")

    async def reopen(self) -> None:
        self._service.reload()

    async def close(self) -> None:
        await self._service.close()


SINK = SinkType("Amazon Data Firehose", AwsFirehoseOptions, AwsFirehoseSink)
