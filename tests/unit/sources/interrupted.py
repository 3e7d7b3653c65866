"""What the property tests of the sources share: a cluster with a clock of its own, and a reading that is interrupted
and killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st

from event_handler.errors import ConnectError, RpcError
from event_handler.event import Event
from event_handler.pipeline import committer, delivery
from event_handler.pipeline.concurrency import Concurrency
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.ports import Delivered, Limits, Verdict
from event_handler.sources import export, pages, search, stall_detector
from event_handler.sources.export import BulkSource
from event_handler.sources.search import SearchSource
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import event_id, event_time
from event_handler.teleport.wire.messages import OLDEST_FIRST
from tests.support.passing_time import PassingLoop

ROUND_TRIP = 0.02  # seconds
IN_FLIGHT = 3000  # bytes: six events, so that readers wait
LONG_ENOUGH = 3 * 3600.0  # seconds of the cluster's time; whoever has not read all by then stands still


class SlowSink:
    """Takes everything, `delay` seconds after it was sent."""

    name = "slow"

    def __init__(self, delay: float, *, ordered: bool = False) -> None:
        self.limits = Limits(2, 1_000_000, 3, 0.0, ordered=ordered)
        self.delivered: list[str] = []
        self._delay = delay

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        await asyncio.sleep(self._delay)
        self.delivered += [event.id for event in events]
        return Delivered()

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Cluster(Client):
    """What all clusters here have in common: a clock, and a connection that is lost."""

    def __init__(self, loop: PassingLoop) -> None:
        self.loop = loop
        self.connection = 0
        self.unreachable = False

    def lose_connection(self) -> None:
        self.connection += 1
        self.unreachable = True

    async def answer(self, connection: int) -> None:
        await asyncio.sleep(ROUND_TRIP)
        if connection != self.connection:
            raise ConnectError("scripted loss of the connection")

    async def listing(self) -> None:
        await self.answer(self.connection)
        if self.unreachable:
            self.unreachable = False
            raise ConnectError("scripted loss of the connection")


def page_of(
    events: Iterable[bytes], since: float, until: float, key: str, order: int, size: int, hidden: str = ""
) -> tuple[list[bytes], str]:
    """At most `size` of the events between two times, in order, and the next key: the id of the page's last event, ""
    at the end.

    The `hidden` one ends every search: nothing of it and behind it is found in either order.
    """
    if since > until:
        raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: from after to")
    found = sorted((event for event in events if since <= event_time(event) <= until), key=event_time)
    if order != OLDEST_FIRST:
        found.reverse()
    ids = [event_id(event) for event in found]
    begin = ids.index(key) + 1 if key else 0
    end = min(begin + size, ids.index(hidden) if hidden in ids else len(ids))
    more = end < len(ids) and end > begin
    return found[begin:end], ids[end - 1] if more else ""


@dataclass(frozen=True)
class Interruption:
    """At `at` seconds the connection is lost, or the process is killed and starts again `down` seconds later."""

    at: float
    kill: bool
    down: float


def interruptions(latest: float, longest: float) -> st.SearchStrategy[list[Interruption]]:
    one = st.builds(Interruption, st.floats(0.0, latest), st.booleans(), st.sampled_from([0.0, 1.0, longest]))
    return st.lists(one, max_size=4)


Make = Callable[[Pipeline, SqliteStore], BulkSource | SearchSource]


def was_cancelled(outcome: object) -> bool:
    """A task group of Python 3.11.2 (Debian 12) may raise the cancellation of its tasks as a group."""
    if isinstance(outcome, BaseExceptionGroup):
        return all(map(was_cancelled, outcome.exceptions))
    return isinstance(outcome, asyncio.CancelledError)


async def read(
    cluster: Cluster,
    sink: SlowSink,
    store: SqliteStore,
    make: Make,
    planned: list[Interruption],
    complete: Callable[[], Awaitable[bool]],
) -> None:
    """Read as the Follower does, through all interruptions, until `complete` or for LONG_ENOUGH."""
    loop = cluster.loop
    for one in planned:
        if not one.kill:
            loop.call_at(one.at, cluster.lose_connection)
    for kill in [*sorted((one for one in planned if one.kill), key=lambda one: one.at), None]:
        window = DuplicateWindow()
        window.load(await store.delivered_ids())
        line = Pipeline(sink, store, Selector("slow", window), PipelineLimits(3, IN_FLIGHT))
        await line.__aenter__()
        following = asyncio.create_task(follow(make, line, store))
        end = kill.at if kill else loop.time() + LONG_ENOUGH
        while loop.time() < end and not following.done() and (kill or not await complete()):
            await asyncio.sleep(min(5.0, end - loop.time()))
        following.cancel()
        for task in line._tasks:  # nothing more is remembered
            task.cancel()
        outcomes = await asyncio.gather(following, *line._tasks, return_exceptions=True)
        assert all(map(was_cancelled, outcomes)), outcomes
        if kill:
            await asyncio.sleep(kill.down)


async def follow(make: Make, line: Pipeline, store: SqliteStore) -> None:
    while True:
        try:
            await make(line, store).run()
        except* (RpcError, ConnectError):
            await asyncio.sleep(1.0)
        await line.drain_all()


def run(work: Callable[[PassingLoop], Coroutine[Any, Any, None]], ahead: float = 0.0) -> None:
    """Run `work` in a time of its own, which is the time of everything that reads and delivers.

    Their clock is `ahead`.
    """
    loop = PassingLoop()
    with pytest.MonkeyPatch.context() as patch:
        for module in (export, search, stall_detector, committer):
            patch.setattr(module, "time", lambda: loop.wall() + ahead)
        for reader in (export, search, stall_detector, pages):
            patch.setattr(reader, "monotonic", loop.time)
        patch.setattr(delivery, "Concurrency", partial(Concurrency, clock=loop.time))
        loop.run_to_its_end(work(loop))
