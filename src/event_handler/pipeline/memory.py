"""Remembers what the sink has answered for: one transaction for each group of acknowledged events."""

from __future__ import annotations

import asyncio
from time import time

import structlog

from event_handler.errors import StateError
from event_handler.pipeline.batches import Entry
from event_handler.pipeline.delivery import LONGEST_WAIT, backoff
from event_handler.pipeline.ledger import Announcement, Ledger
from event_handler.state.store import Commit, DeadLetter, RecordingItem, Store

END_GRACE = 30.0  # seconds that the end of a session waits for the upload event that usually follows

log = structlog.get_logger()


class Memory:
    """Collects what happened and commits it. `room` is notified after each commit; `bytes` are in flight until then."""

    def __init__(self, store: Store, room: asyncio.Condition) -> None:
        self._store = store
        self._room = room
        self._acknowledged: list[Entry] = []
        self._touched: dict[Ledger, None] = {}
        self._dead: list[tuple[DeadLetter, bytes]] = []
        self._news = asyncio.Event()
        self.bytes = 0

    @property
    def empty(self) -> bool:
        """Nothing is in flight and nothing waits to be remembered."""
        return not self.bytes and not self._touched and not self._dead

    def acknowledge(self, entries: list[Entry]) -> None:
        """The sink has answered for these entries, or they are dead letters."""
        for entry in entries:
            entry.segment.pending -= 1
            self._touched[entry.segment.ledger] = None
        self._acknowledged.extend(entries)
        self._news.set()

    def touch(self, ledger: Ledger) -> None:
        """A segment without events was added: its position may have been reached already."""
        self._touched[ledger] = None
        self._news.set()

    def bury(self, letter: DeadLetter, mark: bytes) -> None:
        self._dead.append((letter, mark))
        self._news.set()

    @property
    def unwritten_letter_bytes(self) -> int:
        return sum(len(letter.body) for letter, _ in self._dead)

    async def run(self) -> None:
        """Commit group after group until cancelled. A full disk stops the reading, for the bytes stay in flight."""
        attempt = 0
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._commit()
                attempt = 0
            except StateError as error:
                log.error("cannot remember what was delivered; reading pauses until it works", error=str(error))
                attempt += 1
                self._news.set()
                await asyncio.sleep(backoff(attempt, LONGEST_WAIT))

    async def _commit(self) -> None:
        released = self.commit()
        async with self._room:
            self.bytes -= released
            self._room.notify_all()

    def commit(self) -> int:
        """Commit everything acknowledged so far and return its bytes; on StateError it stays acknowledged for the next try."""
        marks = [*(entry.mark for entry in self._acknowledged), *(mark for _, mark in self._dead)]
        group = Commit(ids=b"".join(marks), dead_letters=[letter for letter, _ in self._dead])
        for ledger in self._touched:
            position, finished = ledger.peek()
            for segment in finished:
                group.recordings.extend(_recording(a) for a in segment.announcements)
            if position is None:
                continue
            kind, _, name = ledger.stream.partition("/")
            if kind == "recording":
                group.indexes[name] = int(position)
            else:
                group.positions[ledger.stream] = position
        self._store.commit(group)
        for ledger in self._touched:
            ledger.advance()
        released = sum(entry.size for entry in self._acknowledged)
        self._acknowledged, self._dead = [], []
        self._touched.clear()
        return released


def _recording(announcement: Announcement) -> RecordingItem:
    announced = min(announcement.time, time())  # whatever clock the event has
    due = 0.0 if announcement.uploaded else announced + END_GRACE  # at once, for a session that ended long ago
    return RecordingItem(announcement.session_id, announced, announcement.uploaded, 0, due, 0)
