"""What the storage back ends that can only be searched have of their own: order, windows, and the keys of the next
page.
"""

from __future__ import annotations

import base64
import bisect
import json
import struct
import uuid
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from hashlib import sha256

from event_handler.simulator.events import LogEvent


class BadRequest(Exception):
    """What the server answers with INVALID_ARGUMENT."""


class BackEnd(ABC):
    """`events` and windows are in the order of time; times are seconds since the epoch."""

    @abstractmethod
    def export_error(self, method: str) -> str:
        """The text with which a call of bulk export is answered."""

    @abstractmethod
    def window(self, events: list[LogEvent], since: float, until: float) -> list[LogEvent]:
        """The events between the two times, both included, in this back end's order."""

    @abstractmethod
    def key(self, event: LogEvent) -> str:
        """The key of the page that begins after `event`."""

    @abstractmethod
    def place(self, window: list[LogEvent], key: str, since: float, newest: bool) -> int:
        """How many events of the window, reversed already if `newest`, a key skips. Raises BadRequest."""


class FileBackEnd(BackEnd):
    """The default of a small cluster: log files. Keys are `<id>/<nanoseconds>`."""

    def export_error(self, method: str) -> str:
        return f"FileLog does not implement {method}"

    def window(self, events: list[LogEvent], since: float, until: float) -> list[LogEvent]:
        return _between(events, since, until)

    def key(self, event: LogEvent) -> str:
        return f"{event.id}/{_microseconds(event) * 1000}"

    def place(self, window: list[LogEvent], key: str, since: float, newest: bool) -> int:
        """All are skipped, without an error, when the key's event is not there.

        A key from before the window skips none.
        """
        identity, _, nanoseconds = key.rpartition("/")
        if not identity or not nanoseconds.isdigit():
            return len(window)
        moment = int(nanoseconds) // 1000
        if moment < round(since * 1e6) and not newest:
            return 0
        sign = -1 if newest else 1
        at = bisect.bisect_left(window, sign * moment, key=lambda e: sign * _microseconds(e))
        while at < len(window) and _microseconds(window[at]) == moment:
            if window[at].id == identity:
                return at + 1
            at += 1
        return len(window)


class PostgresBackEnd(BackEnd):
    """Keys are base64url of 24 bytes: microseconds as a little-endian int64, and the row's UUID (here: the event's
    own).
    """

    def export_error(self, method: str) -> str:
        return "pgevents backend does not support streaming export"

    def window(self, events: list[LogEvent], since: float, until: float) -> list[LogEvent]:
        return _between(events, since, until)

    def key(self, event: LogEvent) -> str:
        return base64.urlsafe_b64encode(struct.pack("<q", _microseconds(event)) + uuid.UUID(event.id).bytes).decode()

    def place(self, window: list[LogEvent], key: str, since: float, newest: bool) -> int:
        """Rows after the key's place in the order, whether or not its event is there."""
        try:
            microseconds, row = struct.unpack("<q16s", base64.urlsafe_b64decode(key))
        except (ValueError, struct.error):
            raise BadRequest("malformed start key") from None
        return _after(
            window, [(_microseconds(event), uuid.UUID(event.id).bytes) for event in window], (microseconds, row), newest
        )


class DynamoBackEnd(BackEnd):
    """Times count in whole seconds, also at the ends of a window; within a second the order is stable, but not that of
    time.

    Keys are JSON with a date and, as JSON in a text, the place of an item.
    """

    def export_error(self, method: str) -> str:
        return "dynamoevents backend does not support streaming export"

    def window(self, events: list[LogEvent], since: float, until: float) -> list[LogEvent]:
        return sorted(
            _between(events, int(since), int(until) + 1 - 1e-6), key=lambda event: _dynamo_order(event.time, event.id)
        )

    def key(self, event: LogEvent) -> str:
        date = datetime.fromtimestamp(event.time, UTC).date().isoformat()
        item = {"SessionID": event.id, "EventIndex": event.index, "CreatedAt": int(event.time), "CreatedAtDate": date}
        return json.dumps({"date": date, "iterator": json.dumps(item)})

    def place(self, window: list[LogEvent], key: str, since: float, newest: bool) -> int:
        """Items after the key's place in the order, whether or not its event is there."""
        try:
            item = json.loads(json.loads(key)["iterator"])
            place = _dynamo_order(item["CreatedAt"], item["SessionID"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadRequest("invalid start key") from None
        return _after(window, [_dynamo_order(event.time, event.id) for event in window], place, newest)


BACK_ENDS: dict[str, type[BackEnd]] = {"file": FileBackEnd, "postgres": PostgresBackEnd, "dynamodb": DynamoBackEnd}


def _between(events: list[LogEvent], since: float, until: float) -> list[LogEvent]:
    low = bisect.bisect_left(events, round(since * 1e6), key=_microseconds)
    return events[low : bisect.bisect_right(events, round(until * 1e6), key=_microseconds)]


def _after(window: list[LogEvent], orders: list[tuple[int, bytes]], place: tuple[int, bytes], newest: bool) -> int:
    """How many events stand up to and at `place` in a window that ascends, or descends if `newest`."""
    if newest:
        return len(window) - bisect.bisect_left(orders[::-1], place)
    return bisect.bisect_right(orders, place)


def _dynamo_order(time: float, identity: str) -> tuple[int, bytes]:
    return int(time), sha256(identity.encode()).digest()


def _microseconds(event: LogEvent) -> int:
    return round(event.time * 1_000_000)
