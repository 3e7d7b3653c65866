"""The event as every room of the program knows it: a JSON body and the few facts the pipeline needs about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
