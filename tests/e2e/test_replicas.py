"""Several real processes share one cluster, with their state in a real PostgreSQL: killed, paused, stopped, cut off."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.postgresql_server import Server, no_postgresql, serving
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

PATIENCE = 90.0  # seconds, on a busy machine too
TAKEN_OVER_WITHIN = 10.0  # seconds; as promised
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


def repeats(collector: Collector) -> int:
    ids = collector.ids()
    return ids.total() - len(ids)


async def test_three_replicas_deliver_every_event_once_and_each_takes_its_share(
    tmp_path: Path, collector: Collector, database: str
) -> None:
    collector.slow = 0.02
    options = ("--events=6000", "--sessions=20", "--chunk=100")
    async with simulated(tmp_path / "sim", *options) as ready, replicas(tmp_path, ready, collector, database) as all_of:
        for _ in range(3):
            await all_of.start("--exit-on-last-event", "--fluentd-max-connections=1")
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(one.rest() for one in all_of.running))
    assert [one.process.returncode for one in all_of.running] == [0, 0, 0], all_of.running[0].lines[-3:]
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    assert collector.ids() == Counter(manifest["events"])
    of_sessions = Counter(path.removeprefix("/session.").removesuffix(".log") for path in collector.events)
    assert all(of_sessions[sid] for sid in manifest["recordings"])
    shares = [line["events"] for one in all_of.running for line in one.lines if line["event"] == "delivered"]
    assert sum(shares) == 6000
    assert min(shares) > 600, shares
