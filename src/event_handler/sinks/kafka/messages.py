"""What a message tells of its event beside the body: by which key it is filed, and headers."""

from __future__ import annotations

from typing import Final

from event_handler.event import Event
from event_handler.sinks.fields import TextField

CLUSTER_FIELD: Final = TextField("cluster_name")
SID_FIELD: Final = TextField("sid")
USER_FIELD: Final = TextField("user")


def key_of(event: Event, chosen: str) -> bytes | None:
    """By the option `message-key`; None for a message without a key."""
    if chosen == "uid":
        return event.id.encode()
    if chosen == "none":
        return None
    session = b"" if chosen == "user" else event.session_id.encode() or SID_FIELD.of(event.body)
    return session or USER_FIELD.of(event.body) or None


def headers_of(event: Event) -> list[tuple[str, bytes]]:
    return [
        ("event", event.type.encode()),
        ("uid", event.id.encode()),
        ("cluster_name", CLUSTER_FIELD.of(event.body)),
    ]
