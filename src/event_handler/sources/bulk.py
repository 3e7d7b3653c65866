"""Reads by bulk export: the days from the start time on, chunk by chunk, several chunks at once.

A chunk is listed only when it is complete and never changes, but chunks of a past day can appear days later, so the
newest days stay polled. Positions: `bulk/<day>/<chunk>` holds the cursor, or DONE; the fact `bulk_from` is the first
day still polled.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from time import time

import structlog

from event_handler.errors import ConnectError, RpcError
from event_handler.pipeline.engine import Pipeline, backoff
from event_handler.pipeline.ledger import Ledger
from event_handler.state.store import Store
from event_handler.teleport.client import Client

DONE = "done"  # no server cursor looks like that: Athena's are `a1:<number>`
RUN = 200  # events put into the pipeline at a time: large enough to spread the cost of a hand-over
CHUNKS_AT_ONCE = 4  # a server downloads each chunk whole; 3 to 8 is what its documentation bears
LONGEST_WAIT = 60.0  # seconds between tries of a chunk that fails
OLD_DAYS_EVERY = 6  # polls; days before yesterday are listed only at every sixth

log = structlog.get_logger()


class BulkSource:
    """Follows the bulk export of one cluster until it is cancelled, or until all is read with `until_caught_up`."""

    def __init__(
        self,
        client: Client,
        pipeline: Pipeline,
        store: Store,
        *,
        start: float,
        late_days: int,
        poll: float,
        until_caught_up: bool,
    ) -> None:
        self._client = client
        self._pipeline = pipeline
        self._store = store
        self._late_days = late_days
        self._poll = poll
        self._until_caught_up = until_caught_up
        self._slots = asyncio.Semaphore(CHUNKS_AT_ONCE)
        saved = store.fact("bulk_from")
        self._first = date.fromisoformat(saved) if saved else day_of(start)
        self._known: set[str] = set()
        self._unfinished: Counter[date] = Counter()

    async def run(self) -> None:
        """Raises RpcError or ConnectError when listing fails; chunks retry by themselves. Resumable at any time."""
        cursors = self._store.positions("bulk/")
        self._known = {stream for stream, cursor in cursors.items() if cursor == DONE}
        round_number = 0
        async with asyncio.TaskGroup() as chunks:
            while True:
                found = 0
                for day in self._days(round_number):
                    async for chunk in self._client.chunks(_noon(day)):
                        stream = f"bulk/{day}/{chunk}"
                        if stream not in self._known:
                            found += 1
                            await self._slots.acquire()
                            self._known.add(stream)
                            self._unfinished[day] += 1
                            chunks.create_task(self._export(day, chunk, cursors.get(stream, "")))
                    self._close_if_old(day)
                busy = self._unfinished.total() > 0
                if self._until_caught_up and not found and not busy:
                    return
                round_number += 1
                await asyncio.sleep(0.2 if self._until_caught_up and busy else 0.5 if found else self._poll)

    def _days(self, round_number: int) -> list[date]:
        today = day_of(time())
        days = [self._first + timedelta(days=n) for n in range((today - self._first).days + 1)]
        if round_number % OLD_DAYS_EVERY and not self._until_caught_up:
            return days[-2:]
        return days

    def _close_if_old(self, day: date) -> None:
        """Stop polling the first day once it is older than the late window and all its chunks are delivered."""
        if day != self._first or day >= day_of(time()) - timedelta(days=self._late_days) or self._unfinished[day]:
            return
        self._first += timedelta(days=1)
        self._store.remember("bulk_from", str(self._first))
        self._store.forget(f"bulk/{day}/")
        self._known = {stream for stream in self._known if not stream.startswith(f"bulk/{day}/")}

    async def _export(self, day: date, chunk: str, cursor: str) -> None:
        ledger = Ledger(f"bulk/{day}/{chunk}")
        attempt = 0
        try:
            while True:
                try:
                    cursor = await self._read(ledger, day, chunk, cursor)
                    await self._pipeline.put(ledger, [], DONE)
                    break
                except _Interrupted as stopped:
                    if stopped.cursor != cursor:
                        attempt = 0
                    cursor = stopped.cursor
                    attempt += 1
                    wait = backoff(attempt, LONGEST_WAIT)
                    log.warning("chunk interrupted, will go on where it was", day=str(day), chunk=chunk, error=str(stopped.error))
                    if stopped.error.code == "INVALID_ARGUMENT" and attempt > 3:
                        cursor = ""  # the cursor itself is refused: read the chunk anew, duplicates are dropped by id
                    await asyncio.sleep(wait)
        finally:
            self._slots.release()
        await self._pipeline.drain(ledger)
        self._unfinished[day] -= 1

    async def _read(self, ledger: Ledger, day: date, chunk: str, cursor: str) -> str:
        run: list[bytes] = []
        try:
            async for wire, after in self._client.export(_noon(day), chunk, cursor):
                run.append(wire)
                cursor = after
                if len(run) >= RUN:
                    full, run = run, []
                    await self._pipeline.put(ledger, full, cursor)
        except (RpcError, ConnectError) as error:
            if run:
                await self._pipeline.put(ledger, run, cursor)
            wrapped = error if isinstance(error, RpcError) else RpcError("ExportUnstructuredEvents", "UNAVAILABLE", str(error))
            raise _Interrupted(cursor, wrapped) from None
        if run:
            await self._pipeline.put(ledger, run, cursor)
        return cursor


class _Interrupted(Exception):
    def __init__(self, cursor: str, error: RpcError) -> None:
        super().__init__(str(error))
        self.cursor = cursor
        self.error = error


def unfinished_since(store: Store) -> float | None:
    """The start of the first day that is not known to be delivered whole, None before the first listing.

    Without unfinished chunks that is yesterday: chunks appear minutes after their events.
    """
    known = store.positions("bulk/")
    if not known:
        return None
    days = [date.fromisoformat(stream.split("/")[1]) for stream, cursor in known.items() if cursor != DONE]
    newest = max(date.fromisoformat(stream.split("/")[1]) for stream in known)
    first = min([*days, newest - timedelta(days=1)])
    return datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()


def day_of(seconds: float) -> date:
    """The UTC day of a time in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).date()


def _noon(day: date) -> float:
    """A time of `day`: only the UTC date counts for the server."""
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
