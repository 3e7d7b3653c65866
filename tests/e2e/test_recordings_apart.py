"""A collector that takes no recordings holds up the audit log not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from time import time

from event_handler.cli.line import Filters, open_line
from event_handler.event import Event
from event_handler.simulator.server import Faults
from event_handler.sinks.base import Verdict
from event_handler.sinks.fluentd import FluentdSink
from event_handler.state.store import Store
from tests.e2e.conftest import Collector
from tests.e2e.test_cluster_to_collector import DAY, a_log, cluster, following


class AuditFirst(FluentdSink):
    """Holds back every batch of a recording until it is told to go on."""

    def hold(self) -> asyncio.Event:
        self.go_on = asyncio.Event()
        return self.go_on

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if events[0].session_id:
            await self.go_on.wait()
        return await super().deliver(events)


async def test_recordings_that_are_not_taken_do_not_hold_up_the_audit_log(tmp_path: Path, collector: Collector) -> None:
    log = a_log(1500, sessions=60)
    log.cut_chunks(300, late=0, late_seconds=0.0, duplicates=0.0)
    store = Store(tmp_path / "state")
    sink = AuditFirst(collector.settings)
    go_on = sink.hold()
    follow = following(time() - 2 * DAY - 60, concurrency=100)
    async with (
        asyncio.timeout(60),
        cluster(tmp_path / "sim", log, bulk=True, faults=Faults()) as connect,
        open_line(sink, store, Filters((), (), ("print",)), connect, follow, 1_048_576) as line,
    ):
        reading = asyncio.create_task(line.follower.run())
        while len(collector.ids()) < len(log.events):
            await asyncio.sleep(0.02)
        assert list(collector.events) == ["/test.log"]
        go_on.set()
        await reading
    store.close()
    assert len(collector.events) == 1 + len(log.recordings)
