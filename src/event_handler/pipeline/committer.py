"""Remembers what the sink has answered for: one transaction for each group of acknowledged events."""

from __future__ import annotations

import asyncio
from time import time

import structlog

from event_handler.backoff import backoff
from event_handler.errors import StateError
from event_handler.pipeline.budget import Budget
from event_handler.pipeline.entry import Entry, dedup_keys, finish, total_size
from event_handler.pipeline.tracker import CheckpointTracker, PendingRecording, Span
from event_handler.ports import Commit, DeadLetter, RecordingItem, StateStore

END_GRACE = 30.0  # seconds that the end of a session waits for the upload event that usually follows
LONGEST_COMMIT = 10.0  # seconds that a commit may hold up the end, on a disk that hangs
LONGEST_COMMIT_WAIT = 30.0  # seconds between tries to write; a disk that has room again is noticed within half a minute

log = structlog.get_logger()


class Committer:
    """Collects what happened and commits it; then the bytes of what was delivered go back to the budget."""

    def __init__(self, store: StateStore, budget: Budget) -> None:
        self._store = store
        self._budget = budget
        self._acknowledged: list[Entry] = []
        self._touched: dict[CheckpointTracker, None] = {}
        self._dead: list[tuple[DeadLetter, bytes]] = []
        self._news = asyncio.Event()
        self._writing: asyncio.Task[int] | None = None

    @property
    def empty(self) -> bool:
        """Nothing is in flight and nothing waits to be remembered."""
        return not self._budget.used and not self._touched and not self._dead and self._writing is None

    def acknowledge(self, entries: list[Entry]) -> None:
        """The sink has answered for these entries, or they are dead letters."""
        self._touched |= finish(entries)
        self._acknowledged.extend(entries)
        self._news.set()

    def touch(self, tracker: CheckpointTracker) -> None:
        """A span without events was added: its checkpoint may have been reached already."""
        self._touched[tracker.root] = None
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
                await self.commit()
                attempt = 0
            except StateError as error:
                log.error("cannot remember what was delivered; reading pauses until it works", error=str(error))
                attempt += 1
                self._news.set()
                await asyncio.sleep(backoff(attempt, LONGEST_COMMIT_WAIT))

    async def commit(self) -> None:
        """Commit everything acknowledged so far. On StateError it stays acknowledged for the next try.

        Who is cancelled meanwhile is so when it is known whether the state has it: nothing is written twice.
        """
        self._writing = writing = asyncio.create_task(self._commit())
        try:
            await asyncio.wait([writing])
        except asyncio.CancelledError:
            done, _ = await asyncio.wait([writing], timeout=LONGEST_COMMIT)
            for one in done:
                one.exception()  # what could not be written is read again; nobody else asks
            raise
        finally:
            self._writing = None
        await self._budget.give_back(writing.result())

    async def _commit(self) -> int:
        """Return the bytes of what needs not be kept any longer."""
        entries, letters, touched = self._acknowledged, self._dead, self._touched
        self._acknowledged, self._touched = [], {}
        group = Commit(ids=b"".join([*dedup_keys(entries), *(key for _, key in letters)]))
        group.dead_letters = [letter for letter, _ in letters]
        finished: dict[CheckpointTracker, list[Span]] = {}
        for tracker in touched:
            checkpoint, spans = tracker.finished()
            finished[tracker] = spans
            for span in spans:
                group.recordings.extend(map(_recording, span.recordings))
            if checkpoint is not None:
                group.checkpoints.append(checkpoint)
        try:
            await self._store.commit(group)
        except BaseException:
            self._acknowledged, self._touched = entries + self._acknowledged, touched | self._touched
            raise
        del letters[: len(group.dead_letters)]
        for tracker, spans in finished.items():
            tracker.advance(spans)
        return total_size(entries)


def _recording(recording: PendingRecording) -> RecordingItem:
    announced = min(recording.time, time())  # whatever clock the event has
    due = 0.0 if recording.uploaded else announced + END_GRACE  # at once, for a session that ended long ago
    return RecordingItem(recording.session_id, announced, recording.uploaded, 0, due, 0)
