"""A pipeline into a scripted sink."""

from __future__ import annotations

from typing import Any

from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.pauses import RetryPolicy
from event_handler.pipeline.select import Selector
from event_handler.ports import DeadLetter, StateStore
from event_handler.state.sqlite import SqliteStore
from tests.support.sinks import ScriptedSink

QUICK = RetryPolicy(first=0.001)  # a scripted outage is over at the next try


def pipeline(
    sink: ScriptedSink,
    store: StateStore,
    size: int = 100_000,
    letters: int = 100_000,
    policy: RetryPolicy = QUICK,
    **options: Any,
) -> Pipeline:
    limits = PipelineLimits(sink.limits.requests, size, letters)
    return Pipeline(sink, store, Selector("scripted", DuplicateWindow(), **options), limits, policy=policy)


async def stored(store: SqliteStore) -> list[DeadLetter]:
    """The dead letters of a state."""
    store._rows("UPDATE dead_letters SET retry = 1")
    found: list[tuple[int, DeadLetter]] = []
    while some := await store.dead_letters_to_retry(found[-1][0] if found else 0):
        found += some
    return [letter for _, letter in found]
