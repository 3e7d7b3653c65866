"""A simulated receiver, and a delivery to it without reading and without state."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from event_handler.event import Event
from event_handler.pipeline.batch import Batcher
from event_handler.pipeline.delivery import Delivery
from event_handler.pipeline.entry import Entry
from event_handler.pipeline.tracker import CheckpointTracker, Span
from event_handler.ports import Delivered, Limits, Retry, Verdict
from event_handler.report import Counters
from event_handler.sinks.answers import judge
from event_handler.sinks.http import Answer

LATENCY = 0.01  # seconds
BODY = b'{"event":"user.login","note":"%s"}' % (b"x" * 165)  # 200 bytes, as a small event has


def status(number: int, retry_after: str = "") -> Verdict:
    return judge(Answer(number, retry_after, b"scripted", True))


NO_ANSWER = Retry("scripted time-out", unanswered=True)
NO_CONNECTION = Retry("scripted refusal of the connection")


class Receiver:
    """Answers as `rule` says for the ids of a batch, None = it takes them; counts how often it got each event."""

    name = "scripted"

    def __init__(self, events: int = 500, requests: int = 48, *, ordered: bool = False) -> None:
        self.limits = Limits(events, 1024 * 1024, requests, 0.05, ordered)
        self.rule: Callable[[Sequence[str]], Verdict | None] = lambda _: None
        self.seconds: Callable[[Sequence[str]], float] = lambda _: LATENCY
        self.requests: list[tuple[float, list[str]]] = []
        self.taken: Counter[str] = Counter()
        self.order: list[str] = []

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        ids = [event.id for event in events]
        self.requests.append((asyncio.get_running_loop().time(), ids))
        await asyncio.sleep(self.seconds(ids))
        verdict = self.rule(ids)
        if verdict is not None:
            return verdict
        self.taken.update(ids)
        self.order += ids
        return Delivered()

    def refuse(self, bad: Iterable[str], verdict: Verdict) -> None:
        """Answer so to what has one of the `bad` in it."""
        those = set(bad)
        self.rule = lambda ids: verdict if those.intersection(ids) else None

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Run:
    """What came of it: `done` and `dead` events, the latter with the reason."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.done: list[str] = []
        self.dead: dict[str, str] = {}
        self.sent = 0
        self.batcher = Batcher(receiver.limits, 2**30, asyncio.get_running_loop().time)
        self.delivery = Delivery(receiver, receiver.limits.requests, self._delivered, self._refused, Counters())

    def put(self, ids: Iterable[str], body: bytes = BODY, session: str = "") -> None:
        for uid in ids:
            self.sent += 1
            event = Event("user.login", uid, 0.0, 0, body, session)
            self.batcher.add(Entry(event, b"", Span(CheckpointTracker(), None, 1)))

    async def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Wait for it, so long at most, and return the seconds that it took."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not condition():
            assert loop.time() - begin < seconds, f"{len(self.done)} delivered and {len(self.dead)} dead of {self.sent}"
            await asyncio.sleep(0.1)
        return loop.time() - begin

    async def finished(self, seconds: float) -> float:
        """As when everything was read and nothing else comes."""
        self.delivery.ending = True
        return await self.until(lambda: len(self.done) + len(self.dead) == self.sent, seconds)

    async def others_come(self, seconds: float) -> None:
        """A few other events every second."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            self.put([f"other-{self.sent}", f"other-{self.sent + 1}"])
            await asyncio.sleep(1.0)

    def _delivered(self, entries: list[Entry]) -> None:
        self.done += [entry.event.id for entry in entries]

    async def _refused(self, entry: Entry, reason: str) -> None:
        assert entry.event.id not in self.dead
        self.dead[entry.event.id] = reason


@asynccontextmanager
async def delivering(receiver: Receiver) -> AsyncIterator[Run]:
    random.seed(1)  # of the pauses, so that a test says the same every time
    run = Run(receiver)
    tasks = [asyncio.create_task(work) for work in (run.delivery.run(run.batcher), run.batcher.close_aged())]
    try:
        yield run
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ids(count: int, prefix: str = "e") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]
