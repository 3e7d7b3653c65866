"""Remembers what the sink has answered for: one transaction for each group of acknowledged events."""

from __future__ import annotations

import asyncio
from time import time

import structlog

from event_handler.errors import StateError
from event_handler.pipeline.batch import Entry
from event_handler.pipeline.delivery import LONGEST_WAIT, backoff
from event_handler.pipeline.tracker import CheckpointTracker, PendingRecording
from event_handler.ports import Commit, DeadLetter, RecordingItem
from event_handler.state.store import Store

END_GRACE = 30.0  # seconds that the end of a session waits for the upload event that usually follows

log = structlog.get_logger()


class Committer:
    """Collects what happened and commits it. `room` is notified after each commit; `bytes` are in flight until then."""

    def __init__(self, store: Store, room: asyncio.Condition) -> None:
        self._store = store
        self._room = room
        self._acknowledged: list[Entry] = []
        self._touched: dict[CheckpointTracker, None] = {}
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
            entry.span.pending -= 1
            self._touched[entry.span.tracker] = None
        self._acknowledged.extend(entries)
        self._news.set()

    def touch(self, tracker: CheckpointTracker) -> None:
        """A segment without events was added: its position may have been reached already."""
        self._touched[tracker] = None
        self._news.set()

    def dead_letter(self, letter: DeadLetter, dedup_key: bytes) -> None:
        self._dead.append((letter, dedup_key))
        self._news.set()

    @property
    def unwritten_dead_letter_bytes(self) -> int:
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
        """Commit everything acknowledged so far and return its bytes.

        On StateError it stays acknowledged for the next try.
        """
        dedup_keys = [*(entry.dedup_key for entry in self._acknowledged), *(dedup_key for _, dedup_key in self._dead)]
        group = Commit(ids=b"".join(dedup_keys), dead_letters=[letter for letter, _ in self._dead])
        for tracker in self._touched:
            position, finished = tracker.peek()
            for span in finished:
                group.recordings.extend(_recording(a) for a in span.recordings)
            if position is None:
                continue
            kind, _, name = tracker.stream.partition("/")
            if kind == "recording":
                group.indexes[name] = int(position)
            else:
                group.positions[tracker.stream] = position
        self._store.commit(group)
        for tracker in self._touched:
            tracker.advance()
        released = sum(entry.size for entry in self._acknowledged)
        self._acknowledged, self._dead = [], []
        self._touched.clear()
        return released


def _recording(recording: PendingRecording) -> RecordingItem:
    announced = min(recording.time, time())  # whatever clock the event has
    due = 0.0 if recording.uploaded else announced + END_GRACE  # at once, for a session that ended long ago
    return RecordingItem(recording.session_id, announced, recording.uploaded, 0, due, 0)
