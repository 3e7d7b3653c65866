"""A sink whose answers the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Partial, Reject, Retry, Split, Verdict


class ScriptedSink:
    """It keeps the ids of what was delivered."""

    name = "scripted"

    def __init__(self, events: int = 10, requests: int = 3) -> None:
        self.limits = Limits(events, 1_000_000, requests, 0.01)
        self.delivered: list[str] = []
        self.calls = 0
        self.hold: asyncio.Event | None = None
        self.poison: set[str] = set()
        self.crash: set[str] = set()
        self.failures = 0
        self.most = 0
        self.itemwise = False
        self.busy: dict[str, int] = {}

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        self.calls += 1
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            return Retry("scripted outage")
        if self.most and len(events) > self.most:
            return Split("scripted limit")
        if self.itemwise:
            return self._item_by_item(events)
        if self.poison & {event.id for event in events}:
            return Reject("scripted refusal")
        if self.crash & {event.id for event in events}:
            return Retry("scripted 500")
        self.delivered.extend(event.id for event in events)
        return Delivered()

    def _item_by_item(self, events: Sequence[Event]) -> Verdict:
        """Take all but the poison, and but what is `busy` for so many more calls."""
        retry = frozenset(place for place, event in enumerate(events) if self.busy.get(event.id, 0))
        rejected = {place: f"refused {event.id}" for place, event in enumerate(events) if event.id in self.poison}
        for place in retry:
            self.busy[events[place].id] -= 1
        self.delivered.extend(
            event.id for place, event in enumerate(events) if place not in retry and place not in rejected
        )
        return Partial(retry, rejected, "scripted congestion") if retry or rejected else Delivered()

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None
