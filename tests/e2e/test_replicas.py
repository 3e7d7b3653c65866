"""Several real processes share one cluster, with their state in a real PostgreSQL: killed, paused, stopped, cut off."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.postgresql_server import PASSWORD, Server, no_postgresql, serving
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

PATIENCE = 90.0  # seconds, on a busy machine too
pytestmark = pytest.mark.skipif(bool(no_postgresql()), reason=no_postgresql() or "-")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> str:
    """One of its own for each test."""
    name = f"of_{abs(hash(request.node.name)) % 10**8}"
    server.ask(f"CREATE DATABASE {name}")
    return server.url(host="127.0.0.1", database=name)


class Replicas:
    """Processes with the same configuration."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.running: list[Started] = []

    async def start(self, *more: str) -> Started:
        started = Started(await handler(self.config, "--log-format=json", "--poll-interval=300ms", *more))
        self.running.append(started)
        return started

    async def stop(self) -> None:
        for one in self.running:
            if one.process.returncode is None:
                one.process.send_signal(signal.SIGCONT)
                one.process.kill()
                await one.process.communicate()


@asynccontextmanager
async def replicas(
    directory: Path, ready: dict[str, Any], collector: Collector, database: str
) -> AsyncIterator[Replicas]:
    config = configuration(directory, ready, collector)
    config.write_text(config.read_text().replace(f'storage = "{directory}/storage"', f'storage = "{database}"'))
    made = Replicas(config)
    try:
        yield made
    finally:
        await made.stop()


async def until_delivered(collector: Collector, expected: set[str], path: str = "/test.log") -> None:
    async with asyncio.timeout(PATIENCE):
        while expected - set(collector.ids(path)):
            await asyncio.sleep(0.05)


def events_of(directory: Path) -> set[str]:
    return set(json.loads((directory / "manifest.json").read_text())["events"])


async def test_three_replicas_deliver_every_event_once_and_each_takes_its_share(
    tmp_path: Path, collector: Collector, database: str
) -> None:
    collector.fail_every = 1  # until all are there
    options = ("--events=12000", "--sessions=20", "--chunk=100")
    few = ("--exit-on-last-event", "--max-in-flight-bytes=1048576")  # so that none can hold all of it
    async with simulated(tmp_path / "sim", *options) as ready, replicas(tmp_path, ready, collector, database) as all_of:
        for _ in range(3):
            await (await all_of.start(*few)).until("connected to Teleport")
        collector.fail_every, collector.slow = 0, 0.05
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(one.rest() for one in all_of.running))
    assert [one.process.returncode for one in all_of.running] == [0, 0, 0], all_of.running[0].lines[-3:]
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    assert collector.ids() == Counter(manifest["events"])
    of_sessions = Counter(path.removeprefix("/session.").removesuffix(".log") for path in collector.events)
    assert all(of_sessions[sid] for sid in manifest["recordings"])
    shares = [line["events"] for one in all_of.running for line in one.lines if line["event"] == "delivered"]
    assert sum(shares) == 12_000
    assert min(shares) > 0, shares


LIVE = ("--events=400", "--sessions=0", "--live=40", "--live-seconds=45")


def logged(directory: Path) -> set[str]:
    live = directory / "live.ids"
    return events_of(directory) | set(live.read_text().split() if live.exists() else [])


async def reading_and_waiting(all_of: Replicas, collector: Collector) -> tuple[Started, Started]:
    """One that has the turn to search and has delivered the past, and one that waits for its turn."""
    first = await all_of.start()
    await first.until("connected to Teleport")
    while len(collector.ids()) < 400:
        await asyncio.sleep(0.02)
    second = await all_of.start()
    await second.until("connected to Teleport")
    return first, second


@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_what_a_killed_replica_had_is_taken_over_and_nothing_is_lost(
    tmp_path: Path, collector: Collector, database: str, mode: str
) -> None:
    """The one that is killed has the turn of the search, or chunks and recordings in its hands."""
    cluster = tmp_path / "sim"
    options = (f"--mode={mode}", "--chunk=100", "--events=12000", "--sessions=6")
    few = ("--max-in-flight-bytes=1048576",)  # so that what is left when it is killed is the most of it
    async with simulated(cluster, *options) as ready, replicas(tmp_path, ready, collector, database) as all_of:
        collector.slow = 0.5
        first = await all_of.start(*few, "--fluentd-max-connections=1")
        await first.until("connected to Teleport")
        while not collector.ids():
            await asyncio.sleep(0.02)
        second = await all_of.start(*few)
        first.process.kill()
        await first.process.communicate()
        collector.slow = 0.0
        await until_delivered(collector, events_of(cluster))
        manifest = json.loads((cluster / "manifest.json").read_text())
        async with asyncio.timeout(PATIENCE):
            while any(not collector.events.get(f"/session.{sid}.log") for sid in manifest["recordings"]):
                await asyncio.sleep(0.05)
        await second.stop()
    assert second.process.returncode == 0
    assert second.told("a replica has ended without a word") == 1


