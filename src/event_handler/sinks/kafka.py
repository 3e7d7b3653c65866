"""Delivers to Apache Kafka, by an idempotent producer that waits for all replicas; an event counts as delivered when
its report says so.

Facts: librdkafka's CONFIGURATION.md and INTRODUCTION.md (idempotent producer, message reports).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Annotated, Any, Literal

import orjson
import structlog
from pydantic import Field

from event_handler import redact
from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Partial, Retry, Verdict
from event_handler.setting import Options, Setting
from event_handler.sinks.fields import session_field, with_fields
from event_handler.sinks.http_faults import MISCONFIGURED_WAIT
from event_handler.sinks.registry import SinkType
from event_handler.sinks.secret import Secret

KAFKA_EVENTS = 1000  # of a batch; librdkafka makes message sets of them as its brokers want them
KAFKA_BYTES = 4 * 1024 * 1024  # of a batch
KAFKA_AGE = 0.2  # seconds an incomplete batch waits for more events
KAFKA_BATCHES = 4  # on their way at a time; librdkafka keeps up to five requests to a broker in flight anyway
ENVELOPE = 2_000  # bytes of a message beside the event: key, headers, and what Kafka adds
REPORTS_POLL = 0.1  # seconds that the thread waits for reports at a time
FLUSH_AT_END = 1.0  # seconds for what is still on its way when the sink is closed
NOT_OVERRIDDEN = {  # what delivery rests on; `properties` may not say otherwise
    "enable.idempotence": True,
    "acks": "all",
    "bootstrap.servers": "",
    "message.timeout.ms": 0,
    "delivery.timeout.ms": 0,
    "delivery.report.only.error": False,
}

Mechanism = Literal["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

log = structlog.get_logger()


class KafkaOptions(Options):
    """Which brokers, which topics, how messages are made, and how to sign in."""

    brokers: Annotated[tuple[str, ...], Setting("list", "brokers to begin with, as kafka:9093", required=True)] = ()
    topic: Annotated[str, Setting("text", "topic of audit events")] = "teleport.audit"
    session_topic: Annotated[str, Setting("text", "topic of recorded events", unset="the same topic")] = ""
    partition_by: Annotated[
        Literal["session", "user", "uid", "none"],
        Setting("choice", "key of a message: the session, or else the user; the user; the event's id; or none"),
    ] = "session"
    security: Annotated[
        Literal["tls", "plaintext"], Setting("choice", "how to talk to the brokers; plaintext hides nothing")
    ] = "tls"
    ca: Annotated[str, Setting("file", "TLS CA of the brokers", unset="those of the system")] = ""
    cert: Annotated[str, Setting("file", "TLS client certificate for the brokers")] = ""
    key: Annotated[str, Setting("file", "TLS client key for the brokers")] = ""
    sasl: Annotated[Mechanism, Setting("choice", "SASL mechanism to sign in with")] = "none"
    username: Annotated[str, Setting("text", "user name for PLAIN and SCRAM")] = ""
    password: Annotated[
        str, Setting("text", "its password; better in password-file or the variable", secret=True), Field(repr=False)
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""
    oauth_token_url: Annotated[str, Setting("url", "where OAUTHBEARER gets its tokens, by client credentials")] = ""
    oauth_client_id: Annotated[str, Setting("text", "client id for OAUTHBEARER")] = ""
    oauth_client_secret: Annotated[
        str, Setting("text", "its secret; better in the file or the variable", secret=True), Field(repr=False)
    ] = ""
    oauth_client_secret_file: Annotated[str, Setting("file", "file with that secret")] = ""
    oauth_scope: Annotated[str, Setting("text", "scope to ask for")] = ""
    compression: Annotated[
        Literal["none", "gzip", "lz4", "snappy", "zstd"], Setting("choice", "how messages are packed")
    ] = "lz4"
    max_message_bytes: Annotated[
        int,
        Setting("number", "bytes of a message at most, as `max.message.bytes` of the topic"),
        Field(ge=10_000, le=100_000_000),
    ] = 1_000_000
    timeout: Annotated[
        float, Setting("duration", "time after which a message without a report is sent again"), Field(ge=1.0)
    ] = 60.0
    properties: Annotated[
        dict[str, str], Setting("table", "more properties of librdkafka; never shown", secret=True)
    ] = Field(default_factory=dict, repr=False)


class KafkaSink:
    """A `kafka` sink. Raises SinkError when the options cannot be used, or confluent-kafka is not installed."""

    def __init__(self, options: KafkaOptions, name: str, section: str) -> None:
        self.name = name
        self._options = options
        self._section = section
        largest = options.max_message_bytes - ENVELOPE
        self.limits = Limits(KAFKA_EVENTS, KAFKA_BYTES, KAFKA_BATCHES, KAFKA_AGE, event_bytes=largest)
        self._password = _password(options, section)
        self._client_secret = _client_secret(options, section)
        self._errors = _library(section).KafkaError
        self._producer = self._made()

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if self._producer.broken or self._secrets_changed():
            try:
                self._renew()
            except SinkError as error:  # a file that is being written; what there is goes on meanwhile
                if self._producer.broken:
                    return Retry(error.message, MISCONFIGURED_WAIT, misconfigured=True)
        producer = self._producer
        batch = _Batch(len(events))
        for place, event in enumerate(events):
            message = self._message(event)
            try:
                producer.produce(message, batch.report(place))
            except BufferError:
                batch.failed(place, None)  # its queue is full: sent again, which holds up the reading
            except self._library.KafkaException as error:
                batch.failed(place, error.args[0])
        await batch.done()
        return self._judge(batch, producer)

    def _message(self, event: Event) -> dict[str, Any]:
        body, topic = event.body, self._options.topic
        if event.session_id:
            body, topic = with_fields(body, session_field(event.session_id)), self._options.session_topic or topic
        headers = [("event", event.type.encode()), ("uid", event.id.encode())]
        return {
            "topic": topic,
            "value": body,
            "key": self._key(event),
            "headers": headers,
            "timestamp": max(0, round(event.time * 1000)),
        }

    def _key(self, event: Event) -> bytes | None:
        """What Kafka keeps in order: all with one key are in one partition."""
        by = self._options.partition_by
        if by == "none":
            return None
        if by == "uid":
            return event.id.encode()
        if by == "session" and event.session_id:
            return event.session_id.encode()
        content = orjson.loads(event.body)
        found = (by == "session" and content.get("sid")) or content.get("user") or event.id
        return found.encode() if isinstance(found, str) else event.id.encode()

    def _judge(self, batch: _Batch, producer: _Producer) -> Verdict:
        retry, rejected, reason, denied = set(), {}, "", False
        for place, error in batch.errors.items():
            code = error.code() if error is not None else None
            if code in self._too_large():
                rejected[place] = f"the broker refused the message: {error.str()}"
                continue
            retry.add(place)
            if error is None:
                reason = reason or "the producer's queue is full"
                continue
            why, mine = self._explained(error, producer)
            reason, denied = (why, mine) if mine or not reason else (reason, denied)
        if not batch.errors:
            producer.trouble = None
            return Delivered()
        if len(retry) == batch.count:
            unanswered = "timed out" in reason and not denied
            return Retry(reason, MISCONFIGURED_WAIT if denied else 0.0, misconfigured=denied, unanswered=unanswered)
        return Partial(frozenset(retry), rejected, reason, MISCONFIGURED_WAIT if denied else 0.0, denied)

    def _too_large(self) -> tuple[int, ...]:
        errors = self._errors
        return errors.MSG_SIZE_TOO_LARGE, errors.INVALID_RECORD, errors.INVALID_MSG_SIZE

    def _explained(self, error: Any, producer: _Producer) -> tuple[str, bool]:
        """Why a message was not taken, and whether a person has to correct something."""
        errors, code, section = self._errors, error.code(), self._section
        text = f"the broker did not take events: {error.str()}"
        to_check = {
            errors.UNKNOWN_TOPIC_OR_PART: f"make the topic, or check {section}.topic",
            errors._UNKNOWN_TOPIC: f"make the topic, or check {section}.topic",
            errors.TOPIC_AUTHORIZATION_FAILED: f"let the user write to the topic; check {section}.topic",
            errors.CLUSTER_AUTHORIZATION_FAILED: "allow IdempotentWrite on the cluster to the user",
            errors.SASL_AUTHENTICATION_FAILED: f"check {section}.username and {section}.password",
            errors.TOPIC_EXCEPTION: f"check the name in {section}.topic",
        }
        if code in to_check:
            return f"{text}; {to_check[code]}", True
        if code in (errors._MSG_TIMED_OUT, errors._TIMED_OUT) and producer.trouble is not None:
            trouble = producer.trouble
            text = f"no broker took events within {self._options.timeout:g} s: {trouble.str()}"
            if trouble.code() == errors._AUTHENTICATION:
                return f"{text}; check {section}.sasl, {section}.username and {section}.password", True
            if trouble.code() == errors._SSL:
                return f"{text}; check {section}.ca, {section}.cert and {section}.security", True
            return f"{text}; check {section}.brokers", False
        return text, False

    def _secrets_changed(self) -> bool:
        secrets = (self._password, self._client_secret)
        return any(secret.changed() for secret in secrets if secret is not None)

    def _renew(self) -> None:
        """A new producer for what comes; the old one ends when its last report is there."""
        old, self._producer = self._producer, self._made()
        old.retire()

    def _made(self) -> _Producer:
        self._library = _library(self._section)
        password = self._password.value if self._password else ""
        client_secret = self._client_secret.value if self._client_secret else ""
        configuration = configured(self._options, password, client_secret, self._section)
        try:
            return _Producer(self._library, configuration)
        except (self._library.KafkaException, TypeError, ValueError) as error:
            reason = error.args[0].str() if hasattr(error.args[0], "str") else str(error)
            raise SinkError(
                f"[{self._section}] cannot be used: {redact.credentials(reason)}",
                f"Check its files and {self._section}.properties.",
            ) from None

    async def reopen(self) -> None:
        self._renew()

    async def close(self) -> None:
        await asyncio.to_thread(self._producer.close)


class _Batch:
    """Waits for the report of every message. The errors are by the place in the batch."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.errors: dict[int, Any] = {}
        self._left = count
        self._loop = asyncio.get_running_loop()
        self._all = self._loop.create_future()
        self._lock = threading.Lock()

    def report(self, place: int) -> Any:
        """What the producer calls for one message, in its thread."""

        def reported(error: Any, _: Any) -> None:
            self._reported(place, error)

        return reported

    def failed(self, place: int, error: Any) -> None:
        """A message that the producer did not even take."""
        self.errors[place] = error
        self._reported(place, None)

    def _reported(self, place: int, error: Any) -> None:
        with self._lock:
            if error is not None:
                self.errors[place] = error
            self._left -= 1
            last = not self._left
        if last:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._all.done():
            self._all.set_result(None)

    async def done(self) -> None:
        await self._all


