"""Spans are kept while somebody wants them, belong to their batch, and are bounded."""

from __future__ import annotations

import asyncio

import pytest

from event_handler import tracing
from event_handler.tracing import Span, Traces

BEFORE = (("read", 1.0, 2.0), ("wait", 2.0, 3.0))


def named(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def test_the_parts_of_a_batch_are_in_its_trace_and_in_its_time() -> None:
    traces = Traces()
    with traces.kept():
        with traces.batch(lambda: 9.0, BEFORE, {"sink": "siem"}):
            traces.request(4.0, 5.0, {"outcome": "failed"}, "it is down")
            traces.request(6.0, 8.0, {"outcome": "delivered"}, "")
        spans = traces.take()
        assert traces.take() == []
    batch = named(spans)["batch"]
    assert (batch.parent, batch.begin, batch.end, batch.facts) == (0, 1.0, 9.0, {"sink": "siem"})
    parts = [span for span in spans if span is not batch]
    assert [(part.name, part.begin, part.end) for part in sorted(parts, key=lambda part: part.begin)] == [
        ("read", 1.0, 2.0), ("wait", 2.0, 3.0), ("request", 4.0, 5.0), ("request", 6.0, 8.0),
    ]  # fmt: skip
    assert {(part.trace, part.parent) for part in parts} == {(batch.trace, batch.id)}
    assert len({span.id for span in spans}) == 5
    assert [part.failing for part in parts if part.name == "request"] == ["it is down", ""]


async def test_a_request_of_a_task_that_outlives_the_batch_is_still_of_its_trace() -> None:
    traces, go = Traces(), asyncio.Event()

    async def later() -> None:
        await go.wait()
        traces.request(20.0, 21.0, {}, "")

    with traces.kept():
        with traces.batch(lambda: 9.0, BEFORE, {}):
            aside = asyncio.create_task(later())
        batch = named(traces.take())["batch"]
        go.set()
        await aside
        (late,) = traces.take()
    assert (late.trace, late.parent) == (batch.trace, batch.id)


def test_two_batches_have_two_traces_and_a_request_without_one_has_none() -> None:
    traces = Traces()
    with traces.kept():
        for _ in range(2):
            with traces.batch(lambda: 9.0, BEFORE, {}):
                pass
        traces.request(1.0, 2.0, {}, "")
        spans = traces.take()
    assert len({span.trace for span in spans if span.name == "batch"}) == 2
    assert "request" not in named(spans)


def test_nothing_is_kept_while_nobody_wants_it() -> None:
    traces = Traces()
    with traces.batch(lambda: 9.0, BEFORE, {}):
        traces.request(1.0, 2.0, {}, "")
    assert (traces.wanted, traces.take()) == (False, [])
    with traces.kept():
        assert (traces.wanted, traces.take()) == (True, [])
    assert not traces.wanted


def test_what_comes_faster_than_it_is_taken_is_counted_and_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MOST_UNEXPORTED", 4)
    traces = Traces()
    with traces.kept():
        for _ in range(3):
            with traces.batch(lambda: 9.0, BEFORE, {}):
                pass
        assert (len(traces.take()), traces.missed) == (4, 5)