async def test_a_replica_that_is_told_to_stop_is_followed_at_once(
    tmp_path: Path, collector: Collector, database: str
) -> None:
    cluster = tmp_path / "sim"
    async with (
        simulated(cluster, "--mode=search", *LIVE) as ready,
        replicas(tmp_path, ready, collector, database) as all_of,
    ):
        first, second = await reading_and_waiting(all_of, collector)
        await first.stop()
        assert first.process.returncode == 0
        known = len(collector.ids())
        while len(collector.ids()) <= known:
            await asyncio.sleep(0.02)
        await second.stop()
    assert second.told("a replica has ended without a word") == 0
    assert collector.ids().total() == len(collector.ids()), "nothing was in flight"


async def test_a_replica_that_was_paused_can_neither_move_a_position_nor_take_anything(
    tmp_path: Path, collector: Collector, database: str
) -> None:
    """It sleeps for longer than its sign of life holds, with events in its hands, and begins again as a new one."""
    cluster = tmp_path / "sim"
    async with (
        simulated(cluster, "--mode=search", *LIVE) as ready,
        replicas(tmp_path, ready, collector, database) as all_of,
    ):
        first, second = await reading_and_waiting(all_of, collector)
        first.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE):
            await second.until("a replica has ended without a word")
        known = len(collector.ids())
        while len(collector.ids()) <= known + 40:
            await asyncio.sleep(0.02)
        first.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            await first.until("it begins again")
            await first.until("connected to Teleport")
        known = len(collector.ids())
        while len(collector.ids()) <= known + 40:
            await asyncio.sleep(0.02)
        second.process.kill()  # and the one that slept takes over in its turn
        await second.process.communicate()
        known = len(collector.ids())
        async with asyncio.timeout(PATIENCE):
            while len(collector.ids()) <= known + 40:
                await asyncio.sleep(0.02)
        await until_delivered(collector, logged(cluster))
        await first.stop()
    assert first.process.returncode == 0


async def test_a_database_that_is_restarted_costs_nothing_but_time(tmp_path: Path, collector: Collector) -> None:
    cluster = tmp_path / "sim"
    with serving() as own:
        async with (
            simulated(cluster, *LIVE, "--chunk=20") as ready,
            replicas(tmp_path, ready, collector, own.url(host="127.0.0.1")) as all_of,
        ):
            for _ in range(2):
                await (await all_of.start()).until("connected to Teleport")
            while len(collector.ids()) < 400:
                await asyncio.sleep(0.02)
            for how in (signal.SIGQUIT, signal.SIGINT):
                await asyncio.to_thread(own.stop, how)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(own.start)
                known = len(collector.ids())
                async with asyncio.timeout(PATIENCE):
                    while len(collector.ids()) <= known:
                        await asyncio.sleep(0.02)
            await until_delivered(collector, logged(cluster))
            for one in all_of.running:
                await one.stop()
                assert one.process.returncode == 0


async def test_a_sink_that_keeps_order_keeps_it_over_replicas(
    tmp_path: Path, collector: Collector, database: str
) -> None:
    """One replica reads for it at a time, chunk after chunk, and its successor goes on behind what was delivered."""
    cluster = tmp_path / "sim"
    options = ("--events=12000", "--sessions=0", "--chunk=200")
    async with simulated(cluster, *options) as ready, replicas(tmp_path, ready, collector, database) as all_of:
        ordered = ("--fluentd-ordered", "--max-in-flight-bytes=1048576")
        collector.slow = 0.3
        first = await all_of.start(*ordered)
        await first.until("connected to Teleport")
        while not collector.ids():
            await asyncio.sleep(0.02)
        second = await all_of.start(*ordered)
        await second.until("connected to Teleport")
        await first.stop()
        assert first.process.returncode == 0
        collector.slow = 0.0
        await until_delivered(collector, events_of(cluster))
        await second.stop()
    times = [str(event["time"]) for event in collector.events["/test.log"]]
    assert times == sorted(times)
    assert len(times) == 12_000
    shares = [line["events"] for one in all_of.running for line in one.lines if line["event"] == "delivered"]
    assert min(shares) > 0, "both had their part"


async def asked(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "event_handler", *command, stdout=PIPE, stderr=STDOUT
    )
    return (await process.communicate())[0].decode()


async def test_status_and_check_show_who_shares_the_work(
    tmp_path: Path, collector: Collector, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = tmp_path / "sim"
    async with AsyncExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory(prefix="run-"))  # a socket's path has 100 characters
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        ready = await stack.enter_async_context(simulated(cluster, "--mode=search", *LIVE))
        all_of = await stack.enter_async_context(replicas(tmp_path, ready, collector, database))
        for _ in range(2):
            await (await all_of.start()).until("connected to Teleport")
        names = [f"/{one.process.pid} (epoch " for one in all_of.running]
        config = f"--config={all_of.config}"
        told = ""
        async with asyncio.timeout(PATIENCE):
            while any(told.count(name) < 2 for name in names) or "fluentd: reading" not in told:
                told = await asked("status", config)
        assert "fluentd: reading" in told
        assert "this one" in told
        assert (await asked("status", "--alive", config)).count("alive") == 2
        checked = await asked("check", config)
        assert all(name in checked for name in names), checked
        assert "works, with" in checked
        assert PASSWORD not in told + checked
        shown = await asked("storage", "show", config)
        assert "database             postgresql://127.0.0.1" in shown
        for one in all_of.running:
            await one.stop()
        assert not list(Path(short).rglob("*.sock"))
        assert PASSWORD not in json.dumps([one.lines for one in all_of.running]), "nor is it in a log"
