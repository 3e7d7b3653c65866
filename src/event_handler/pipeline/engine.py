"""The line itself: batches what the sources put in, delivers it, and remembers what the sink has answered for.

put() → select → batch → deliver (several at once) → acknowledge → remember. Bytes in flight are limited: a slow
collector slows the reading. Waiting, splitting, isolating a bad event and the dead letters are decided here, for every sink.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import structlog

from event_handler.errors import StateError
from event_handler.event import Event
from event_handler.pipeline.ledger import Announcement, Ledger, Segment
from event_handler.pipeline.select import Selector
from event_handler.sinks.base import Delivered, Reject, Retry, Sink, Split
from event_handler.state.store import Commit, DeadLetter, RecordingItem, Store

FIRST_WAIT = 0.25  # seconds before the first repeat, doubled each time
LONGEST_WAIT = 30.0  # seconds; a collector that is back is noticed within half a minute
LONGEST_WAIT_MISCONFIGURED = 60.0  # seconds; only a person can mend it
EVENT_OVERHEAD = 400  # bytes that an event costs in memory beside its body
REMIND_EVERY = 60.0  # seconds between lines while the collector does not take events
REFUSALS_IN_A_ROW = 20  # events; when so many are refused with none taken between, the configuration is wrong, not the events
END_GRACE = 30.0  # seconds that the end of a session waits for the upload event that usually follows

log = structlog.get_logger()


@dataclass(slots=True)
class _Entry:
    event: Event
    mark: bytes
    segment: Segment


@dataclass(slots=True)
class _Batch:
    born: float
    entries: list[_Entry] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    delivered: int = 0
    session_events: int = 0
    dead: int = 0
    retries: int = 0
    newest: float = 0.0


def backoff(attempt: int, longest: float) -> float:
    """Exponential with full jitter, in seconds, for the `attempt`-th failure (from 0)."""
    return random.uniform(0.0, min(longest, FIRST_WAIT * 2.0 ** min(attempt, 16)))  # noqa: S311 - jitter, no secret


class Pipeline:
    """One sink with its selector and its state. Use as an asynchronous context manager; put() may be called from many tasks."""

    def __init__(self, sink: Sink, store: Store, selector: Selector, max_in_flight_bytes: int) -> None:
        self._sink = sink
        self._store = store
        self._selector = selector
        self._max_bytes = max_in_flight_bytes
        self._bytes = 0
        self._room = asyncio.Condition()
        self._open: dict[str, _Batch] = {}
        self._ready: asyncio.Queue[_Batch] = asyncio.Queue()  # bounded by the bytes in flight
        self._acknowledged: list[_Entry] = []
        self._touched: dict[Ledger, None] = {}
        self._dead: list[DeadLetter] = []
        self._to_remember = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.counters = Counters()
        self.failing = ""
        self._warned = 0.0
        self._refused_in_a_row = 0

    @property
    def duplicates(self) -> int:
        return self._selector.duplicates

    async def __aenter__(self) -> Pipeline:
        work = [self._deliver_batches() for _ in range(self._sink.limits.requests)]
        self._tasks = [asyncio.create_task(w) for w in (*work, self._close_aged_batches(), self._remember_groups())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._remember()
        await self._sink.close()

    async def put(self, ledger: Ledger, wires: Sequence[bytes], position: str | None, session_id: str = "") -> None:
        """Take a run of undecoded events of one stream; `position` is remembered when they and all before them are delivered."""
        await asyncio.sleep(0)  # a fast source would otherwise never let the deliveries run
        chosen = self._selector.select(wires, session_id)
        segment = Segment(ledger, position, pending=len(chosen.events), announcements=chosen.announcements)
        ledger.add(segment)
        self._dead.extend(chosen.dead)
        for dead in chosen.dead:
            self._bury(dead)
        for number, (event, mark) in enumerate(chosen.events):
            size = len(event.body) + EVENT_OVERHEAD
            if self._bytes + size > self._max_bytes and self._bytes:
                try:
                    await self._wait_for_room(size)
                except asyncio.CancelledError:
                    self._selector.release(mark for _, mark in chosen.events[number:])
                    raise
            self._bytes += size
            self._append(_Entry(event, mark, segment), size)
        if not chosen.events:
            self._touched[ledger] = None
            self._to_remember.set()

    def skip(self, wires: Sequence[bytes]) -> None:
        """Count events as delivered that another program has delivered. Raises StateError when it cannot be remembered."""
        chosen = self._selector.select(wires)
        self._store.commit(Commit(ids=b"".join(mark for _, mark in chosen.events), dead_letters=chosen.dead))

    async def _wait_for_room(self, size: int) -> None:
        async with self._room:
            await self._room.wait_for(lambda: self._bytes + size <= self._max_bytes or not self._bytes)

    async def drain(self, ledger: Ledger) -> None:
        """Wait until everything of a stream has been delivered and remembered."""
        async with self._room:
            await self._room.wait_for(lambda: ledger.drained)

    async def drain_all(self) -> None:
        """Wait until everything that was put in has been delivered and remembered."""
        async with self._room:
            await self._room.wait_for(lambda: not self._bytes and not self._touched and not self._dead)

    def _append(self, entry: _Entry, size: int) -> None:
        limits = self._sink.limits
        lane = entry.event.session_id
        batch = self._open.get(lane)
        if batch is not None and batch.size + size > limits.bytes:
            del self._open[lane]
            self._ready.put_nowait(batch)
            batch = self._open.get(lane)
        if batch is None:
            batch = self._open[lane] = _Batch(monotonic())
        batch.entries.append(entry)
        batch.size += size
        if len(batch.entries) >= limits.events:
            del self._open[lane]
            self._ready.put_nowait(batch)

    async def _close_aged_batches(self) -> None:
        age = max(self._sink.limits.age, 0.01)
        while True:
            await asyncio.sleep(age / 2)
            now = monotonic()
            for lane, batch in list(self._open.items()):
                if now - batch.born >= age and self._open.get(lane) is batch:
                    del self._open[lane]
                    self._ready.put_nowait(batch)

    async def _deliver_batches(self) -> None:
        while True:
            batch = await self._ready.get()
            await self._deliver(batch.entries)

    async def _deliver(self, entries: list[_Entry]) -> None:
        attempt = 0
        while True:
            try:
                verdict = await self._sink.deliver([entry.event for entry in entries])
            except Exception as error:  # a fault of the sink's own code: nothing is known to be delivered, so keep and repeat
                verdict = Retry(f"the sink failed ({type(error).__name__}: {error})", misconfigured=True)
            if isinstance(verdict, Delivered):
                self._recovered()
                self._acknowledge(entries)
                return
            if isinstance(verdict, Retry):
                await self._wait(verdict, attempt)
                attempt += 1
                continue
            if len(entries) == 1 and self._refused_in_a_row < REFUSALS_IN_A_ROW:
                self._refused_in_a_row += 1
                self._reject(entries[0], verdict)
                return
            if len(entries) == 1:
                await self._wait(Retry(f"every event is refused: {verdict.reason}; check the format", misconfigured=True), attempt)
                attempt += 1
                continue
            middle = len(entries) // 2
            await self._deliver(entries[:middle])
            await self._deliver(entries[middle:])
            return

    async def _wait(self, verdict: Retry, attempt: int) -> None:
        longest = LONGEST_WAIT_MISCONFIGURED if verdict.misconfigured else LONGEST_WAIT
        wait = max(verdict.after, backoff(attempt, longest))
        self._warn(verdict, wait)
        self.counters.retries += 1
        await asyncio.sleep(wait)

    def _warn(self, verdict: Retry, wait: float) -> None:
        """Say what fails when it begins or changes, and every minute while it lasts."""
        now = monotonic()
        if verdict.reason != self.failing or now - self._warned >= REMIND_EVERY:
            self._warned = now
            say = log.error if verdict.misconfigured else log.warning
            say("delivery fails, will repeat until it works", sink=self._sink.name, reason=verdict.reason, wait_s=round(wait, 1))
            self.failing = verdict.reason

    def _recovered(self) -> None:
        self._refused_in_a_row = 0
        if self.failing:
            log.info("delivery works again", sink=self._sink.name)
            self.failing = ""

    def _reject(self, entry: _Entry, verdict: Reject | Split) -> None:
        event = entry.event
        letter = DeadLetter(self._sink.name, verdict.reason, event.type, event.id, event.session_id, event.body)
        self._dead.append(letter)
        self._bury(letter)
        self._acknowledge([entry], delivered=False)

    def _bury(self, letter: DeadLetter) -> None:
        self.counters.dead += 1
        log.error("event kept as dead letter", sink=letter.sink, type=letter.type, id=letter.id, reason=letter.reason)
        self._to_remember.set()

    def _acknowledge(self, entries: list[_Entry], delivered: bool = True) -> None:
        for entry in entries:
            entry.segment.pending -= 1
            self._touched[entry.segment.ledger] = None
            if delivered:
                if entry.event.session_id:
                    self.counters.session_events += 1
                else:
                    self.counters.delivered += 1
                    self.counters.newest = max(self.counters.newest, entry.event.time)
        self._acknowledged.extend(entries)
        self._to_remember.set()

    async def _remember_groups(self) -> None:
        attempt = 0
        while True:
            await self._to_remember.wait()
            self._to_remember.clear()
            released = sum(len(entry.event.body) + EVENT_OVERHEAD for entry in self._acknowledged)
            while True:
                try:
                    self._remember()
                    attempt = 0
                    break
                except StateError as error:
                    log.error("cannot remember what was delivered; reading pauses until it works", error=str(error))
                    attempt += 1
                    await asyncio.sleep(backoff(attempt, LONGEST_WAIT))
                    released = sum(len(entry.event.body) + EVENT_OVERHEAD for entry in self._acknowledged)
            async with self._room:
                self._bytes -= released
                self._room.notify_all()

    def _remember(self) -> None:
        """Commit everything acknowledged so far in one transaction; on StateError it stays acknowledged for the next try."""
        group = Commit(ids=b"".join(entry.mark for entry in self._acknowledged), dead_letters=self._dead)
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
        self._acknowledged, self._dead = [], []
        self._touched.clear()


def _recording(announcement: Announcement) -> RecordingItem:
    due = 0.0 if announcement.uploaded else announcement.time + END_GRACE  # at once, for a session that ended long ago
    return RecordingItem(announcement.session_id, announcement.time, announcement.uploaded, 0, due, 0)
