"""Delivers batches until there is an answer for every event, for every sink alike: waits, narrows down, sets a bad
event aside.

This puts layers together, each of which knows one thing: `sender` what is sent (how many requests at a time, how large
each, and for how long), `verdicts` what is done about an answer, `pauses` how long to wait, `outage` what is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import monotonic

from event_handler.pipeline.batch import Batch, Batcher
from event_handler.pipeline.concurrency import Concurrency
from event_handler.pipeline.entry import Entry
from event_handler.pipeline.outage import Outage
from event_handler.pipeline.pauses import RETRY, Pauses, RetryPolicy
from event_handler.pipeline.sender import Sender
from event_handler.pipeline.verdicts import (
    BY_ITSELF,
    MEMORY,
    REFUSALS,
    SEVERAL_REFUSED,
    SUSPECT_AFTER,
    Action,
    Evidence,
    History,
    Kind,
    Others,
    Situation,
    decide,
    kind_of,
    rest_of,
)
from event_handler.ports import Delivered, Partial, Reject, Retry, Sink, Split
from event_handler.report import Counters
from event_handler.tracing import TRACES

MOST_ASIDE = 1000  # events that are tried alone beside the others; a task each

CHECK_RECEIVER = (
    "Look into the receiver's log, and check the URL, the format and the access rules. Nothing is lost meanwhile."
)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Failure:
    """Events that were not taken, why, what happened to them before, and whether others go first already."""

    part: list[Entry]
    verdict: Retry | Reject | Split
    kind: Kind
    history: History
    others: Others
    aside: bool


class Delivery:
    """The deliverers of one pipeline, with at most `requests` in flight.

    `delivered` is called with entries that the sink took, `refused` with one that becomes a dead letter.
    """

    def __init__(
        self,
        sink: Sink,
        requests: int,
        delivered: Callable[[list[Entry]], None],
        refused: Callable[[Entry, str], Awaitable[None]],
        counters: Counters,
        policy: RetryPolicy = RETRY,
        clock: Callable[[], float] = loop_time,
    ) -> None:
        self.sink = sink
        self._requests = requests
        self._order = sink.limits.ordered
        self._sender = Sender(sink, Concurrency(requests, clock=clock), counters, clock)
        self._outage = Outage(sink.name, clock)
        self._delivered = delivered
        self._refused = refused
        self._clock = clock
        self._policy = policy
        self._pauses = Pauses(policy)
        self._evidence = Evidence()
        self._batcher: Batcher | None = None
        self._at_work = 0  # deliverers with a batch
        self._aside: set[asyncio.Task[None]] = set()
        self.ending = False  # everything that was read is waited for
        self._counters = counters

    @property
    def failing(self) -> str:
        """Why deliveries fail at the moment, "" while they work."""
        return self._outage.reason

    @property
    def failing_since(self) -> float | None:
        """Since when, in seconds since the epoch."""
        return self._outage.since

    @property
    def next_step(self) -> str:
        """What to do about it, "" where the reason says all."""
        return self._outage.next_step

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        return self._sender.in_flight

    @property
    def requests_allowed(self) -> int:
        """Requests that may be in flight at the moment, by what the receiver has shown."""
        return self._sender.requests_allowed

    @property
    def bytes_allowed(self) -> int:
        """Bytes that a batch may have at the moment, by what the receiver has shown."""
        return self._sender.bytes_allowed

    async def run(self, batcher: Batcher) -> None:
        """Deliver batches until cancelled, as many at a time as there may ever be requests."""
        self._batcher = batcher
        async with asyncio.TaskGroup() as self._group:
            for _ in range(self._requests):
                self._group.create_task(self._work(batcher))

    async def _work(self, batcher: Batcher) -> None:
        while True:
            await self._next(batcher)

    async def _next(self, batcher: Batcher) -> None:
        """A frame of its own, so that no batch stays in memory while its deliverer waits for the next one."""
        batch = await batcher.ready.get()
        self._at_work += 1
        with traced(batch, self.sink.name) if TRACES.wanted else nullcontext():
            await self._deliver(batch.entries)
        self._at_work -= 1
        batcher.finished(batch)

    async def _deliver(self, entries: list[Entry], history: History | None = None) -> None:
        """Return when there is an answer for every entry, or it is tried alone beside the others.

        With a history it already is.
        """
        aside, most, searching = history is not None, len(entries), False
        while entries:
            part = self._sender.cut(entries, most)
            taken, failed = self._evidence.taken, self._evidence.failed
            verdict = await self._sender.ask(part, len(part) < len(entries), aside)
            if isinstance(verdict, Delivered):
                self._took(part)
                entries, most, history = entries[len(part) :], 2 * len(part), None
                continue
            rest, named = entries[len(part) :], isinstance(verdict, Partial)
            if isinstance(verdict, Partial):
                part = await self._settle(part, verdict)
                verdict = rest_of(verdict)
            if part:
                history = history or History(taken, failed, Kind.FAILED, tries=(SUSPECT_AFTER - 1) * searching)
                failure = self._judge(part, verdict, named, history, aside)
                action = self._decide(failure, nothing_else=not rest)
                searching = searching or action is Action.NARROW
                if action in (Action.HALVE, Action.NARROW):
                    most = max(1, len(part) // 2)
                if await self._act(action, failure):
                    entries = part + rest if named else entries
                    continue
            entries, history = self._next_to_try(rest), None

    def _next_to_try(self, rest: list[Entry]) -> list[Entry]:
        """What is tried next while one after the other is refused: not the neighbour, which is likely to be like it."""
        if self._order or not self._evidence.refused:
            return rest
        middle = len(rest) // 2
        return rest[middle:] + rest[:middle]

    def _judge(
        self, part: list[Entry], verdict: Retry | Reject | Split, named: bool, history: History, aside: bool
    ) -> Failure:
        """Count the failure. `named` when the answer tells of each event of the part, so that each is judged as if
        alone.
        """
        kind, now = kind_of(verdict), self._clock()
        history.failed_again(kind, len(part) == 1 or (named and kind in REFUSALS), self._evidence, now)
        if history.alone and history.tries == 1 and kind in REFUSALS:
            self._evidence.refused += len(part)
        return Failure(part, verdict, kind, history, Others.TAKEN if history.passing else Others.UNKNOWN, aside)

    def _decide(self, failure: Failure, *, nothing_else: bool) -> Action:
        now = self._clock()
        alone_left = nothing_else and self._idle(failure.aside)
        few = self._evidence.refused < SEVERAL_REFUSED
        if failure.others is Others.UNKNOWN and alone_left and few and now - self._evidence.taken_at < MEMORY:
            failure.others = Others.ENDING if self.ending else Others.EARLIER
        aside = failure.aside or len(self._aside) >= MOST_ASIDE
        return decide(
            failure.kind, failure.history, Situation(failure.others, self._evidence.refused, self._order, aside), now
        )

    def _idle(self, aside: bool) -> bool:
        """Whether nothing is left to try but events that were refused already."""
        return self._at_work <= (not aside) and (self._batcher is None or self._batcher.idle)

    async def _act(self, action: Action, failure: Failure) -> bool:
        """Do what was decided; return whether the events are still to be delivered here."""
        if action is Action.DEAD_LETTER:
            for entry in failure.part:
                await self._refused(entry, _reason(failure))
            return False
        self._counters.retries += action is not Action.HALVE
        if action is Action.SET_ASIDE:
            self._set_aside(failure)
            if self._evidence.refused:  # nothing else was taken yet
                wait = self._policy.pause(self._evidence.refused - 1, self._policy.longest)
                await self._pauses.until_taken(self._log(failure, wait))
            return False
        if action is not Action.HALVE:
            await self._wait(action, failure)
        return True

    def _set_aside(self, failure: Failure) -> None:
        async def retry() -> None:
            await self._wait(Action.WAIT, failure)
            await self._deliver(failure.part, failure.history)

        failure.aside = True
        task = self._group.create_task(retry())
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _settle(self, entries: list[Entry], answer: Partial) -> list[Entry]:
        """Hand on what was taken, and what was refused where others were taken with it; return what is left."""
        left = set(answer.retry) | set(answer.rejected)
        taken = [entry for place, entry in enumerate(entries) if place not in left]
        if taken:
            self._took(taken, works=not left.difference(answer.rejected))
            for place, reason in answer.rejected.items():
                await self._refused(entries[place], reason)
            left = set(answer.retry)
        return [entries[place] for place in sorted(left)]

    def _took(self, entries: list[Entry], *, works: bool = True) -> None:
        self._evidence.took(self._clock())
        if works:
            self._outage.works()
        self._delivered(entries)
        self._pauses.taken()

    async def _wait(self, action: Action, failure: Failure) -> None:
        """The pause before the next try."""
        passing = failure.others is Others.TAKEN
        wait = self._pause_of(action, failure)
        asked = min(failure.verdict.after, self._policy.asked) if isinstance(failure.verdict, Retry) else 0.0
        wait = self._log(failure, max(wait, min(asked, self._policy.longest) if passing else asked))
        if passing or (failure.kind in BY_ITSELF and (failure.history.overloaded or not failure.aside)):
            await self._pauses.for_all_of(wait)
        else:
            await self._pauses.until_taken(wait)

    def _pause_of(self, action: Action, failure: Failure) -> float:
        """Seconds: longer with each failure, and with each event that waits beside others while nothing is taken."""
        kind, history, passing = failure.kind, failure.history, failure.others is Others.TAKEN
        policy = self._policy
        if action is Action.NARROW and kind is not Kind.UNANSWERED:
            return policy.pause(0 if passing else history.tries - 1, policy.narrowing)
        if kind in REFUSALS and failure.others in (Others.TAKEN, Others.ENDING):
            return policy.pause((history.apart if passing else history.tries) - 1, policy.suspect)
        wait = policy.pause(history.tries - 1, policy.longest if kind in BY_ITSELF else policy.misconfigured)
        return wait if passing or not failure.aside else max(wait, len(self._aside) * policy.spacing)

    def _log(self, failure: Failure, wait: float) -> float:
        """Say why, and return the seconds to wait."""
        reason, event = failure.verdict.reason, failure.part[0].event
        if failure.others is Others.TAKEN and failure.history.alone and (failure.aside or failure.kind in REFUSALS):
            self._outage.suspected(event.type, event.id, reason)
        elif failure.kind in REFUSALS:
            which = "every event is" if failure.others is Others.UNKNOWN else "the last events are"
            reason = f"{which} refused: {reason}" if failure.history.alone else reason
            self._outage.failed(reason, wait, CHECK_RECEIVER, person=True)
        else:
            self._outage.failed(reason, wait, person=failure.kind is Kind.UNREACHABLE)
        return wait


def traced(batch: Batch, sink: str) -> AbstractContextManager[None]:
    """Notes what happens to a batch that was taken up now."""
    before = (("read", batch.born, batch.closed), ("wait", batch.closed, monotonic()))
    return TRACES.batch(monotonic, before, {"sink": sink, "events": len(batch.entries), "bytes": batch.size})


def _reason(failure: Failure) -> str:
    if failure.kind in BY_ITSELF:
        return f"never taken in {failure.history.apart} tries, while others were: {failure.verdict.reason}"
    return failure.verdict.reason
