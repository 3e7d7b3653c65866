"""Decodes what the cluster sent as events, each once, however many sinks get it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import orjson

from event_handler.errors import MalformedEventError
from event_handler.event import Event, RawEvent, Unreadable, fingerprint, named
from event_handler.teleport.wire.beginning import Beginning
from event_handler.teleport.wire.decode import Envelope, convert, read_code, read_envelope, read_event

UNDECODABLE = "undecodable"  # key of a dead letter's body that holds the bytes as they came
BEGINNING = "beginning"  # key of a dead letter's body that holds the first bytes only


class WireEvent(RawEvent):
    """An EventUnstructured, in wire bytes until its content is asked for."""

    def __init__(self, envelope: Envelope, wire: bytes, session_id: str) -> None:
        super().__init__(envelope.type, envelope.id, envelope.time, envelope.index, session_id)
        self._content = envelope.content
        self._wire = wire
        self._key = b""  # until it is asked for
        self._event: Event | None = None
        self._uid = ""

    def code(self) -> str:
        return read_code(self._content)

    def dedup_key(self) -> bytes:
        key = self._key
        if key:
            return key
        name = self.id
        if not _has_uid(self._content, name):
            event = self.event()
            # The server's id of an event without uid is made up for this one read, but in a recording it is a hash of
            # the content.
            of_content = self.session_id and not self._uid.strip() and name.strip()
            name = name if of_content else event.id
        self._key = key = fingerprint(f"{self.session_id}/{self.index}/{name}" if self.session_id else name)
        return key

    def event(self) -> Event:
        event = self._event
        if event is None:
            body, self._uid = convert(self._content)
            event = Event(self.type, named(self._uid, body), self.time, self.index, body, self.session_id)
            self._event = event
        return event

    def unreadable(self, reason: str) -> Unreadable:
        return _undecodable(self._wire, reason, self.session_id)


def raw_events(wires: Sequence[bytes], session_id: str = "") -> list[RawEvent]:
    """Decode a run of events, those of the recording `session_id` where it is given. Nothing is raised."""
    found: list[RawEvent] = []
    for wire in wires:
        if isinstance(wire, Beginning):
            found.append(_too_large(wire, session_id))
            continue
        try:
            found.append(WireEvent(read_event(wire), wire, session_id))
        except MalformedEventError as error:
            found.append(_undecodable(wire, str(error), session_id))
        except Exception as error:  # a fault of our own code must not stop the events behind it
            found.append(_undecodable(wire, f"cannot be read ({type(error).__name__}: {error})", session_id))
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
    return WireEvent(read_event(wire), wire, session_id)


def _undecodable(wire: bytes, reason: str, session_id: str) -> Unreadable:
    body = orjson.dumps({UNDECODABLE: base64.b64encode(wire).decode()})
    return Unreadable(reason, body, "", "", 0.0, 0, session_id)


def _too_large(beginning: Beginning, session_id: str) -> Unreadable:
    """Of an event that cannot be taken in whole the beginning is kept. Its code is not known."""
    try:
        envelope = read_envelope(beginning)
    except MalformedEventError:
        envelope = Envelope("", "", 0.0, 0, b"")
    reason = (
        f"an event of {beginning.size} bytes is too large to be delivered; the whole of it is in the cluster's audit "
        "log only"
    )
    body = orjson.dumps({BEGINNING: base64.b64encode(beginning).decode()})
    return Unreadable(reason, body, envelope.type, envelope.id, envelope.time, envelope.index, session_id)


def _has_uid(content: bytes, uid: str) -> bool:
    """Whether the Struct `content` has the entry `uid` with that value, as its bytes are usually laid out.

    The id beside the content is the uid again. Where it is missing or another one, the content decides: events that
    differ there are different events.
    """
    data = uid.encode()
    size = len(data)
    if size > 120 or not uid.strip():  # the lengths below have one byte
        return False
    return b"\x0a\x03uid\x12" + bytes((size + 2, 0x1A, size)) + data in content
