"""Batches to deliver, and waiting for what comes of them, for every contract test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

from event_handler.event import Event
from event_handler.ports import Sink, Verdict

BOUND = 20.0  # seconds that a verdict may take on a loaded machine; below the time-out of the sinks that are not hasty


def events(count: int = 1, first: int = 0, session_id: str = "", size: int = 0) -> list[Event]:
    """Events `e<first>` and on, each with `size` bytes of padding."""
    bodies = {number: {"uid": f"e{number}", "pad": "p" * size} for number in range(first, first + count)}
    return [Event("print", f"e{n}", 1_790_000_000.5, n, orjson.dumps(body), session_id) for n, body in bodies.items()]


async def verdict(sink: Sink, batch: list[Event] | None = None) -> Verdict:
    async with asyncio.timeout(BOUND):
        return await sink.deliver(batch or events(sink.limits.events if sink.limits.events < 3 else 3))


async def eventually(condition: Callable[[], bool], within: float = BOUND) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)
