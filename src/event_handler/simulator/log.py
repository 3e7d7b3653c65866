"""The audit log behind the simulated server: pages and keys as the file back end has them, chunks as Athena has them."""

from __future__ import annotations

import bisect
import random
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time as now

from event_handler.simulator.events import LogEvent
from event_handler.simulator.messages import new

PAGE_BYTES = 1024 * 1024  # a page ends where the next event would pass it
DEFAULT_LIMIT = 500
LARGEST_LIMIT = 10_000


class BadRequest(Exception):
    """What the server answers with INVALID_ARGUMENT."""


@dataclass(slots=True)
class Chunk:
    """A complete, immutable chunk: one encoded ExportEventUnstructured an event. It is listed from `visible` on (epoch)."""

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

    def add(self, event: LogEvent) -> None:
        bisect.insort(self.events, event, key=lambda e: (e.time, e.id))

    def cut_chunks(self, size: int, *, late: int, late_seconds: float, duplicates: float) -> None:
        """Put all events into chunks of about `size`; the last `late` chunks appear later, and some events stand in two chunks."""
        dice = random.Random(self.seed)
        days: dict[str, list[LogEvent]] = defaultdict(list)
        for event in self.events:
            days[day_of(event.time)].append(event)
        made: list[Chunk] = []
        for day, events in days.items():
            before: list[LogEvent] = []
            for at in range(0, len(events), size):
                run = events[at : at + size]
                repeated = [event for event in before if dice.random() < duplicates]
                made.append(self.add_chunk(day, run + repeated))
                before = run
        for chunk in made[len(made) - late :] if late else []:
            chunk.visible = now() + late_seconds

    def add_chunk(self, day: str, events: list[LogEvent]) -> Chunk:
        name = str(uuid.UUID(int=(int(now() * 1000) << 80 | random.getrandbits(80)) & ~(0xF << 76) | 0x7 << 76))
        messages = []
        for number, event in enumerate(events, start=1):
            message = new("ExportEventUnstructured", cursor=f"a1:{number}")
            message.event.ParseFromString(event.wire)
            messages.append(message.SerializeToString())
        chunk = Chunk(name, messages)
        self.chunks[day].append(chunk)
        return chunk

    def visible_chunks(self, day: str) -> list[Chunk]:
        return [chunk for chunk in self.chunks.get(day, []) if chunk.visible <= now()]

    def page(self, since: float, until: float, limit: int, key: str, types: frozenset[str], newest: bool) -> tuple[list[bytes], str]:
        """One page of encoded events and the next key, or raise BadRequest."""
        if since > until:
            raise BadRequest("invalid days")
        if limit > LARGEST_LIMIT:
            raise BadRequest(f"limit {limit} exceeds max iteration limit {LARGEST_LIMIT}")
        low = bisect.bisect_left(self.events, since, key=lambda e: e.time)
        high = bisect.bisect_right(self.events, until, key=lambda e: e.time)
        window = self.events[low:high]
        if newest:
            window = window[::-1]
        if key:
            # As on a real file log: a key whose event is not in the window ends the answer, empty and without an error.
            known = _place(window, key, newest)
            window = [] if known is None else window[known + 1 :]
        page: list[bytes] = []
        size = 0
        last: LogEvent | None = None
        for event in window:
            if types and event.type not in types:
                continue
            if page and (len(page) >= (limit or DEFAULT_LIMIT) or size + len(event.wire) > PAGE_BYTES):
                return page, _key(last) if last else ""
            if not page and len(event.wire) > PAGE_BYTES:
                return [], ""
            page.append(event.wire)
            size += len(event.wire)
            last = event
        return page, ""


def _place(window: list[LogEvent], key: str, newest: bool) -> int | None:
    """Where the event of `key` stands in the window."""
    moment = int(key.rpartition("/")[2] or 0) / 1e9
    sign = -1.0 if newest else 1.0
    at = bisect.bisect_left(window, sign * (moment - sign * 1e-3), key=lambda e: sign * e.time)
    near = range(at, len(window))
    found = next((n for n in near if _key(window[n]) == key or sign * (window[n].time - moment) > 1e-3), None)
    return found if found is not None and _key(window[found]) == key else None


def _key(event: LogEvent) -> str:
    return f"{event.id}/{round(event.time * 1_000_000) * 1000}"


def day_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
