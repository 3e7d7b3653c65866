"""Delivers batches until the sink has answered for every event: waits, splits, isolates a bad event, for every sink alike.

Of the batches on hand as many are on their way at a time as the receiver can take.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from event_handler.pipeline.batches import Batcher, Entry
from event_handler.pipeline.concurrency import Concurrency
from event_handler.sinks.base import Delivered, Partial, Reject, Retry, Sink, Split, Verdict

FIRST_WAIT = 0.25  # seconds before the first repeat, doubled each time
LONGEST_WAIT = 30.0  # seconds; a collector that is back is noticed within half a minute
LONGEST_WAIT_MISCONFIGURED = 60.0  # seconds; only a person can correct it
REMIND_EVERY = 60.0  # seconds between lines while the collector does not take events
# Failures of one batch, each while the receiver took more batches than it failed at, so that it is the events and not the receiver:
SUSPECT_AFTER = 10  # it is halved from then on, about a minute later
GIVE_UP_AFTER = 100  # a single event is a dead letter then, after about twenty minutes
REFUSALS_IN_A_ROW = 20  # events; when so many are refused with none taken between, the configuration is wrong, not the events

log = structlog.get_logger()


def backoff(attempt: int, longest: float) -> float:
    """Exponential with full jitter, in seconds, for the `attempt`-th failure (from 0)."""
    return random.uniform(0.0, min(longest, FIRST_WAIT * 2.0 ** min(attempt, 16)))  # noqa: S311 - jitter, no secret


class Delivery:
    """The deliverers of one line, with at most `requests` in flight.

    `delivered` is called with entries that the sink took, `refused` with one that it never will.
    """

    def __init__(
        self,
        sink: Sink,
        requests: int,
        delivered: Callable[[list[Entry]], None],
        refused: Callable[[Entry, str], Awaitable[None]],
    ) -> None:
        self._sink = sink
        self._concurrency = Concurrency(requests)
        self._waiting: deque[asyncio.Future[None]] = deque()  # deliverers with a batch, for room to send it
        self._delivered = delivered
        self._refused = refused
        self._refused_in_a_row = 0
        self._balance = 0  # answers with which the sink took something, less those with which it failed
        self._warned = 0.0
        self.failing = ""
        self.retries = 0

    @property
    def requests_allowed(self) -> int:
        """Requests that may be in flight at the moment, by what the receiver has shown."""
        return self._concurrency.limit

    async def run(self, batcher: Batcher) -> None:
        """Deliver one batch after the other until cancelled; as many of these run as there may ever be requests."""
        while True:
            await self._next(batcher)

    async def _next(self, batcher: Batcher) -> None:
        """A frame of its own, so that no batch stays in memory while its deliverer waits for the next one."""
        batch = await batcher.ready.get()
        await self.deliver(batch.entries)
        batcher.finished(batch)

    async def deliver(self, entries: list[Entry], suspicions: int = 0) -> None:
        """Return when there is an answer for every entry, however long that takes.

        `suspicions` are failures that were about these events, for most others were taken meanwhile.
        """
        attempt, balance = 0, self._balance
        while entries:
            verdict = await self._ask(entries)
            if isinstance(verdict, Partial):
                entries, verdict = await self._settle(entries, verdict)
            elif isinstance(verdict, Reject | Split):
                if len(entries) > 1:
                    await self._halve(entries)
                    return
                if self._refused_in_a_row < REFUSALS_IN_A_ROW:
                    self._refused_in_a_row += 1
                    await self._refused(entries[0], verdict.reason)
                    return
                verdict = _all_refused(verdict.reason)
            if isinstance(verdict, Delivered):
                self._took(entries)
                return
            if not entries:
                return
            suspicions += self._balance > balance and not verdict.misconfigured
            self._balance -= 1
            balance = self._balance
            if suspicions >= SUSPECT_AFTER and len(entries) > 1:
                await self._halve(entries, suspicions)
                return
            if suspicions >= GIVE_UP_AFTER:
                await self._refused(entries[0], f"never taken in {suspicions} tries, while others were: {verdict.reason}")
                return
            await self._wait(verdict, attempt)
            attempt += 1

    async def _halve(self, entries: list[Entry], suspicions: int = 0) -> None:
        middle = len(entries) // 2
        await self.deliver(entries[:middle], suspicions)
        await self.deliver(entries[middle:], suspicions)

    async def _ask(self, entries: list[Entry]) -> Verdict:
        """Send when the receiver may have one request more, and learn from its answer how many it may have."""
        while self._concurrency.free <= 0:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        sent = self._concurrency.sent()
        verdict = await self._send(entries)
        if not isinstance(verdict, Retry) and not (isinstance(verdict, Partial) and verdict.retry):
            self._concurrency.answered(sent)
        elif verdict.misconfigured:
            self._concurrency.told_nothing()
        else:
            self._concurrency.refused(sent)
        for _ in range(min(self._concurrency.free, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # a deliverer that was cancelled
                turn.set_result(None)
        return verdict

    async def _send(self, entries: list[Entry]) -> Verdict:
        try:
            return await self._sink.deliver([entry.event for entry in entries])
        except Exception as error:  # a fault of the sink's own code: nothing is known to be delivered, so keep and repeat
            return Retry(f"the sink failed ({type(error).__name__}: {error})")

    async def _settle(self, entries: list[Entry], answer: Partial) -> tuple[list[Entry], Retry]:
        """Hand on what was taken and what was refused; return what is to be sent again, and why."""
        taken = [entry for place, entry in enumerate(entries) if place not in answer.retry and place not in answer.rejected]
        if taken:
            self._refused_in_a_row = 0
            self._balance += 1
            self._delivered(taken)
        again, verdict = set(answer.retry), Retry(answer.reason, answer.after, answer.misconfigured)
        for place, reason in answer.rejected.items():
            if taken or self._refused_in_a_row < REFUSALS_IN_A_ROW:
                self._refused_in_a_row += not taken
                await self._refused(entries[place], reason)
            else:
                again.add(place)
                verdict = _all_refused(reason)
        if taken and not again:
            self._recovered()
        return [entries[place] for place in sorted(again)], verdict

    def _took(self, entries: list[Entry]) -> None:
        self._refused_in_a_row = 0
        self._balance += 1
        self._recovered()
        self._delivered(entries)

    def _recovered(self) -> None:
        if self.failing:
            log.info("delivery works again", sink=self._sink.name)
            self.failing = ""

    async def _wait(self, verdict: Retry, attempt: int) -> None:
        longest = LONGEST_WAIT_MISCONFIGURED if verdict.misconfigured else LONGEST_WAIT
        wait = max(verdict.after, backoff(attempt, longest))
        self.retries += 1
        now = monotonic()
        if verdict.reason != self.failing or now - self._warned >= REMIND_EVERY:
            self._warned = now
            say = log.error if verdict.misconfigured else log.warning
            say("delivery fails, will repeat until it works", sink=self._sink.name, reason=verdict.reason, wait_s=round(wait, 1))
            self.failing = verdict.reason
        await asyncio.sleep(wait)


def _all_refused(reason: str) -> Retry:
    return Retry(f"every event is refused: {reason}; check the format", misconfigured=True)
