"""Encodes events as each sink does and tells what came of it: in this process, or line by line as a program of its
own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from event_handler.event import Event
from event_handler.sinks import columns, fields, moments
from event_handler.sinks.elasticsearch import documents
from event_handler.sinks.kafka import messages as kafka
from event_handler.sinks.nats import messages as nats
from event_handler.sinks.otlp import encode
from event_handler.sinks.postgresql import arrays
from event_handler.sinks.syslog import formats

OBSERVED = 1_764_000_000.25  # seconds; when the events are sent
MODULES = (arrays, columns, documents, encode, fields, formats, kafka, moments, nats)


def encoded(order: list[Any]) -> list[str]:
    """What every encoder makes of one event, given as the arguments of Event with its body as text."""
    kind, id, time, index, body, session_id = order
    event = Event(kind, id, time, index, body.encode("utf-8", "surrogatepass"), session_id)
    return [_outcome(made, event) for made in ENCODERS]


def _outcome(made: Callable[[Event], object], event: Event) -> str:
    try:
        return repr(made(event))
    except ValueError as error:
        return type(error).__name__


HEADER = formats.Header(13, "desk", "teleport", "7", 52_000)
RESOURCE = {"service.name": "teleport"}
ENCODERS: list[Callable[[Event], object]] = [
    columns.row_of,
    lambda event: columns.json_lines([event, event]),
    lambda event: arrays.arrays([event, event]),
    fields.with_session,
    lambda event: fields.TextField("code").of(event.body),
    lambda event: moments.rfc3339_milliseconds(event.time),
    lambda event: documents.bulk_lines([event, event], "plain", "teleport"),
    lambda event: documents.bulk_lines([event], "message"),
    lambda event: encode.Encoder(RESOURCE, "events", structured=True).request([event, event], OBSERVED),
    lambda event: encode.Encoder(RESOURCE, "events", structured=False).request([event], OBSERVED),
    lambda event: kafka.headers_of(event),
    lambda event: kafka.key_of(event, "session"),
    lambda event: nats.Publication("audit").of(b"teleport", b"_INBOX.1", event.id, event.body),
    lambda event: HEADER.before(event, formats.for_header(event)),
    *(lambda event, form=form: form(event, formats.parsed(event)) for form in formats.FORMATS.values()),
]


def main() -> None:
    print(json.dumps([module.__file__ for module in MODULES]), flush=True)
    for line in sys.stdin:
        print(json.dumps(encoded(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
