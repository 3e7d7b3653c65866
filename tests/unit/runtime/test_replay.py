"""A replay gives a sink its notes before anything is asked of the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from event_handler.errors import StateError
from event_handler.ports import Notes
from event_handler.runtime.replay import Asked, replay
from event_handler.runtime.sinks import Filters, PlannedSink
from event_handler.state.sqlite import SqliteStore
from tests.support.sinks import ScriptedSink


class NotingSink(ScriptedSink):
    async def remember_in(self, notes: Notes) -> None:
        raise StateError(f"noted: {await notes.note('nothing')!r}", "Look here.")


async def test_a_sink_gets_its_notes_first() -> None:
    nobody: Any = None
    plan = PlannedSink(NotingSink(), Filters((), (), ()))
    store = SqliteStore(None)
    with pytest.raises(StateError, match="noted: ''"):
        await replay(nobody, plan, store, Asked(1.0, 2.0, ()), page=10, max_bytes=1000, tell=lambda _: None)
    store.close()
