"""What becomes of a batch by what JetStream acknowledges of each message.

Facts: NATS's "JetStream wire API reference" for acknowledgements, errors.json of nats-server for the codes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from event_handler.ports import Delivered, Partial, Reject, Retry, Verdict
from event_handler.sinks.http import MISCONFIGURED_WAIT

TOO_LARGE_FOR_STREAM = 10054
JETSTREAM_STEP = {
    10060: "check {section}.stream",  # another stream than expected
    10109: "the stream is sealed: take another one",
}
JETSTREAM_FULL = {
    10077: "the stream is full and refuses new messages: raise its limits, or let it discard old ones",
    10047: "raise the limits of storage of the server or the account",
    10028: "raise the limits of memory of the server or the account",
}
NO_STREAM = (
    "no stream takes the subject; create one (nats stream add TELEPORT --subjects 'teleport.>'), or check "
    "{section}.subject"
)


class AckBatch:
    """Waits for the acknowledgement of each of so many messages."""

    def __init__(self, count: int, section: str) -> None:
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._section = section
        self._waiting = set(range(count))
        self._again: dict[int, Retry] = {}
        self._rejected: dict[int, str] = {}
        self._count = count

    def take(self, place: int, data: bytes, headers: Mapping[str, str] | None) -> None:
        """An answer to the message at a place."""
        if place not in self._waiting:
            return
        said = _said(data)
        error = said.get("error")
        if headers and headers.get("Status") == "503":
            reason = NO_STREAM.format(section=self._section)
            self._again[place] = Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
        elif isinstance(error, dict):
            self._refused(place, error)
        elif not said.get("stream"):
            self._again[place] = Retry("NATS answered with what is no acknowledgement of JetStream")
        self.settle(place)

    @property
    def has_none(self) -> bool:
        """Whether no message was answered."""
        return len(self._waiting) == self._count

    def reject(self, place: int, reason: str) -> None:
        self._rejected[place] = reason
        self.settle(place)

    def settle(self, place: int) -> None:
        self._waiting.discard(place)
        if not self._waiting:
            self.stop()

    def stop(self) -> None:
        """Wait for no more."""
        if not self.settled.done():
            self.settled.set_result(None)

    def verdict(self, trouble: Retry) -> Verdict:
        """`trouble` is why there is no answer to messages that have none."""
        if not self._waiting and not self._again and not self._rejected:
            return Delivered()
        why = next(iter(self._again.values()), trouble)
        again = frozenset(self._waiting.union(self._again))
        if len(again) == self._count:
            return why
        if self._count == 1:
            return Reject(self._rejected[0])
        return Partial(again, self._rejected, why.reason if again else "", why.after)

    def _refused(self, place: int, error: dict[str, Any]) -> None:
        code = error.get("err_code")
        reason = f"JetStream answered {code}: {error.get('description', '')}"
        if code == TOO_LARGE_FOR_STREAM:
            self._rejected[place] = f"{reason}; see the largest message that the stream takes"
        elif code in JETSTREAM_STEP:
            step = JETSTREAM_STEP[code].format(section=self._section)
            self._again[place] = Retry(f"{reason}; {step}", MISCONFIGURED_WAIT, misconfigured=True)
        else:
            self._again[place] = Retry(f"{reason}; {JETSTREAM_FULL[code]}" if code in JETSTREAM_FULL else reason)


def _said(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
