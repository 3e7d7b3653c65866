"""A key by which a receiver knows that a request is one that it has had: the same for every try of the same events."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from event_handler.event import Event


def repeat_key(events: Sequence[Event]) -> str:
    """64 hexadecimal digits."""
    named = b"\n".join(b"%b/%b/%d" % (e.session_id.encode(), e.id.encode(), e.index) for e in events)
    return sha256(named).hexdigest()
