"""A collector that takes no recordings holds up the audit log not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from time import time

from event_handler.event import Event
from event_handler.ports import Verdict
from event_handler.runtime.sinks import Filters
from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import Generator
from event_handler.simulator.faults import FaultyRelay
from event_handler.simulator.server import AuthServer, Faults
from event_handler.sinks.fluentd import FluentdSink
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.auth.credentials import read_identity
from event_handler.teleport.auth.tls import client_context
from tests.e2e.conftest import Collector
from tests.e2e.test_cluster_to_collector import CLUSTER, DAY, a_log, client_at, cluster, following, line_into


class AuditFirst(FluentdSink):
    """Holds back every batch of a recording until it is told to go on."""

    def hold(self) -> asyncio.Event:
        self.go_on, self.held = asyncio.Event(), 0
        return self.go_on

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if events[0].session_id:
            self.held += 1
            await self.go_on.wait()
        return await super().deliver(events)


async def test_recordings_that_are_not_taken_do_not_hold_up_the_audit_log(tmp_path: Path, collector: Collector) -> None:
    log = a_log(1500, sessions=60)
    log.cut_chunks(300, late=0, late_seconds=0.0, duplicates=0.0)
    store = SqliteStore(tmp_path / "state")
    sink = AuditFirst(collector.settings)
    go_on = sink.hold()
    follow = following(time() - 2 * DAY - 60, concurrency=100)
    async with (
        asyncio.timeout(60),
        cluster(tmp_path / "sim", log, bulk=True, faults=Faults()) as connect,
        line_into(sink, store, Filters((), (), ("print",)), connect, follow, 1_048_576) as line,
    ):
        reading = asyncio.create_task(line.follower.run())
        while len(collector.ids()) < len(log.events):
            await asyncio.sleep(0.02)
        assert list(collector.events) == ["/test.log"]
        go_on.set()
        await reading
    store.close()
    assert len(collector.events) == 1 + len(log.recordings)


async def test_recordings_that_are_not_taken_do_not_hold_up_the_audit_log_after_a_lost_connection(
    tmp_path: Path, collector: Collector
) -> None:
    log = a_log(300, sessions=4)
    write_cluster_files(tmp_path / "sim", CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=False, faults=Faults()).start(
        tmp_path / "sim", "127.0.0.1", 0
    )
    relay = FaultyRelay(f"127.0.0.1:{port}")
    address, context = await relay.start(), client_context(read_identity(str(tmp_path / "sim" / "identity")))
    store, sink = SqliteStore(tmp_path / "state"), AuditFirst(collector.settings)
    go_on = sink.hold()
    follow = following(time() - 2 * DAY - 60, exit_on_last_event=False)
    async with (
        asyncio.timeout(30),
        line_into(
            sink, store, Filters((), (), ("print",)), lambda: client_at(address, context), follow, 1_048_576
        ) as line,
    ):
        reading = asyncio.create_task(line.follower.run())
        while len(collector.ids()) < len(log.events) or not sink.held:
            await asyncio.sleep(0.02)
        relay.trouble.cut_handshakes = 2  # a call fails, which ends the source
        relay.cut_all()
        log.add(Generator(CLUSTER, seed=19).event(time()))
        while len(collector.ids()) < len(log.events):
            await asyncio.sleep(0.02)
        assert list(collector.events) == ["/test.log"]
        go_on.set()
        while (await store.waiting_recordings())[0]:
            await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    store.close()
    await relay.close()
    server.close()
    await server.wait_closed()
    for sid, (_, recorded) in log.recordings.items():
        kinds = [event["event"] for event in collector.events[f"/session.{sid}.log"]]
        assert kinds == [event.type for event in recorded if event.type != "print"]
