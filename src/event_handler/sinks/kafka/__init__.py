"""Delivers to Kafka with an idempotent producer of librdkafka: an event counts when all replicas in sync have it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import monotonic

import structlog

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Limits, Retry, Verdict
from event_handler.sinks.fields import session_field, with_fields
from event_handler.sinks.http import MISCONFIGURED_WAIT
from event_handler.sinks.http_tls import TLS_CHECK_EVERY, file_stamp
from event_handler.sinks.kafka.messages import headers_of, key_of
from event_handler.sinks.kafka.options import KafkaOptions, SignIn, producer_properties
from event_handler.sinks.kafka.producer import Producer, kafka_library
from event_handler.sinks.kafka.reports import Batch
from event_handler.sinks.registry import SinkType
from event_handler.thread import WorkerThread

KAFKA_EVENTS = 1000  # of a batch; librdkafka puts the messages of several batches together
KAFKA_BYTES = 4 * 1024 * 1024  # of a batch, so that eight of them are far from librdkafka's queue of 1 GiB
KAFKA_AGE = 0.1  # seconds an incomplete batch waits for more events
KAFKA_AROUND = 4096  # bytes that key, headers and the name of a session may add to an event
SHORTEST_POLL, LONGEST_POLL = 0.002, 0.05  # seconds between looks at the reports
GOODBYE_KAFKA = 2.0  # seconds that producers may take to close their connections
KAFKA_LATE = 5.0  # seconds that a report may come after the time-out of its message

log = structlog.get_logger()


class KafkaSink:
    """A `kafka` sink. Raises SinkError when the options cannot be used, or the client is not installed."""

    def __init__(self, options: KafkaOptions, name: str, section: str) -> None:
        self.name = name
        self.limits = Limits(
            KAFKA_EVENTS,
            KAFKA_BYTES,
            options.max_connections,
            KAFKA_AGE,
            ordered=options.ordered,
            timeout=options.timeout + 2 * KAFKA_LATE,
            event_bytes=options.message_max_bytes - KAFKA_AROUND,
        )
        self._library = kafka_library()
        self._options = options
        self._section = section
        self._sign_in = SignIn(options, section)
        self._files = [Path(file) for file in (options.ca, options.cert, options.key) if file]
        self._stamps = self._stamped()
        self._look_at = 0.0
        self._worker = WorkerThread(f"kafka {name}")
        self._ending: set[asyncio.Task[None]] = set()
        self._producer = self._made()

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        try:
            producer = self._usable()
        except SinkError as error:
            return Retry(str(error), MISCONFIGURED_WAIT, misconfigured=True)
        producer.users += 1
        batch = Batch(len(events), self._section)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.timeout + KAFKA_LATE
        try:
            await self._produce(producer, batch, events, deadline - KAFKA_LATE)
            pause = SHORTEST_POLL
            while not (batch.settled.done() or producer.ended) and loop.time() < deadline:
                producer.poll()
                await asyncio.wait([batch.settled], timeout=pause)
                pause = min(pause * 1.2, LONGEST_POLL)
        finally:
            producer.users -= 1
            if producer is not self._producer and not producer.users:
                self._end(producer)
        if batch.took_any:
            producer.works()
        return batch.verdict(producer.trouble)

    async def _produce(self, producer: Producer, batch: Batch, events: Sequence[Event], deadline: float) -> None:
        """Hand the events over; where librdkafka's queue is full, as others leave it."""
        topic, wrapped = self._options.topic, b""
        if session := events[0].session_id:
            topic = self._options.session_topic or topic
            wrapped = session_field(session)
        for place, event in enumerate(events):
            value = with_fields(event.body, wrapped) if wrapped else event.body
            while not self._taken(producer, batch, place, topic, value, event):
                if producer.ended or asyncio.get_running_loop().time() > deadline:
                    batch.leave_out(place)
                    return
                producer.poll()
                await asyncio.sleep(LONGEST_POLL)

    def _taken(self, producer: Producer, batch: Batch, place: int, topic: str, value: bytes, event: Event) -> bool:
        """Whether a message is settled or on its way, False where there is no room for it yet."""
        try:
            producer.produce(
                topic,
                value,
                key_of(event, self._options.message_key),
                on_delivery=partial(batch.report, place),
                timestamp=round(event.time * 1000),
                headers=headers_of(event),
            )
        except BufferError:
            return False
        except self._library.KafkaException as raised:
            error = raised.args[0]
            if error.name() == "MSG_SIZE_TOO_LARGE":
                size = len(value)
                batch.too_large(place, f"the event has {size:,} bytes, more than {self._section}.message-max-bytes")
            else:
                batch.report(place, error)
                if error.fatal() or error.name() == "_FATAL":
                    producer.fatal()
        return True

    def _usable(self) -> Producer:
        """The producer, or a new one where that has failed for good, or a secret or a TLS file has changed.

        Raises SinkError when there is none and none can be made.
        """
        if self._producer.is_usable and not self._changed():
            return self._producer
        try:
            made = self._made()
        except SinkError as error:  # perhaps only one of two files is written yet; the next change is looked at again
            if not self._producer.is_usable:
                raise
            log.warning("TLS files have changed but cannot be used, going on with the old ones", error=str(error))
            return self._producer
        before, self._producer = self._producer, made
        if not before.users:
            self._end(before)
        return self._producer

    def _changed(self) -> bool:
        if monotonic() < self._look_at:
            return False
        self._look_at = monotonic() + TLS_CHECK_EVERY
        stamps, secret = self._stamped(), self._sign_in.changed()
        changed = secret or stamps != self._stamps
        self._stamps = stamps
        return changed

    def _stamped(self) -> list[tuple[int, int, int] | None]:
        return [file_stamp(file) for file in self._files]

    def _made(self) -> Producer:
        properties = producer_properties(self._options, self._sign_in, self._section)
        token = self._sign_in.token if self._options.token_file else None
        return Producer(properties, token, self.name, self._section)

    def _end(self, producer: Producer) -> None:
        producer.leave()
        ending = asyncio.get_running_loop().create_task(self._worker.run(producer.end))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def reopen(self) -> None:
        self._look_at = 0.0

    async def close(self) -> None:
        self._end(self._producer)
        await asyncio.wait(self._ending, timeout=GOODBYE_KAFKA)
        self._worker.stop()


SINK = SinkType("Apache Kafka, and what speaks its protocol", KafkaOptions, KafkaSink)
