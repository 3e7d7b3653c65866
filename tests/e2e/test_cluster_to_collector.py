"""From a simulated cluster over real TLS and gRPC to a collector that demands a client certificate: nothing lost, nothing twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

import pytest

from event_handler.errors import ConnectError
from event_handler.pipeline.duplicates import DuplicateWindow
from event_handler.pipeline.engine import Pipeline
from event_handler.pipeline.select import Selector
from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import Generator, encode, stamp
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from event_handler.sinks.fluentd import FluentdSettings, FluentdSink
from event_handler.sources.follow import Follower, FollowSettings
from event_handler.state.store import Commit, Store
from event_handler.teleport.client import Client
from event_handler.teleport.connection import Connection
from event_handler.teleport.credentials import read_identity
from event_handler.teleport.dial import direct
from event_handler.teleport.tls import client_context
from tests.e2e.conftest import Collector

CLUSTER = "sim.test"
DAY = 86400.0


@asynccontextmanager
async def cluster(directory: Path, log: AuditLog, *, bulk: bool, faults: Faults) -> AsyncIterator[Callable[[], Client]]:
    write_cluster_files(directory, CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=bulk, faults=faults).start(directory, "127.0.0.1", 0)
    context = client_context(read_identity(str(directory / "identity")))
    try:
        yield lambda: Client(Connection(direct(f"127.0.0.1:{port}"), context))
    finally:
        server.close()
        await server.wait_closed()


def a_log(events: int, sessions: int = 0, days: float = 2.0) -> AuditLog:
    generator = Generator(CLUSTER, seed=7)
    log = AuditLog(seed=7)
    begin = time() - days * DAY
    for number in range(events):
        log.add(generator.event(begin + number * (days * DAY - 60) / events))
    for number in range(sessions):
        sid, announced, recording = generator.session(begin + number * 60, uploaded=number % 2 == 0)
        for event in announced:
            log.add(event)
        log.recordings[sid] = (0.0, recording)
    return log


def following(start: float, **changes: object) -> FollowSettings:
    values: dict[str, object] = {
        "start": start,
        "window": DAY,
        "page": 0,
        "types": (),
        "look_back": 300.0,
        "poll": 0.1,
        "late_days": 3,
        "concurrency": 5,
        "missing_ttl": 3600.0,
        "recordings": True,
        "startup_timeout": 0.0,
        "exit_on_last_event": True,
    }
    return FollowSettings(**{**values, **changes})  # type: ignore[arg-type] # the values are right, mypy sees objects


async def run(connect: Callable[[], Client], settings: FluentdSettings, state: Path, follow: FollowSettings) -> Pipeline:
    store = Store(state)
    window = DuplicateWindow()
    window.load(store.delivered_ids())
    selector = Selector("fluentd", window, skip_session_types=("print", "desktop.recording"))
    try:
        async with Pipeline(FluentdSink(settings), store, selector, 8 * 1024 * 1024) as line:
            await Follower(connect, line, store, follow).run()
            return line
    finally:
        store.close()


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_every_event_and_recording_arrives_once(tmp_path: Path, collector: Collector, bulk: bool) -> None:
    log = a_log(3000, sessions=6)
    log.cut_chunks(400, late=2, late_seconds=0.3, duplicates=0.05)
    async with cluster(tmp_path / "sim", log, bulk=bulk, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        if bulk:  # the late chunks may appear after the first run ended
            for chunks in log.chunks.values():
                for chunk in chunks:
                    chunk.visible = 0.0
            await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        expected = Counter(event.id for event in log.events)
        assert collector.ids() == expected
        recordings = {path: events for path, events in collector.events.items() if path.startswith("/session.")}
        assert recordings.keys() == {f"/session.{sid}.log" for sid in log.recordings}
        for sid, (_, recorded) in log.recordings.items():
            kinds = [event["event"] for event in recordings[f"/session.{sid}.log"]]
            assert kinds == [event.type for event in recorded if event.type != "print"]
        requests = collector.requests
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        assert collector.requests == requests


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_a_failing_collector_and_a_failing_cluster_lose_nothing(tmp_path: Path, collector: Collector, bulk: bool) -> None:
    log = a_log(3000)
    log.cut_chunks(500, late=0, late_seconds=0.0, duplicates=0.0)
    faults = Faults(unavailable_every=900)
    async with cluster(tmp_path / "sim", log, bulk=bulk, faults=faults) as connect:
        collector.fail_every = 3
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        assert collector.ids() == Counter(event.id for event in log.events)


async def test_an_event_of_six_mebibytes_passes(tmp_path: Path, collector: Collector) -> None:
    log = a_log(10)
    log.add(Generator(CLUSTER, seed=9).large_event(time() - 3600, 6 * 1024 * 1024))
    log.cut_chunks(100, late=0, late_seconds=0.0, duplicates=0.0)
    async with cluster(tmp_path / "sim", log, bulk=True, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        assert collector.ids() == Counter(event.id for event in log.events)


async def test_an_event_over_a_page_hides_nothing_that_follows_it(tmp_path: Path, collector: Collector) -> None:
    log = a_log(50)
    large = Generator(CLUSTER, seed=9).large_event(time() - DAY / 2, 2 * 1024 * 1024)
    log.add(large)
    async with cluster(tmp_path / "sim", log, bulk=False, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        assert collector.ids() == Counter(event.id for event in log.events if event is not large)


async def test_a_saved_key_that_the_server_lost_is_survived(tmp_path: Path, collector: Collector) -> None:
    log = a_log(200)
    begin = time() - 2 * DAY - 10
    saved = {"from": begin, "to": begin + DAY, "key": "00000000-0000-4000-8000-000000000000/1"}
    store = Store(tmp_path / "state")
    store.commit(Commit({"search": json.dumps(saved)}))
    store.close()
    async with cluster(tmp_path / "sim", log, bulk=False, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(begin))
        assert collector.ids() == Counter(event.id for event in log.events)


async def test_a_late_event_within_the_look_back_is_found(tmp_path: Path, collector: Collector) -> None:
    log = a_log(20)
    async with cluster(tmp_path / "sim", log, bulk=False, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        moment = time() - 100
        content = {"event": "user.login", "uid": "late-one", "ei": 0, "code": "T1000I", "time": stamp(moment)}
        log.add(encode(content, moment))
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
        assert collector.ids()["late-one"] == 1
        assert max(collector.ids().values()) == 1


async def test_a_cluster_that_is_away_is_an_error_only_after_the_startup_timeout(tmp_path: Path, collector: Collector) -> None:
    log = a_log(1)
    async with cluster(tmp_path / "sim", log, bulk=True, faults=Faults()) as connect:
        del connect
        context = client_context(read_identity(str(tmp_path / "sim" / "identity")))
    nowhere = direct("127.0.0.1:1")
    settings = FluentdSettings("https://localhost:1/a", "https://localhost:1/b")
    with pytest.raises(ConnectError, match=r"not reached within 1 s .*cannot connect to 127\.0\.0\.1:1"):
        await run(lambda: Client(Connection(nowhere, context)), settings, tmp_path / "state", following(time(), startup_timeout=1.0))


async def test_another_clusters_server_is_not_trusted_and_said_so(tmp_path: Path, collector: Collector) -> None:
    write_cluster_files(tmp_path / "other", "other.test")
    context = client_context(read_identity(str(tmp_path / "other" / "identity")))
    log = AuditLog()
    write_cluster_files(tmp_path / "sim", CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=True, faults=Faults()).start(tmp_path / "sim", "127.0.0.1", 0)
    client = Client(Connection(direct(f"127.0.0.1:{port}"), context))
    try:
        with pytest.raises(ConnectError, match="not trusted"):
            await client.ping()
    finally:
        client.close()
        server.close()
        await server.wait_closed()


async def test_a_cluster_that_changes_its_back_end_is_read_on_without_loss_or_repeat(tmp_path: Path, collector: Collector) -> None:
    log = a_log(1500)
    state, begin = tmp_path / "state", time() - 2 * DAY - 60
    late = Generator(CLUSTER, seed=11)
    for bulk in (False, True, False, True):
        log.add(late.event(time() - 1))
        log.chunks.clear()
        log.cut_chunks(200, late=0, late_seconds=0.0, duplicates=0.0)
        async with cluster(tmp_path / "sim", log, bulk=bulk, faults=Faults()) as connect:
            await run(connect, collector.settings, state, following(begin))
        assert collector.ids() == Counter(event.id for event in log.events)
