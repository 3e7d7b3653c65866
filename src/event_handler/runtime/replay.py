"""Delivers a span of the log to one sink once more, with a state of its own: the normal position does not move."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from event_handler.checkpoint import SearchCheckpoint
from event_handler.event import Event
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.filters import Filter
from event_handler.pipeline.select import Selector
from event_handler.pipeline.transforms.chain import Chain
from event_handler.ports import Delivered, Limits, Remembering, StateStore, Verdict
from event_handler.runtime.sinks import PlannedSink
from event_handler.runtime.span import read_span
from event_handler.state.directory import state_directory
from event_handler.teleport.rpc.client import Client


@dataclass(frozen=True, slots=True)
class Asked:
    """The span to deliver again, in seconds since the epoch, and the event types, () for all."""

    since: float
    until: float
    types: tuple[str, ...]

    def directory(self, storage: Path, cluster: str, sink: str) -> Path:
        """Where the state of this replay lies: the same one for the same question, so that it can go on."""
        text = f"{self.since:.0f}/{self.until:.0f}/{'/'.join(self.types)}/{sink}"
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        return state_directory(storage / f"replay-{name}", cluster, sink)


@dataclass(slots=True)
class Progress:
    """How far a replay is: the time that was reached, events delivered, and those that became dead letters."""

    reached: float
    delivered: int = 0
    dead: int = 0


async def replay(
    client: Client,
    plan: PlannedSink,
    store: StateStore,
    asked: Asked,
    *,
    page: int,
    max_bytes: int,
    tell: Callable[[Progress], None],
) -> Progress:
    """Deliver the span, from where an earlier run of the same replay ended. `tell` is called after each page.

    Raises RpcError, ConnectError or StateError; another run goes on from there.
    """
    if isinstance(plan.sink, Remembering):
        await plan.sink.remember_in(store)
    begin = max(asked.since, (await store.progress()).searched or asked.since)
    window = DuplicateWindow()
    window.load(await store.delivered_ids())
    selector = Selector(
        plan.sink.name,
        window,
        types=asked.types or plan.filters.types,
        skip_types=plan.filters.skip_types,
        recordings=False,
    )
    limits = PipelineLimits(plan.sink.limits.requests, max_bytes)
    async with Pipeline(plan.sink, store, selector, limits, Chain(plan.transforms)) as pipeline:
        tracker = await pipeline.track()
        told = Progress(begin)
        async with aclosing(read_span(client, begin, asked.until, page, exact(asked, plan))) as pages:
            async for events, reached in pages:
                await pipeline.put(tracker, events, None)
                await pipeline.put(tracker, [], SearchCheckpoint(reached))
                told = Progress(reached, pipeline.counters.delivered, pipeline.counters.dead)
                tell(told)
        await pipeline.put(tracker, [], SearchCheckpoint(asked.until))
        await pipeline.drain(tracker)
        return Progress(asked.until, pipeline.counters.delivered, pipeline.counters.dead)


def exact(asked: Asked, plan: PlannedSink) -> tuple[str, ...]:
    """The types that the server may be asked for alone: it knows neither patterns nor codes."""
    return tuple(Filter(asked.types or plan.filters.types).exact_types())


class CountingSink:
    """Stands in for a sink: counts what it would be sent, by type."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.limits = Limits(10_000, 4 * 1024 * 1024, 1, 0.0)
        self.types: Counter[str] = Counter()

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        self.types.update(event.type for event in events)
        return Delivered()

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None