class _Producer:
    """A producer and the thread that asks for its reports. `trouble` is the last error that is about no one message."""

    def __init__(self, library: Any, configuration: Mapping[str, Any]) -> None:
        self.trouble: Any = None
        self.broken = False
        self._all_down = library.KafkaError._ALL_BROKERS_DOWN
        self._retired = threading.Event()
        self._made = library.Producer({**configuration, "error_cb": self._error}, logger=_logger())
        self._thread = threading.Thread(target=self._poll, name="kafka reports", daemon=True)
        self._thread.start()

    def produce(self, message: dict[str, Any], reported: Any) -> None:
        """Raises BufferError when the queue is full, KafkaException for what cannot be sent."""
        self._made.produce(**message, on_delivery=reported)

    def _error(self, error: Any) -> None:
        if self.trouble is None or error.code() != self._all_down:  # which follows from another one
            self.trouble = error
        self.broken = self.broken or error.fatal()

    def _poll(self) -> None:
        """Until it is retired and nothing is on its way. What a report raises ends no other report."""
        while not (self._retired.is_set() and not len(self._made)):
            try:
                self._made.poll(REPORTS_POLL)
            except Exception as error:  # a fault of our own code; the producer is replaced
                self.broken = True
                log.error("reports of Kafka cannot be read", error=f"{type(error).__name__}: {error}")

    def retire(self) -> None:
        self._retired.set()

    def close(self) -> None:
        """Wait a little for what is on its way, and drop the rest, which nobody waits for any more."""
        end = monotonic() + FLUSH_AT_END
        while len(self._made) and monotonic() < end:
            self._made.flush(REPORTS_POLL)
        self._made.purge()
        self.retire()
        self._thread.join(FLUSH_AT_END)


