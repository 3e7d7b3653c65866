"""The event as every package knows it: as it was read, and as one JSON body with the few facts that the pipeline needs.

What makes two events the same one is decided here: the server's uid, or a hash of the content where there is none.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

SESSION_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")  # UUIDs on every known server; it becomes part of a URL


@dataclass(slots=True, init=False)
class Event:
    """One audit event, or one event of a session recording, ready to be delivered.

    `type` is the event type (`user.login`); `id` the server's uid, or a hash of the body where the event has none;
    `time` seconds since the epoch (UTC); `index` the position within a session; `body` one JSON object as UTF-8 text;
    `session_id` is set for events of a recording only.
    """

    type: str
    id: str
    time: float
    index: int
    body: bytes
    session_id: str

    # Written out: in a compiled file a constructor that dataclass makes stays Python, and takes several times as long.
    def __init__(self, type: str, id: str, time: float, index: int, body: bytes, session_id: str = "") -> None:
        self.type = type
        self.id = id
        self.time = time
        self.index = index
        self.body = body
        self.session_id = session_id


class RawEvent:
    """An event as the cluster sent it: its envelope is decoded, its content when that is asked for, and once only.

    `type` is "" and `index` -1 where they are not known; `session_id` is set for events of a recording only.
    """

    def __init__(self, type: str, id: str, time: float, index: int, session_id: str) -> None:
        self.type = type
        self.id = id
        self.time = time
        self.index = index
        self.session_id = session_id

    def code(self) -> str:
        """The event's code (`T1000I`), "" where it has none. Raises MalformedEventError."""
        raise NotImplementedError

    def dedup_key(self) -> bytes:
        """The fingerprint of what makes this event the same as another one. Raises MalformedEventError."""
        raise NotImplementedError

    def event(self) -> Event:
        """The event with its content as JSON. Raises MalformedEventError."""
        raise NotImplementedError

    def unreadable(self, reason: str) -> Unreadable:
        """The same bytes as something that is no event, for that reason."""
        raise NotImplementedError


class Unreadable(RawEvent):
    """What cannot be delivered: bytes that are no event, or the beginning of one that is too large.

    `body` is a JSON object that holds the bytes, for a dead letter.
    """

    def __init__(self, reason: str, body: bytes, type: str, id: str, time: float, index: int, session_id: str) -> None:
        super().__init__(type, named(id, body), time, index, session_id)
        self.reason = reason
        self.body = body

    def dedup_key(self) -> bytes:
        return fingerprint(f"{self.session_id}/unreadable/{self.id}")


MARK: Final = 8  # bytes of a fingerprint


def fingerprint(event_id: str) -> bytes:
    """8 bytes of an id; a new id is taken for one of two million others with a chance of about 1 in 10^13."""
    return hashlib.blake2b(event_id.encode(), digest_size=MARK).digest()


def stable_id(body: bytes) -> str:
    """The id of an event that has no uid: the same body gives the same id on every read."""
    return hashlib.sha256(body).hexdigest()


def named(uid: str, body: bytes) -> str:
    """The id of an event: its uid, and a hash of its content where it has none."""
    return uid if uid.strip() else stable_id(body)
