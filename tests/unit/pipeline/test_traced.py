"""A pipeline tells of each batch when its events came, how long it waited, and what each of its requests brought."""

from __future__ import annotations

from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import raw_events
from event_handler.tracing import TRACES
from tests.support.events import wire
from tests.support.pipelines import pipeline
from tests.support.sinks import ScriptedSink


async def test_a_batch_that_is_sent_twice_is_one_trace() -> None:
    sink = ScriptedSink(requests=1)
    sink.failures = 1
    with TRACES.kept():
        async with pipeline(sink, SqliteStore(None)) as running:
            tracker = await running.track()
            await running.put(tracker, raw_events([wire("a"), wire("b")]), None)
            await running.drain_all()
        spans = sorted(TRACES.take(), key=lambda span: (span.begin, -span.end))
    assert [span.name for span in spans] == ["batch", "read", "wait", "request", "request"]
    batch, read, wait, first, second = spans
    assert batch.facts["sink"] == "scripted"
    assert batch.facts["events"] == 2
    assert {span.trace for span in spans} == {batch.trace}
    assert batch.begin == read.begin <= read.end == wait.begin <= wait.end <= first.begin <= first.end <= second.begin
    assert second.end <= batch.end
    assert (first.facts["outcome"], first.failing) == ("failed", "scripted outage")
    assert (second.facts["outcome"], second.facts["events"], second.failing) == ("delivered", 2, "")


async def test_nothing_is_noted_while_nobody_wants_it() -> None:
    async with pipeline(ScriptedSink(), SqliteStore(None)) as running:
        await running.put(await running.track(), raw_events([wire("a")]), None)
        await running.drain_all()
    with TRACES.kept():
        assert TRACES.take() == []
