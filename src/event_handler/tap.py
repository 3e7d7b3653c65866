"""Lets people look at events as they are delivered, without holding up one: who looks too slowly misses some."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from event_handler.event import Event

MOST_KEPT = 200  # events that wait for one viewer, more than a page shows; older ones are dropped and counted


class Viewer:
    """What one viewer has not seen yet; `missed` counts what came too fast for it."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST_KEPT)
        self._news = asyncio.Event()
        self.missed = 0

    def add(self, events: Sequence[Event]) -> None:
        self.missed += max(0, len(self._events) + len(events) - MOST_KEPT)
        self._events.extend(events[-MOST_KEPT:])
        self._news.set()

    async def take(self) -> list[Event]:
        """The events since the last call, oldest first; waits for one."""
        await self._news.wait()
        self._news.clear()
        taken = list(self._events)
        self._events.clear()
        return taken


class Tap:
    """Where a pipeline shows what it has delivered. It costs nothing while nobody looks."""

    def __init__(self) -> None:
        self.viewers: set[Viewer] = set()

    def show(self, events: Sequence[Event]) -> None:
        for viewer in self.viewers:
            viewer.add(events)

    @contextmanager
    def viewing(self) -> Iterator[Viewer]:
        viewer = Viewer()
        self.viewers.add(viewer)
        try:
            yield viewer
        finally:
            self.viewers.discard(viewer)
