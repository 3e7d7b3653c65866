"""The reason of a dead letter is kept on disk and shown: no secret of a receiver's URL or answer is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from event_handler.event import Event
from event_handler.pipeline.dead_letters import DeadLetterRetry
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import Partial, Reject, Verdict
from event_handler.state.sqlite import FILE, SqliteStore
from event_handler.teleport.wire.raw import raw_events, restored
from tests.support.checkpoints import mark
from tests.support.events import wire
from tests.support.pipelines import pipeline
from tests.support.sinks import ScriptedSink

SAID = "https://user:hunter2@c:8088/v1/hunter2?token=hunter2 says: password=hunter2, bad field x"


class Quoting(ScriptedSink):
    """Refuses every event whose id begins with a `b`, and repeats where it was sent to."""

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        refused = {place: SAID for place, event in enumerate(events) if event.id.startswith("b")}
        return Partial(frozenset(), refused) if len(refused) < len(events) else Reject(SAID)


async def test_a_dead_letter_keeps_its_reason_without_secrets_also_when_it_is_refused_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    async with pipeline(Quoting(), store) as line:
        await line.put(CheckpointTracker(), raw_events([wire("a"), wire("bad")]), mark("p"))
        await line.drain_all()
    kept = (tmp_path / FILE).read_bytes() + (tmp_path / f"{FILE}-wal").read_bytes()
    assert b"https://c:8088 says: password=***, bad field x" in kept
    assert b"hunter2" not in kept
    store._rows("UPDATE dead_letters SET retry = 1, reason = ''")
    end = asyncio.Event()
    end.set()
    await DeadLetterRetry(Quoting(), store, restored, lambda _: None).run(end)
    assert store._rows("SELECT reason FROM dead_letters") == [("https://c:8088 says: password=***, bad field x",)]
    store.close()
