"""From a simulated cluster over real TLS and gRPC to a collector that demands a client certificate: nothing lost,
nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

import pytest

from event_handler.errors import ConnectError
from event_handler.ports import Sink
from event_handler.runtime.lockout import LockSettings, LoginLockout
from event_handler.runtime.login_watch import LoginWatch
from event_handler.runtime.session import FollowSettings
from event_handler.runtime.sinks import Filters, PlannedSink
from event_handler.runtime.worker import Worker, open_worker
from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import Generator, encode, stamp
from event_handler.simulator.log import AuditLog, day_of
from event_handler.simulator.server import AuthServer, Faults
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.auth.credentials import read_identity
from event_handler.teleport.auth.tls import ClientContext, client_context
from event_handler.teleport.rpc import connection
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Route, direct
from event_handler.teleport.transport.connector import Connector, always
from tests.e2e.conftest import Collector
from tests.support.checkpoints import read_position

CLUSTER = "sim.test"
DAY = 86400.0


def client_at(address: str, context: ClientContext) -> Client:
    return Client(Connection(Connector(always(Route("direct", address, direct(address)))), context))


@asynccontextmanager
async def cluster(directory: Path, log: AuditLog, *, bulk: bool, faults: Faults) -> AsyncIterator[Callable[[], Client]]:
    write_cluster_files(directory, CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=bulk, faults=faults).start(directory, "127.0.0.1", 0)
    context = client_context(read_identity(str(directory / "identity")))
    try:
        yield lambda: client_at(f"127.0.0.1:{port}", context)
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
        "cluster": CLUSTER,
        "start": start,
        "window": DAY,
        "page": 0,
        "types": (),
        "look_back": 300.0,
        "search_poll": 0.1,
        "bulk_poll": 0.1,
        "late_days": 3,
        "concurrency": 5,
        "missing_ttl": 3600.0,
        "recordings": True,
        "startup_timeout": 0.0,
        "exit_on_last_event": True,
    }
    return FollowSettings(**{**values, **changes})  # type: ignore[arg-type] # the values are right, mypy sees objects


@asynccontextmanager
async def line_into(sink: Sink, store: SqliteStore, filters: Filters, *rest: Any) -> AsyncIterator[Worker]:
    """A line whose sink is closed with it."""
    try:
        async with open_worker(PlannedSink(sink, filters), store, *rest) as line:
            yield line
    finally:
        await sink.close()


async def run(
    connect: Callable[[], Client],
    settings: FluentdOptions,
    state: Path,
    follow: FollowSettings,
    in_flight: int = 8 * 1024 * 1024,
) -> None:
    store = SqliteStore(state)
    filters = Filters((), (), ("print", "desktop.recording"))
    try:
        async with line_into(FluentdSink(settings), store, filters, connect, follow, in_flight) as line:
            await line.follower.run()
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
async def test_a_failing_collector_and_a_failing_cluster_lose_nothing(
    tmp_path: Path, collector: Collector, bulk: bool
) -> None:
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


async def test_a_chunk_that_its_server_gives_no_event_of_is_found_by_search(
    tmp_path: Path, collector: Collector
) -> None:
    log = a_log(300)
    log.cut_chunks(50, late=0, late_seconds=0.0, duplicates=0.0)
    day = day_of(time() - DAY)
    lonely = Generator(CLUSTER, seed=13).event(datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC).timestamp())
    log.add(lonely)
    log.add_chunk(day, [lonely]).messages.clear()
    async with cluster(tmp_path / "sim", log, bulk=True, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60))
    assert collector.ids() == Counter(event.id for event in log.events)


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_a_start_time_in_the_future_is_waited_for(tmp_path: Path, collector: Collector, bulk: bool) -> None:
    log = a_log(20)
    async with cluster(tmp_path / "sim", log, bulk=bulk, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(time() + 3 * DAY))
    assert collector.requests == 0


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_failed_logins_lock_their_user_on_the_cluster_without_any_sink(tmp_path: Path, bulk: bool) -> None:
    log = AuditLog()
    for number in range(4):
        moment = time() - 20 + number
        content = {
            "event": "user.login",
            "uid": f"f{number}",
            "ei": 0,
            "time": stamp(moment),
            "success": False,
            "user": "mallory",
        }
        log.add(encode(content, moment))
    log.cut_chunks(10, late=0, late_seconds=0.0, duplicates=0.0)
    store = SqliteStore(tmp_path / "state")
    lockout = LoginLockout(LockSettings(4, 60.0, 0.0), store)
    async with cluster(tmp_path / "sim", log, bulk=bulk, faults=Faults()) as connect:
        watching = asyncio.create_task(LoginWatch(connect, lockout).run())
        while not lockout.locked:
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    store.close()
    locks = [json.loads(text) for text in (tmp_path / "sim" / "locks.jsonl").read_text().splitlines()]
    assert [(lock["name"], lock["user"], lock["login"]) for lock in locks] == [
        ("event-handler-auto-lock-mallory-", "mallory", "")
    ]


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_a_log_whose_newest_events_are_filtered_comes_to_its_end(
    tmp_path: Path, collector: Collector, bulk: bool
) -> None:
    log = AuditLog()
    for number in range(5):
        moment = time() - 5 + number
        log.add(encode({"event": "cert.create", "uid": f"c{number}", "ei": 0, "time": stamp(moment)}, moment))
    log.cut_chunks(10, late=0, late_seconds=0.0, duplicates=0.0)
    store = SqliteStore(tmp_path / "state")
    async with cluster(tmp_path / "sim", log, bulk=bulk, faults=Faults()) as connect:
        sink, filters = FluentdSink(collector.settings), Filters((), ("cert.create",), ())
        async with line_into(sink, store, filters, connect, following(time() - DAY), 1_048_576) as line:
            await asyncio.wait_for(line.follower.run(), 30)
    store.close()
    assert collector.requests == 0


class ForgetfulLog(AuditLog):
    """Loses the event of every page key that it gives, as a file log does that is rotated while it is read.

    A search for one event only asks when the newest was, and what it gives is not read yet.
    """

    def page(self, since: float, until: float, limit: int, *asked: Any) -> tuple[list[bytes], str]:
        events, key = super().page(since, until, limit, *asked)
        if limit == 1:
            return events, key
        self.events = [event for event in self.events if event.id != key.partition("/")[0]]
        return events, key


async def test_page_keys_that_the_server_loses_are_survived(tmp_path: Path, collector: Collector) -> None:
    log = a_log(200)
    expected = Counter(event.id for event in log.events)
    forgetful = ForgetfulLog(log.events)
    async with cluster(tmp_path / "sim", forgetful, bulk=False, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 10, page=30))
    assert len(forgetful.events) < len(log.events)
    assert collector.ids() == expected


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_a_collector_that_stalls_for_longer_than_a_stream_may_stops_nothing(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, bulk: bool
) -> None:
    monkeypatch.setattr(connection, "STALL_TIMEOUT", 0.3)
    log = a_log(6000)
    log.cut_chunks(3000, late=0, late_seconds=0.0, duplicates=0.0)
    async with cluster(tmp_path / "sim", log, bulk=bulk, faults=Faults()) as connect:
        collector.stall_once = 1.0
        await run(connect, collector.settings, tmp_path / "state", following(time() - 2 * DAY - 60), in_flight=300_000)
    assert collector.ids() == Counter(event.id for event in log.events)


async def test_a_search_that_is_stopped_goes_on_in_the_middle_of_its_window(
    tmp_path: Path, collector: Collector
) -> None:
    log = a_log(3000)
    begin = time() - 2 * DAY - 60
    settings = following(begin, page=100, window=100 * DAY, exit_on_last_event=False)
    async with cluster(tmp_path / "sim", log, bulk=False, faults=Faults()) as connect:
        running = asyncio.create_task(run(connect, collector.settings, tmp_path / "state", settings, in_flight=100_000))
        while collector.ids().total() < 1500:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    store = SqliteStore(tmp_path / "state")
    position = await read_position(store)
    store.close()
    assert position is not None
    assert position > log.events[100].time  # three ranges side by side, and this is how far the first has come
    async with cluster(tmp_path / "sim", log, bulk=False, faults=Faults()) as connect:
        await run(connect, collector.settings, tmp_path / "state", following(begin, page=100, window=100 * DAY))
    assert collector.ids() == Counter(event.id for event in log.events)


async def test_a_lost_connection_does_not_look_like_a_wish_to_stop(tmp_path: Path) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "server.pem")
    server_side.set_alpn_protocols(["h2"])

    async def close_soon(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        writer.transport.abort()

    server = await asyncio.start_server(close_soon, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    client = client_at(f"127.0.0.1:{port}", client_context(read_identity(str(tmp_path / "identity"))))
    with pytest.raises(ConnectError, match="lost during Ping"):
        await client.ping()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    client.close()
    server.close()
    await server.wait_closed()


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


async def test_a_cluster_that_is_away_is_an_error_only_after_the_startup_timeout(
    tmp_path: Path, collector: Collector
) -> None:
    log = a_log(1)
    async with cluster(tmp_path / "sim", log, bulk=True, faults=Faults()) as connect:
        del connect
        context = client_context(read_identity(str(tmp_path / "sim" / "identity")))
    settings = FluentdOptions(url="https://localhost:1/a", session_url="https://localhost:1/b")
    with pytest.raises(ConnectError, match=r"not reached within 1 s .*cannot connect to 127\.0\.0\.1:1"):
        await run(
            lambda: client_at("127.0.0.1:1", context),
            settings,
            tmp_path / "state",
            following(time(), startup_timeout=1.0),
        )


async def test_another_clusters_server_is_not_trusted_and_said_so(tmp_path: Path, collector: Collector) -> None:
    write_cluster_files(tmp_path / "other", "other.test")
    context = client_context(read_identity(str(tmp_path / "other" / "identity")))
    log = AuditLog()
    write_cluster_files(tmp_path / "sim", CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=True, faults=Faults()).start(
        tmp_path / "sim", "127.0.0.1", 0
    )
    client = client_at(f"127.0.0.1:{port}", context)
    try:
        with pytest.raises(ConnectError, match="not trusted"):
            await client.ping()
    finally:
        client.close()
        server.close()
        await server.wait_closed()


async def test_a_cluster_that_loses_bulk_export_while_it_is_read_is_read_on_by_search_and_the_other_way_round(
    tmp_path: Path, collector: Collector
) -> None:
    log = a_log(300)
    generator = Generator(CLUSTER, seed=17)
    write_cluster_files(tmp_path / "sim", CLUSTER)
    context = client_context(read_identity(str(tmp_path / "sim" / "identity")))
    nobody = port = 1
    settings = following(time() - 2 * DAY - 60, exit_on_last_event=False)
    running = asyncio.create_task(
        run(lambda: client_at(f"127.0.0.1:{port}", context), collector.settings, tmp_path / "state", settings)
    )
    for bulk in (True, False, True):
        log.add(generator.event(time() - 1))
        log.chunks.clear()
        log.cut_chunks(50, late=0, late_seconds=0.0, duplicates=0.0)
        auth = AuthServer(log, cluster=CLUSTER, bulk=bulk, faults=Faults())
        server, port = await auth.start(tmp_path / "sim", "127.0.0.1", 0 if port == nobody else port)
        async with asyncio.timeout(60):
            while collector.ids().keys() != {event.id for event in log.events}:
                await asyncio.sleep(0.02)
        server.close()
        await server.wait_closed()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert collector.ids() == Counter(event.id for event in log.events)


async def test_a_cluster_that_changes_its_back_end_is_read_on_without_loss_or_repeat(
    tmp_path: Path, collector: Collector
) -> None:
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
