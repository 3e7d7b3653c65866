"""Sends parts of batches, as many at a time and each as large as the receiver can take, and learns from each answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from event_handler.pipeline.batch_size import BatchSize
from event_handler.pipeline.concurrency import Concurrency
from event_handler.pipeline.entry import Entry, how_many_fit, total_length
from event_handler.ports import Delivered, Partial, Reject, Retry, Sink, Split, Verdict
from event_handler.report import Counters
from event_handler.tracing import TRACES, Facts


class Sender:
    """The requests of one pipeline, with at most `requests` in flight."""

    def __init__(self, sink: Sink, concurrency: Concurrency, counters: Counters, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._concurrency = concurrency
        self._counters = counters
        self._clock = clock
        self._one_by_one = sink.limits.events == 1
        self._size = BatchSize(sink.limits.bytes, clock)
        self._waiting: deque[asyncio.Future[None]] = deque()  # who has something to send, in the order of their coming

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        return self._concurrency.in_flight

    @property
    def requests_allowed(self) -> int:
        """Requests that may be in flight at the moment, by what the receiver has shown."""
        return self._concurrency.limit

    @property
    def bytes_allowed(self) -> int:
        """Bytes that a batch may have at the moment, by what the receiver has shown."""
        return self._size.limit

    def cut(self, entries: list[Entry], most: int) -> list[Entry]:
        """As many of the first entries as may go in one request: `most` of them, and one at least."""
        number = how_many_fit(entries, most, self._size.limit)
        return entries if number == len(entries) else entries[:number]

    async def ask(self, part: list[Entry], more: bool, suspect: bool = False) -> Verdict:
        """Send when the receiver may have one request more; `more` when the part was cut off from others.

        What happens to a `suspect` says nothing about how much the receiver can take.
        """
        while self._concurrency.free <= 0:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        sent = self._concurrency.sent()
        verdict = await self._send(part)
        outcome, answered = outcome_of(verdict), self._clock()
        self._counters.requests[outcome].observe(answered - sent)
        if TRACES.wanted:
            facts: Facts = {"outcome": outcome, "events": len(part)}
            TRACES.request(sent, answered, facts, getattr(verdict, "reason", ""))
        self._counters.batches.observe(len(part))
        self._learn(verdict, sent, suspect)
        if not self._one_by_one and not suspect:
            self._learn_size(verdict, part, sent, more)
        for _ in range(min(self._concurrency.free, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # of a task that was cancelled
                turn.set_result(None)
        return verdict

    async def _send(self, part: list[Entry]) -> Verdict:
        timeout = self._sink.limits.timeout
        try:
            async with asyncio.timeout(timeout or None) as limit:
                return await self._sink.deliver([entry.event for entry in part])
        except Exception as error:  # nothing is known to be delivered, so keep and repeat
            if limit.expired():
                return Retry(f"the sink gave no answer within {timeout:g} s", unanswered=True)
            return Retry(f"the sink failed ({type(error).__name__}: {error})")  # a fault of its own code

    def _learn(self, verdict: Verdict, sent: float, suspect: bool) -> None:
        if not isinstance(verdict, Retry) and not (isinstance(verdict, Partial) and verdict.retry):
            self._concurrency.answered(sent)
        elif suspect or verdict.misconfigured:
            self._concurrency.told_nothing()
        else:
            self._concurrency.refused(sent)

    def _learn_size(self, verdict: Verdict, part: list[Entry], sent: float, more: bool) -> None:
        size = total_length(part)
        if isinstance(verdict, Split) or (isinstance(verdict, Retry) and verdict.unanswered):
            if len(part) > 1:
                self._size.failed(size, sent)
        elif not isinstance(verdict, Retry):
            self._size.answered(size, sent, more)


def outcome_of(verdict: Verdict) -> str:
    """The name of a request's outcome in the metrics (report.OUTCOMES)."""
    match verdict:
        case Delivered():
            return "delivered"
        case Partial():
            return "partial"
        case Reject():
            return "refused"
        case Split():
            return "too_large"
        case Retry():
            return "unanswered" if verdict.unanswered else "denied" if verdict.misconfigured else "failed"
