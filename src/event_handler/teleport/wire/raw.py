"""Decodes what the cluster sent as events, each once, however many sinks get it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import orjson

from event_handler.errors import MalformedEventError
from event_handler.event import RawEvent, Unreadable
from event_handler.teleport.wire.beginning import Beginning
from event_handler.teleport.wire.decode import UNDECODABLE, WireEvent, read_envelope, read_event, undecodable

BEGINNING = "beginning"  # key of a dead letter's body that holds the first bytes only


def raw_events(wires: Sequence[bytes], session_id: str = "") -> list[RawEvent]:
    """Decode a run of events, those of the recording `session_id` where it is given. Nothing is raised."""
    found: list[RawEvent] = []
    for wire in wires:
        if isinstance(wire, Beginning):
            found.append(_too_large(wire, session_id))
            continue
        try:
            event = read_event(wire)
            event.session_id = session_id
            found.append(event)
        except MalformedEventError as error:
            found.append(undecodable(wire, str(error), session_id))
        except Exception as error:  # a fault of our own code must not stop the events behind it
            found.append(undecodable(wire, f"cannot be read ({type(error).__name__}: {error})", session_id))
    return found


def restored(body: bytes, session_id: str) -> RawEvent | None:
    """What the body of a dead letter holds in place of an event, None when it is an event's.

    Raises MalformedEventError when what it holds is damaged.
    """
    content = orjson.loads(body)
    if not isinstance(content, dict) or list(content) not in ([UNDECODABLE], [BEGINNING]):
        return None
    try:
        wire = base64.b64decode(next(iter(content.values())), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise MalformedEventError(f"the letter itself is damaged ({error})") from None
    if BEGINNING in content:
        return Unreadable("an event of which only the beginning is kept", body, "", "", 0.0, 0, session_id)
    event = read_event(wire)
    event.session_id = session_id
    return event


def _too_large(beginning: Beginning, session_id: str) -> Unreadable:
    """Of an event that cannot be taken in whole the beginning is kept. Its code is not known."""
    try:
        envelope = read_envelope(beginning)
    except MalformedEventError:
        envelope = WireEvent("", "", 0.0, 0, b"", b"")
    reason = (
        f"an event of {beginning.size} bytes is too large to be delivered; the whole of it is in the cluster's audit "
        "log only"
    )
    body = orjson.dumps({BEGINNING: base64.b64encode(beginning).decode()})
    return Unreadable(reason, body, envelope.type, envelope.id, envelope.time, envelope.index, session_id)
