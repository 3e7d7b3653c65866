"""A cluster client whose answers a test decides, for what a simulated server over TLS cannot be told to do at one
exact moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from time import time

from event_handler.errors import RpcError
from event_handler.teleport.rpc.client import Client, Cluster
from event_handler.teleport.wire import messages
from event_handler.teleport.wire.decode import event_time
from tests.support.events import wire

YEAR = 366 * 86_400.0  # seconds; who looks so far ahead asks how far the log is


def wire_at(uid: str, seconds: float, kind: str = "user.login") -> bytes:
    """An event of that time (seconds since the epoch)."""
    return messages.write_time(3, seconds) + wire(uid, kind)


class ScriptedClient(Client):
    """Has `days` (day → names of chunks), `exports` (chunk → events), `log` (what search finds) and `recordings`
    (session → events).

    `breaks` holds, by day, chunk, session or "search", the codes with which the next calls end after all their events;
    a stream of `stuck` never ends. A chunk that is not in `exports` is not found. Who asks for the newest event finds
    one `newest` seconds from now, None = nothing at all.
    """

    @property
    def route(self) -> str:
        return "scripted"

    @property
    def address(self) -> str:
        return "scripted.test:3025"

    def __init__(self) -> None:
        self.bulk = True
        self.days: dict[str, list[str]] = {}
        self.exports: dict[str, list[bytes]] = {}
        self.log: list[bytes] = []
        self.recordings: dict[str, list[bytes]] = {}
        self.breaks: dict[str, list[str]] = {}
        self.stuck: set[str] = set()
        self.listed: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.searched: list[tuple[float, float]] = []
        self.newest: float | None = 0.0
        self.pinged = 0
        self.open = 0
        self.most_open = 0

    def close(self) -> None:
        return None

    async def aclose(self) -> None:
        self.close()

    def move_to(self, fresh: Client) -> None:
        return None

    async def ping(self) -> Cluster:
        self.pinged += 1
        await self._end("ping")
        return Cluster("scripted.test", "19.0.0")

    async def has_bulk_export(self, probe_time: float) -> bool:
        return self.bulk

    async def chunks(self, day: float) -> AsyncIterator[str]:
        name = datetime.fromtimestamp(day, UTC).date().isoformat()
        self.listed.append(name)
        await asyncio.sleep(0)
        for chunk in self.days.get(name, []):
            yield chunk
        await self._end(name)

    async def export(self, day: float, chunk: str, cursor: str) -> AsyncIterator[tuple[list[bytes], str]]:
        self.asked.append((chunk, cursor))
        begin = int(cursor.partition(":")[2] or 0)
        await asyncio.sleep(0)
        if chunk not in self.exports:
            raise RpcError("ExportUnstructuredEvents", "NOT_FOUND", "scripted absence")
        events = self.exports[chunk]
        if events[begin:]:
            yield events[begin:], f"a1:{len(events)}"
        await self._end(chunk)

    async def search(
        self,
        since: float,
        until: float,
        *,
        limit: int,
        key: str = "",
        types: tuple[str, ...] = (),
        order: int = messages.OLDEST_FIRST,
    ) -> tuple[list[bytes], str]:
        if limit == 1 and order == messages.NEWEST_FIRST and until > time() + YEAR:
            await self._end("newest")
            return [] if self.newest is None else [wire_at("newest", time() + self.newest)], ""
        self.searched.append((since, until))
        if since > until:
            raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: from after to")
        await self._end("search")
        return [event for event in self.log if since <= event_time(event) <= until][:limit], ""

    async def recording(self, session_id: str, index: int) -> AsyncIterator[list[bytes]]:
        self.asked.append((session_id, str(index)))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(0.01)
            events = self.recordings.get(session_id)
            if events is None:
                raise RpcError("StreamUnstructuredSessionEvents", "NOT_FOUND", "scripted absence")
            if events[index:]:
                yield events[index:]
            await self._end(session_id)
        finally:
            self.open -= 1

    async def _end(self, name: str) -> None:
        if name in self.stuck:
            await asyncio.Event().wait()
        if self.breaks.get(name):
            raise RpcError("Scripted", self.breaks[name].pop(0), "scripted break")
