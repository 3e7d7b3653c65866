"""The audit log behind the simulated server: pages as the search back ends have them, chunks as Athena has them."""

from __future__ import annotations

import bisect
import random
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time as now

from event_handler.simulator.back_ends import BackEnd, BadRequest, FileBackEnd
from event_handler.simulator.events import LogEvent
from event_handler.simulator.messages import encoded_length

PAGE_BYTES = 1024 * 1024  # a page ends where the next event would pass it
DEFAULT_LIMIT = 500
LARGEST_LIMIT = 10_000
LIMIT_IN_TEXT = 1000  # the real server refuses above 10 000 but speaks of 1000


@dataclass(slots=True)
class Chunk:
    """A complete, immutable chunk: one encoded ExportEventUnstructured an event. It is listed from `visible` on
    (epoch).
    """

    name: str
    messages: list[bytes]
    visible: float = 0.0


@dataclass(slots=True)
class AuditLog:
    """Events in the order of time, their chunks by UTC day, and the recordings with the time from which they exist."""

    events: list[LogEvent] = field(default_factory=list)
    chunks: dict[str, list[Chunk]] = field(default_factory=lambda: defaultdict(list))
    recordings: dict[str, tuple[float, list[LogEvent]]] = field(default_factory=dict)
    seed: int = 0
    back_end: BackEnd = field(default_factory=FileBackEnd)
    _dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def add(self, event: LogEvent) -> None:
        bisect.insort(self.events, event, key=lambda e: (e.time, e.id))

    def cut_chunks(self, size: int, *, late: int, late_seconds: float, duplicates: float) -> None:
        """Put all events into chunks of about `size`; the last `late` chunks of past days appear later.

        Of the events of a chunk, the share `duplicates` stands in the next chunk of its day too.
        """
        days: dict[str, list[LogEvent]] = defaultdict(list)
        for event in self.events:
            days[day_of(event.time)].append(event)
        made: list[Chunk] = []
        for day, events in days.items():
            before: list[LogEvent] = []
            for at in range(0, len(events), size):
                run = events[at : at + size]
                repeated = [event for event in before if self._dice.random() < duplicates]
                made.append(self.add_chunk(day, run + repeated))
                before = run
        today = self.chunks.get(day_of(now()), [])
        past = [chunk for chunk in made if chunk not in today] or made
        for chunk in past[max(0, len(past) - late) :] if late else []:
            chunk.visible = now() + late_seconds

    def add_chunk(self, day: str, events: list[LogEvent]) -> Chunk:
        """Encode a chunk once; every export only sends. Its name is a UUIDv7 of the time of its newest event."""
        milliseconds = int(max((event.time for event in events), default=now()) * 1000)
        bits = milliseconds << 80 | 7 << 76 | self._dice.getrandbits(12) << 64 | 0b10 << 62 | self._dice.getrandbits(62)
        messages = []
        for number, event in enumerate(events, start=1):
            cursor = f"a1:{number}".encode()
            messages.append(
                b"\x0a" + encoded_length(len(event.wire)) + event.wire + b"\x12" + encoded_length(len(cursor)) + cursor
            )
        chunk = Chunk(str(uuid.UUID(int=bits)), messages)
        self.chunks[day].append(chunk)
        return chunk

    def visible_chunks(self, day: str) -> list[Chunk]:
        return [chunk for chunk in self.chunks.get(day, []) if chunk.visible <= now()]

    def page(
        self, since: float, until: float, limit: int, key: str, types: frozenset[str], newest: bool
    ) -> tuple[list[bytes], str]:
        """One page of encoded events and the next key, or raise BadRequest."""
        if since > until:
            raise BadRequest("invalid days")
        if limit > LARGEST_LIMIT:
            raise BadRequest(f"limit {limit} exceeds max iteration limit {LIMIT_IN_TEXT}")
        window = self.back_end.window(self.events, since, until)
        if newest:
            window = window[::-1]
        if key:
            window = window[self.back_end.place(window, key, since, newest) :]
        page: list[bytes] = []
        size = 0
        last: LogEvent | None = None
        for event in window:
            if types and event.type not in types:
                continue
            if page and (len(page) >= (limit or DEFAULT_LIMIT) or size + len(event.wire) > PAGE_BYTES):
                return page, self.back_end.key(last) if last else ""
            if not page and len(event.wire) > PAGE_BYTES:
                return [], ""
            page.append(event.wire)
            size += len(event.wire)
            last = event
        return page, ""


def day_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
