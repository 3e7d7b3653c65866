"""Cuts the stream of chosen events into batches that fit the sink: by count, by bytes, and by the time the first one waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic

from event_handler.event import Event
from event_handler.pipeline.ledger import Segment
from event_handler.sinks.base import Limits

EVENT_OVERHEAD = 400  # bytes that an event costs in memory beside its body


@dataclass(slots=True)
class Entry:
    """An event on its way, with the fingerprint of its id and the segment that waits for it."""

    event: Event
    mark: bytes
    segment: Segment

    @property
    def size(self) -> int:
        """Bytes that it takes while it is in flight."""
        return len(self.event.body) + EVENT_OVERHEAD


@dataclass(slots=True)
class _Batch:
    born: float
    entries: list[Entry] = field(default_factory=list)
    size: int = 0


class Batcher:
    """Collects entries; whole batches are taken from `ready`. The events of one recording share a batch with no others."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[str, _Batch] = {}
        self._opened = asyncio.Event()
        self.ready: asyncio.Queue[list[Entry]] = asyncio.Queue()  # bounded by the bytes in flight

    def add(self, entry: Entry) -> None:
        lane, size = entry.event.session_id, len(entry.event.body)
        batch = self._open.get(lane)
        if batch is not None and batch.size + size > self._limits.bytes:
            self._close(lane)
            batch = None
        if batch is None:
            batch = self._open[lane] = _Batch(monotonic())
            self._opened.set()
        batch.entries.append(entry)
        batch.size += size
        if len(batch.entries) >= self._limits.events:
            self._close(lane)

    def _close(self, lane: str) -> None:
        self.ready.put_nowait(self._open.pop(lane).entries)

    async def close_aged(self) -> None:
        """Hand on batches that have waited for more events long enough; runs until cancelled."""
        age = max(self._limits.age, 0.01)
        while True:
            self._opened.clear()
            if not self._open:
                await self._opened.wait()
            await asyncio.sleep(age / 2)
            now = monotonic()
            for lane in [lane for lane, batch in self._open.items() if now - batch.born >= age]:
                self._close(lane)
