"""What becomes of a batch by what librdkafka reports of each of its messages.

Facts: the protocol guide of Apache Kafka for the codes of brokers, librdkafka's rdkafka.h for its own (`_…`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from event_handler.ports import Delivered, Denied, Partial, Reject, Retry, Split, Verdict
from event_handler.sinks.http import MISCONFIGURED_WAIT

# Of a whole set of messages, one of which the broker does not take, and it does not say which.
OF_A_SET = {
    "MSG_SIZE_TOO_LARGE": "set {section}.message-max-bytes to max.message.bytes of the topic",
    "RECORD_LIST_TOO_LARGE": "set {section}.message-max-bytes to max.message.bytes of the topic",
    "INVALID_RECORD": "a compacted topic takes no message without a key: see {section}.message-key",
}
OF_AN_EVENT_S_AGE = "INVALID_TIMESTAMP"
KAFKA_STEP = {
    "TOPIC_AUTHORIZATION_FAILED": "let the user write to the topic, or check {section}.topic",
    "CLUSTER_AUTHORIZATION_FAILED": "give the user the right IdempotentWrite on the cluster",
    "UNKNOWN_TOPIC_OR_PART": "create the topic, or check {section}.topic",
    "_UNKNOWN_TOPIC": "create the topic, or check {section}.topic",
    "_UNKNOWN_PARTITION": "create the topic, or check {section}.topic",
    "TOPIC_EXCEPTION": "check {section}.topic",
    "POLICY_VIOLATION": "a policy of the cluster forbids it: check {section}.topic",
    OF_AN_EVENT_S_AGE: "the topic takes no events of that age: see message.timestamp.before.max.ms of the topic",
    "UNSUPPORTED_COMPRESSION_TYPE": "check {section}.compression",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "the topic has an old message format, without headers or idempotence",
    "SASL_AUTHENTICATION_FAILED": "check {section}.sasl, username and password or token",
    "UNSUPPORTED_SASL_MECHANISM": "check {section}.sasl",
    "_AUTHENTICATION": "check {section}.sasl, username and password or token",
    "_SSL": "check {section}.tls, ca, cert and key",
}


def next_step(error: str, section: str) -> str:
    """What a person can do about an error of that name; "" where it may pass by itself."""
    return KAFKA_STEP.get(error, "").format(section=section)


class Batch:
    """Waits for the report of each of so many messages. An error is librdkafka's KafkaError."""

    def __init__(self, count: int, section: str) -> None:
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count = self._left = count
        self._section = section
        self._errors: dict[int, Any] = {}
        self._reported = bytearray(count)
        self._too_large: dict[int, str] = {}
        self._unsent = 0

    @property
    def took_any(self) -> bool:
        """Whether a broker has acknowledged a message."""
        return self._count > self._left + self._unsent + len(self._errors) + len(self._too_large)

    def report(self, place: int, error: Any, _message: Any = None) -> None:
        """What was reported of the message at a place."""
        if error is not None:
            self._errors[place] = error
        self._reported[place] = True
        self._left -= 1
        if not self._left and not self.settled.done():
            self.settled.set_result(None)

    def too_large(self, place: int, reason: str) -> None:
        """That message was not even taken by librdkafka."""
        self._too_large[place] = reason
        self.report(place, None)

    def leave_out(self, place: int) -> None:
        """The messages from that place on were not handed over, so there will be no report of them."""
        self._unsent = self._count - place
        self._left -= self._unsent
        if not self._left and not self.settled.done():
            self.settled.set_result(None)

    def verdict(self, trouble: Retry | None) -> Verdict:
        """`trouble` is what is wrong with the connections. A message without a report is to be sent again."""
        if not (self._errors or self._too_large or self._left or self._unsent):
            return Delivered()
        of_a_set = {place for place, error in self._errors.items() if error.name() in OF_A_SET}
        if not self._too_large and len(of_a_set) == self._count:
            error = self._errors[0]
            reason = f"{_words(error)}; {OF_A_SET[error.name()].format(section=self._section)}"
            return Reject(reason) if self._count == 1 else Split(reason)
        again = frozenset({place for place in range(self._count) if not self._reported[place]}.union(self._errors))
        why = self._why(trouble)
        if len(again) == self._count:
            return why
        # Of single events Denied is proof in the end, so nothing is that but what a broker says of the event.
        return Partial(again, self._too_large, why.reason, why.after, isinstance(why, Denied))

    def _why(self, trouble: Retry | None) -> Retry:
        for error in self._errors.values():
            if step := next_step(error.name(), self._section):
                reason = f"{_words(error)}; {step}"
                if error.name() == OF_AN_EVENT_S_AGE:
                    return Denied(reason, MISCONFIGURED_WAIT)
                return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
        if trouble is not None:
            return trouble
        said = _words(next(iter(self._errors.values()))) if self._errors else "no report of delivery came in time"
        return Retry(said, unanswered=True)


def _words(error: Any) -> str:
    return f"Kafka reports {error.name()}: {error.str()}"
