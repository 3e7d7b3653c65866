"""A cluster client whose answers a test decides, for what a simulated server over TLS cannot be told to do at one exact moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from event_handler.errors import RpcError
from event_handler.teleport.client import Client


class ScriptedClient(Client):
    """Has `chunks` (day → names), `exports` (chunk → events) and `recordings` (session → events).

    `breaks` holds, by chunk or session, the codes with which the next streams end after all their events; a stream of `stuck` never
    ends.
    """

    def __init__(self) -> None:
        self.days: dict[str, list[str]] = {}
        self.exports: dict[str, list[bytes]] = {}
        self.recordings: dict[str, list[bytes]] = {}
        self.breaks: dict[str, list[str]] = {}
        self.stuck: set[str] = set()
        self.listed: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.open = 0
        self.most_open = 0

    async def chunks(self, day: float) -> AsyncIterator[str]:
        name = datetime.fromtimestamp(day, UTC).date().isoformat()
        self.listed.append(name)
        await asyncio.sleep(0)
        for chunk in self.days.get(name, []):
            yield chunk

    async def export(self, day: float, chunk: str, cursor: str) -> AsyncIterator[tuple[list[bytes], str]]:
        self.asked.append((chunk, cursor))
        begin = int(cursor.partition(":")[2] or 0)
        events = self.exports[chunk]
        if events[begin:]:
            yield events[begin:], f"a1:{len(events)}"
        await self._end(chunk)

    async def recording(self, session_id: str, index: int) -> AsyncIterator[list[bytes]]:
        self.asked.append((session_id, str(index)))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(0.01)
            events = self.recordings.get(session_id)
            if events is None:
                raise RpcError("StreamUnstructuredSessionEvents", "NOT_FOUND", "scripted absence")
            yield events[index:]
            await self._end(session_id)
        finally:
            self.open -= 1

    async def _end(self, name: str) -> None:
        if name in self.stuck:
            await asyncio.Event().wait()
        if self.breaks.get(name):
            raise RpcError("Scripted", self.breaks[name].pop(0), "scripted break")