class _Forward(logging.Handler):
    """Puts what librdkafka logs into our log, at level debug: its troubles are told by deliveries."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("librdkafka", reason=redact.credentials(record.getMessage()))


def _logger() -> logging.Logger:
    made = logging.Logger("librdkafka")
    made.addHandler(_Forward())
    return made


def configured(options: KafkaOptions, password: str, client_secret: str, section: str) -> dict[str, Any]:
    """The producer's properties. Raises SinkError for options that contradict one another."""
    for name in options.properties:
        if name in NOT_OVERRIDDEN or name.startswith("sasl.password"):
            raise SinkError(f"{section}.properties sets {name}, which the sink sets itself", "Remove it.")
    if bool(options.cert) != bool(options.key):
        raise SinkError(f"only one of {section}.cert and {section}.key is set", "Set both or none.")
    if options.security == "plaintext" and (options.ca or options.cert):
        raise SinkError(f"{section}.security is plaintext although TLS files are set", "Remove one of them.")
    made: dict[str, Any] = {
        "client.id": "teleport-event-handler",
        "compression.type": options.compression,
        "message.max.bytes": options.max_message_bytes,
        "linger.ms": 5,
        "topic.metadata.propagation.max.ms": round(options.timeout * 500),  # or a missing topic is told as a time-out
        **options.properties,
        "bootstrap.servers": ",".join(options.brokers),
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": round(options.timeout * 1000),
        "security.protocol": {
            ("tls", False): "SSL",
            ("tls", True): "SASL_SSL",
            ("plaintext", False): "PLAINTEXT",
            ("plaintext", True): "SASL_PLAINTEXT",
        }[options.security, options.sasl != "none"],
    }
    files = {"ssl.ca.location": options.ca, "ssl.certificate.location": options.cert, "ssl.key.location": options.key}
    made |= {name: file for name, file in files.items() if file}
    if options.sasl == "OAUTHBEARER":
        made |= {
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": options.oauth_token_url,
            "sasl.oauthbearer.client.id": options.oauth_client_id,
            "sasl.oauthbearer.client.secret": client_secret,
            **({"sasl.oauthbearer.scope": options.oauth_scope} if options.oauth_scope else {}),
        }
    elif options.sasl != "none":
        made |= {"sasl.mechanism": options.sasl, "sasl.username": options.username, "sasl.password": password}
    return made


