"""Cuts the stream of chosen events into batches that fit the sink: by count, by bytes, and by the time the first one
waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from zlib import crc32

import orjson

from event_handler.event import Event
from event_handler.pipeline.entry import Entry
from event_handler.ports import Limits

SESSION_PARTITIONS = (
    16  # partitions that the sessions of the audit log share where order is kept; one for each would make tiny batches
)


@dataclass(slots=True)
class Batch:
    """Entries of one partition in the order they were read.

    `born` and `closed` are the clock's times of the first entry and of handing it on, `size` the bytes of the bodies,
    `taken` those of the budget.
    """

    partition: str
    born: float
    closed: float = 0.0
    entries: list[Entry] = field(default_factory=list)
    size: int = 0
    taken: int = 0


class Batcher:
    """Collects entries; whole batches are taken from `ready`. The events of one recording share a batch with no others.

    Where the sink's limits say `ordered`, the batches of a partition are handed out one by one: the next one when
    `finished` was called for the one before. A batch takes at most `share` bytes of the budget, unless one event does.
    `clock` gives seconds.
    """

    def __init__(self, limits: Limits, share: int, clock: Callable[[], float] = monotonic) -> None:
        self._limits = limits
        self._share = share
        self._clock = clock
        self._open: dict[str, Batch] = {}  # by partition, the oldest first
        self._opened = asyncio.Event()
        self._busy: dict[str, deque[Batch]] = {}  # partitions with a batch handed out, and what waits behind it
        self.ready: asyncio.Queue[Batch] = asyncio.Queue()  # bounded by the bytes in flight

    def add(self, entry: Entry) -> None:
        partition, size = partition_of(entry.as_read, self._limits.ordered), entry.length
        batch = self._open.get(partition)
        if batch is not None and (batch.size + size > self._limits.bytes or batch.taken + entry.size > self._share):
            self._close(batch)
            batch = None
        if batch is None:
            batch = self._open[partition] = Batch(partition, self._clock())
            self._opened.set()
        batch.entries.append(entry)
        batch.size += size
        batch.taken += entry.size
        if len(batch.entries) >= self._limits.events:
            self._close(batch)

    @property
    def idle(self) -> bool:
        """Whether nothing waits here to be sent."""
        return not self._open and self.ready.empty() and not any(self._busy.values())

    def _close(self, batch: Batch) -> None:
        del self._open[batch.partition]
        batch.closed = self._clock()
        if not self._limits.ordered:
            self.ready.put_nowait(batch)
        elif batch.partition in self._busy:
            self._busy[batch.partition].append(batch)
        else:
            self._busy[batch.partition] = deque()
            self.ready.put_nowait(batch)

    def finished(self, batch: Batch) -> None:
        """There is an answer for every entry of the batch: the next one of its partition may go."""
        if not self._limits.ordered:
            return
        if waiting := self._busy[batch.partition]:
            self.ready.put_nowait(waiting.popleft())
        else:
            del self._busy[batch.partition]

    def close_due(self) -> float:
        """Hand on the batches that have waited for more events long enough.

        Return the seconds until the next one is due.
        """
        now = self._clock()
        for batch in list(self._open.values()):
            left = batch.born + self._limits.age - now
            if left > 0.0:
                return left
            self._close(batch)
        return self._limits.age

    def close_all(self) -> None:
        """Hand on every batch: nothing comes that it could wait for."""
        for batch in list(self._open.values()):
            self._close(batch)

    async def close_aged(self) -> None:
        """Hand on batches as they become due, until cancelled; sleeps while none is open."""
        while True:
            self._opened.clear()
            if not self._open:
                await self._opened.wait()
            await asyncio.sleep(self.close_due())


def partition_of(event: Event, ordered: bool) -> str:
    """Events of one partition share batches: those of one recording, and all others, which order divides by session.

    The events of a session (`sid`) are in one partition, those of no session in another.
    """
    if event.session_id or not ordered:
        return event.session_id
    session = orjson.loads(event.body).get("sid")
    return f"#{crc32(session.encode()) % SESSION_PARTITIONS}" if session and isinstance(session, str) else ""
