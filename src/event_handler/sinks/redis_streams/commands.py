"""The commands of a batch as Redis reads them. Source: Redis serialization protocol specification, XADD, WAIT."""

from __future__ import annotations

from collections.abc import Sequence

from event_handler.event import Event
from event_handler.sinks.fields import session_field, with_fields

REDIS_PRODUCER = b"teleport-event-handler"  # for Redis, which knows ids of events by who sent them
ENTRY_FIELDS = 4  # pairs of an entry


def argument(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(map(argument, arguments))


class Adding:
    """Makes the XADD commands for one stream: `event` is the JSON text, `time` milliseconds since the epoch."""

    def __init__(self, stream: str, max_length: int, *, idempotent: bool) -> None:
        trim = [b"MAXLEN", b"~", b"%d" % max_length] if max_length else []
        known = [b"IDMP", REDIS_PRODUCER] if idempotent else []
        arguments = 2 + len(known) + bool(known) + len(trim) + 1 + 2 * ENTRY_FIELDS
        start = b"*%d\r\n" % arguments + b"".join(map(argument, [b"XADD", stream.encode(), *known]))
        self._before_id = start if idempotent else b""
        entry = b"".join(map(argument, [*trim, b"*", b"event"]))
        self._entry = entry if idempotent else start + entry

    def commands(self, events: Sequence[Event]) -> bytes:
        session = session_field(events[0].session_id) if events[0].session_id else b""
        made = []
        for event in events:
            body = with_fields(event.body, session) if session else event.body
            uid, type_, time = event.id.encode(), event.type.encode(), b"%d" % round(event.time * 1000)
            if self._before_id:
                made.append(self._before_id + argument(uid))
            made.append(
                b"%b$%d\r\n%b\r\n$4\r\ntype\r\n$%d\r\n%b\r\n$3\r\nuid\r\n$%d\r\n%b\r\n$4\r\ntime\r\n$%d\r\n%b\r\n"
                % (self._entry, len(body), body, len(type_), type_, len(uid), uid, len(time), time)
            )
        return b"".join(made)