def _password(options: KafkaOptions, section: str) -> Secret | None:
    if options.sasl in ("none", "OAUTHBEARER"):
        if options.username or options.password or options.password_file:
            raise SinkError(f"{section}.username is set without {section}.sasl", 'As sasl = "SCRAM-SHA-512".')
        return None
    if not options.username:
        raise SinkError(f"{section}.sasl is set without {section}.username", "Set it.")
    return Secret(options.password, options.password_file, f"{section}.password")


def _client_secret(options: KafkaOptions, section: str) -> Secret | None:
    if options.sasl != "OAUTHBEARER":
        return None
    if not options.oauth_token_url or not options.oauth_client_id:
        raise SinkError(
            f"{section}.sasl is OAUTHBEARER without {section}.oauth-token-url and {section}.oauth-client-id",
            "Set both.",
        )
    return Secret(options.oauth_client_secret, options.oauth_client_secret_file, f"{section}.oauth-client-secret")


def _library(section: str) -> Any:
    try:
        import confluent_kafka
    except ImportError:
        raise SinkError(
            f"[{section}] needs confluent-kafka", "Run: pip install 'teleport-event-handler[kafka]'."
        ) from None
    return confluent_kafka


SINK = SinkType("Apache Kafka, and whatever speaks its protocol", KafkaOptions, KafkaSink)
