"""The pipeline: select → batch → deliver (several at once) → acknowledge → remember, with a limit on the bytes in
flight.

A slow collector slows the reading, and nothing in the process grows without bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import structlog

from event_handler.checkpoint import Checkpoint, Chunk, Recording
from event_handler.errors import StateError, TransformError
from event_handler.event import Event, RawEvent
from event_handler.pipeline.batch import Batcher
from event_handler.pipeline.budget import Budget
from event_handler.pipeline.committer import Committer
from event_handler.pipeline.delivery import Delivery
from event_handler.pipeline.entry import Entry, newest, total_length, total_size
from event_handler.pipeline.outage import REMIND_EVERY
from event_handler.pipeline.pauses import RETRY, RetryPolicy
from event_handler.pipeline.select import Selection, Selector, dead_letter_key
from event_handler.pipeline.tracker import CheckpointTracker, Span
from event_handler.pipeline.transforms.chain import Chain
from event_handler.ports import Commit, DeadLetter, Sink, StateStore
from event_handler.redact import credentials
from event_handler.report import Counters, Load
from event_handler.tap import Tap

MAX_DEAD_LETTER_BYTES = 1024 * 1024 * 1024  # bytes; thousands of the largest events, and a disk usually has them
NO_TRANSFORMS = Chain()
SWEEP_SPANS = 100  # runs of events after which those that are delivered are looked for at least
LOOK_FOR_ROOM_EVERY = 5.0  # seconds; the user may drop letters with another process

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """`requests` in flight at most, `bytes` read and not yet remembered, `dead_letter_bytes` kept before reading
    stops.
    """

    requests: int
    bytes: int
    dead_letter_bytes: int = MAX_DEAD_LETTER_BYTES


@dataclass(slots=True)
class Taken:
    """A run that was selected, and what of it is still to be handed on: entries, the first of them last, and dead
    letters. `new` is how many of its events were not read before.
    """

    span: Span
    left: list[Entry]
    dead: list[tuple[DeadLetter, bytes]]
    new: int


class Pipeline:
    """One pipeline into a sink, which stays open. A Consumer, whose put() may be called from many tasks.

    Use as an asynchronous context manager.

    A fault of our own code in one of its tasks cancels whoever uses it and is raised at the end of the block, in a
    group.
    """

    def __init__(
        self,
        sink: Sink,
        store: StateStore,
        selector: Selector,
        limits: PipelineLimits,
        chain: Chain = NO_TRANSFORMS,
        policy: RetryPolicy = RETRY,
        counters: Counters | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.counters = counters or Counters()
        self._tap = tap
        self._chain = chain
        self._sink = sink
        self._store = store
        self._selector = selector
        self._limits = limits
        self._budget = Budget(limits.bytes * sink.limits.room)
        self._committer = Committer(store, self._budget)
        # One batch goes out while the next is read, however large the sink would like them.
        self._batcher = Batcher(sink.limits, self._budget.limit // 2)
        self._delivery = Delivery(sink, limits.requests, self._delivered, self._refused, self.counters, policy)
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._full_logged = 0.0
        self._undelivered: dict[Span, float] = {}  # with the time of its first event; finished ones are swept out
        self._sweep_at = SWEEP_SPANS

    @property
    def ordered(self) -> bool:
        """Whether the sink gets the events of a session in the order in which they are put in."""
        return self._sink.limits.ordered

    @property
    def failing(self) -> str:
        """Why deliveries fail at the moment, "" while they work."""
        return self._delivery.failing

    @property
    def failing_since(self) -> float | None:
        """Since when deliveries fail, in seconds since the epoch."""
        return self._delivery.failing_since

    @property
    def next_step(self) -> str:
        """What to do about it, "" where the reason says all."""
        return self._delivery.next_step

    @property
    def load(self) -> Load:
        """What is on its way now."""
        self._sweep()
        return Load(
            self._delivery.in_flight,
            self._delivery.requests_allowed,
            self._budget.used,
            self._budget.limit,
            min(self._undelivered.values(), default=None),
        )

    def _sweep(self) -> None:
        self._undelivered = {span: time for span, time in self._undelivered.items() if span.pending}
        self._sweep_at = 2 * len(self._undelivered) + SWEEP_SPANS

    def nothing_follows(self, so: bool) -> None:
        """Say whether only the delivery of what was put in is waited for, so that nothing else will show what the
        sink takes.
        """
        self._delivery.ending = so

    async def __aenter__(self) -> Pipeline:
        await self._group.__aenter__()
        work = (self._delivery.run(self._batcher), self._batcher.close_aged(), self._committer.run())
        self._tasks = [self._group.create_task(w) for w in work]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(None, None, None)  # an error of the block is raised as it is, not in a group
        finally:
            await self._committer.commit()

    async def track(self, of: Chunk | Recording | None = None) -> CheckpointTracker:
        """A tracker for one stream; whatever it is of, this sink wants it."""
        return CheckpointTracker()

    async def put(self, tracker: CheckpointTracker, events: Sequence[RawEvent], checkpoint: Checkpoint | None) -> int:
        """Take a run of events of one stream and return how many of them were not read before.

        `checkpoint` is remembered when they and all before them are delivered.
        """
        await asyncio.sleep(0)  # a fast source would otherwise never let the deliveries run
        taken = self.take(tracker, events, checkpoint)
        if not self.offer(taken):
            await self.hand_on(taken)
        return taken.new

    def take(self, tracker: CheckpointTracker, events: Sequence[RawEvent], checkpoint: Checkpoint | None) -> Taken:
        """Select and transform a run of one stream. It is handed on by `offer`, and `hand_on` where that is not all."""
        chosen = self._selector.select(events)
        counters = self.counters
        counters.read += len(events)
        counters.filtered += chosen.filtered
        counters.duplicates += chosen.duplicates
        span = Span(tracker, checkpoint, recordings=chosen.recordings)
        dead = [(letter, dead_letter_key(letter)) for letter in chosen.dead]
        entries = self._entries(chosen, span, dead)
        span.pending = len(entries) + len(dead)
        tracker.add(span)
        if not span.pending:
            self._committer.touch(tracker)
        elif entries:
            self._undelivered[span] = entries[0].event.time
            if len(self._undelivered) > self._sweep_at:
                self._sweep()
        entries.reverse()
        return Taken(span, entries, dead, chosen.new)

    def offer(self, taken: Taken) -> bool:
        """Hand on as much as there is room for now, and return whether that was all."""
        left = taken.left
        if taken.dead:
            return False
        size = total_size(left)
        if size <= self._budget.limit and self._budget.try_take(size):  # all at once, for most often there is room
            for entry in reversed(left):
                self._batcher.add(entry)
            left.clear()
        while left:
            if not self._budget.try_take(left[-1].size):
                return False
            self._batcher.add(left.pop())
        return True

    async def hand_on(self, taken: Taken) -> None:
        """Hand on what is left as there is room. Who is cancelled has given up the rest: it is read again later."""
        left, dead = taken.left, taken.dead
        try:
            while dead:
                await self._dead_letter(*dead[0])
                taken.span.finish(1)
                del dead[0]
            while not self.offer(taken):
                if not self._delivery.in_flight and self._batcher.ready.empty():
                    self._batcher.close_all()  # the room is taken by what waits for more
                await self._budget.take(left[-1].size)
                self._batcher.add(left.pop())
        except BaseException:
            self.give_up(taken)
            raise
        self._committer.touch(taken.span.tracker)

    def give_up(self, taken: Taken) -> None:
        """Do not hand on the rest. What was goes its way; the checkpoint stays before the span, and its tracker can
        still become empty.
        """
        self._selector.release(entry.dedup_key for entry in taken.left)
        self._selector.release(dedup_key for _, dedup_key in taken.dead)
        taken.span.checkpoint = None
        taken.span.finish(len(taken.left) + len(taken.dead))
        self._committer.touch(taken.span.tracker)

    def _entries(self, chosen: Selection, span: Span, dead: list[tuple[DeadLetter, bytes]]) -> list[Entry]:
        """What the transforms make of the chosen events. One that cannot be changed is added to `dead`."""
        if not self._chain:
            return [Entry(event, dedup_key, span) for event, dedup_key in chosen.events]
        entries = []
        for event, dedup_key in chosen.events:
            try:
                changed = self._chain.apply(event)
            except TransformError as error:
                dead.append((self._letter(event, str(error)), dedup_key))
                continue
            if changed is not None:
                entries.append(Entry(changed, dedup_key, span, event))
        return entries

    async def skip(self, events: Sequence[RawEvent]) -> None:
        """Count events as delivered that another program has delivered.

        Raises StateError when it cannot be remembered.
        """
        chosen = self._selector.select(events)
        dedup_keys = [*(dedup_key for _, dedup_key in chosen.events), *map(dead_letter_key, chosen.dead)]
        await self._store.commit(Commit(ids=b"".join(dedup_keys), dead_letters=chosen.dead))

    async def drain(self, tracker: CheckpointTracker) -> None:
        """Wait until everything of a stream has been delivered and remembered."""
        self._batcher.close_all()
        await self._budget.wait_for(lambda: tracker.drained)

    async def drain_all(self) -> None:
        """Wait until everything that was put in has been delivered and remembered."""
        self.nothing_follows(True)
        self._batcher.close_all()
        try:
            await self._budget.wait_for(lambda: self._committer.empty)
        finally:
            self.nothing_follows(False)

    def _delivered(self, entries: list[Entry]) -> None:
        self.counters.delivered += len(entries)
        self.counters.bytes += total_length(entries)
        self.counters.newest = max(self.counters.newest, newest(entries))
        if self._tap is not None and self._tap.viewers:
            self._tap.show([entry.event for entry in entries])
        self._committer.acknowledge(entries)

    def dead_letter_delivered(self, event: Event) -> None:
        """A dead letter was sent again and taken."""
        self.counters.delivered += 1
        self.counters.bytes += len(event.body)
        self.counters.newest = max(self.counters.newest, event.time)

    async def _refused(self, entry: Entry, reason: str) -> None:
        self.counters.refused += 1
        await self._dead_letter(self._letter(entry.as_read, credentials(reason)))
        self._committer.acknowledge([entry])

    def _letter(self, event: Event, reason: str) -> DeadLetter:
        """The event as it was read: a retry passes the transforms once more, whatever they are then."""
        return DeadLetter(
            self._sink.name, reason, event.type, event.id, event.session_id, event.body, event.time, event.index
        )

    async def _dead_letter(self, letter: DeadLetter, dedup_key: bytes = b"") -> None:
        """Keep a dead letter, and its dedup key where no event has one.

        While there is no room, wait, which stops the reading.
        """
        while reason := await self._no_room(len(letter.body)):
            if monotonic() - self._full_logged > REMIND_EVERY:
                self._full_logged = monotonic()
                log.error("there is no room for more dead letters; reading stops", sink=letter.sink, next_step=reason)
            await asyncio.sleep(LOOK_FOR_ROOM_EVERY)
        self.counters.dead += 1
        log.error("event kept as dead letter", sink=letter.sink, type=letter.type, id=letter.id, reason=letter.reason)
        self._committer.dead_letter(letter, dedup_key)

    async def _no_room(self, size: int) -> str:
        """What to do when a dead letter of `size` bytes cannot be kept now, "" when it can."""
        try:
            _, kept = await self._store.dead_letter_totals()
        except StateError as error:
            return str(error)
        if kept + self._committer.unwritten_dead_letter_bytes + size <= self._limits.dead_letter_bytes:
            return ""
        return "Look at them with `dead-letter list`, then `dead-letter retry` or `dead-letter drop`."
