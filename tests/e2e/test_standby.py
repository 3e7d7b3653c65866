"""Real processes of which one works and the other stands by, with a Lease and their state in a bucket: the one at work
is killed, told to stop, cut off and put to sleep.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest

from event_handler.kubernetes.lease import HOLDS
from tests.contract.lease_server import LeaseServer, lease_server
from tests.contract.minio_server import BUCKET, REGION, ROOT, no_minio, running
from tests.contract.pki import Pki, make_pki
from tests.contract.ports import free_ports
from tests.contract.state_bucket import StateBucket, state_bucket
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated
from tests.e2e.test_replicas import LIVE, logged, until_delivered

PATIENCE = 90.0  # seconds, on a busy machine too
KEYS = {"AWS_ACCESS_KEY_ID": ROOT.access_key, "AWS_SECRET_ACCESS_KEY": ROOT.secret_key}
needs_minio = pytest.mark.skipif(bool(no_minio()), reason=no_minio() or "-")


@dataclass
class Pair:
    """Processes with the same configuration, each with an account of its own at the API server."""

    config: Path
    leases: LeaseServer
    bucket: StateBucket
    running: list[Started]

    async def start(self, *more: str, lease: bool = True, **environment: str) -> Started:
        name = f"pod-{len(self.running)}"
        account = self.leases.account_of(name)
        options = ["--lease=kubernetes", f"--lease-account={account}"] if lease else []
        command = ("--log-format=json", "--poll-interval=300ms", *options, *more)
        variables: dict[str, Any] = KEYS | dict(self.leases.environment) | environment
        self.running.append(Started(await handler(self.config, *command, **variables)))
        return self.running[-1]

    async def stop(self) -> None:
        for one in self.running:
            if one.process.returncode is None:
                one.process.send_signal(signal.SIGCONT)
                one.process.kill()
                await one.process.communicate()

    def holder(self) -> str:
        return str(next(iter(self.leases.leases.values()))["spec"]["holderIdentity"])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"), "kubernetes")


@asynccontextmanager
async def pair(
    directory: Path, ready: dict[str, Any], collector: Collector, pki: Pki, *, storage: str = ""
) -> AsyncIterator[Pair]:
    config = configuration(directory, ready, collector)
    with state_bucket() as bucket:
        storage = storage or bucket.url("events")
        config.write_text(config.read_text().replace(f'storage = "{directory}/storage"', f'storage = "{storage}"'))
        async with lease_server(directory, pki) as leases:
            made = Pair(config, leases, bucket, [])
            try:
                yield made
            finally:
                await made.stop()


async def at_work(pair: Pair, collector: Collector, *more: str) -> tuple[Started, Started]:
    """One that has delivered what there was, and one that stands by."""
    first = await pair.start()
    await first.until("connected to Teleport")
    await more_than(collector, 400)
    second = await pair.start(*more)
    await second.until("standing by")
    return first, second


async def more_than(collector: Collector, events: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(collector.ids()) < events:
            await asyncio.sleep(0.02)


async def goes_on(collector: Collector) -> float:
    """Wait for a new event; return how long it took."""
    began, known = monotonic(), len(collector.ids())
    await more_than(collector, known + 1)
    return monotonic() - began


async def test_a_killed_one_is_followed_when_its_lease_has_ended_and_nothing_is_lost(
    tmp_path: Path, collector: Collector, pki: Pki
) -> None:
    cluster = tmp_path / "sim"
    async with simulated(cluster, "--mode=search", *LIVE) as ready, pair(tmp_path, ready, collector, pki) as both:
        first, second = await at_work(both, collector)
        first.process.kill()
        await first.process.communicate()
        took = await goes_on(collector)
        assert HOLDS - 3.0 < took < 2.0 * HOLDS, took
        print(f"taken over after {took:.1f} s")
        await until_delivered(collector, logged(cluster))
        await second.stop()
    assert second.process.returncode == 0
    assert both.holder() == ""


@needs_minio
async def test_a_killed_one_is_followed_with_a_real_bucket_too(tmp_path: Path, collector: Collector, pki: Pki) -> None:
    cluster = tmp_path / "sim"
    with running(tmp_path) as minio:
        storage = f"s3://{BUCKET}/events?endpoint={minio.url}&region={REGION}"
        async with (
            simulated(cluster, "--mode=bulk", "--chunk=20", *LIVE) as ready,
            pair(tmp_path, ready, collector, pki, storage=storage) as both,
        ):
            first, second = await at_work(both, collector)
            first.process.kill()
            await first.process.communicate()
            await second.until("connected to Teleport")
            await until_delivered(collector, logged(cluster))
            await second.stop()
        assert second.process.returncode == 0
        assert minio.names() == ["events/sim.test/fluentd/state.db.gz"]


async def test_one_that_is_told_to_stop_is_followed_at_once_and_the_other_was_ready(
    tmp_path: Path, collector: Collector, pki: Pki
) -> None:
    cluster = tmp_path / "sim"
    (port,) = free_ports(1)
    async with simulated(cluster, "--mode=search", *LIVE) as ready, pair(tmp_path, ready, collector, pki) as both:
        first, second = await at_work(both, collector, f"--listen=127.0.0.1:{port}")
        await second.until("listening")
        async with aiohttp.ClientSession() as session:
            for path in ("metrics", "healthz", "readyz", "api/report"):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    assert answer.status == 200, await answer.text()
                    said = await answer.json() if path == "api/report" else {}
            assert said["standing_by"]
        second.process.send_signal(signal.SIGHUP)  # which must not end one that waits
        await first.stop()
        took = await goes_on(collector)
        assert took < HOLDS - 3.0, took
        print(f"taken over after {took:.1f} s")
        await until_delivered(collector, logged(cluster))
        await second.stop()
    assert [first.process.returncode, second.process.returncode] == [0, 0]
    assert collector.ids().total() == len(collector.ids()), "its last write was before its end"


async def test_one_that_stands_by_ends_by_a_signal(tmp_path: Path, collector: Collector, pki: Pki) -> None:
    async with (
        simulated(tmp_path / "sim", "--mode=search", *LIVE) as ready,
        pair(tmp_path, ready, collector, pki) as both,
    ):
        first, second = await at_work(both, collector)
        await second.stop()
        assert second.process.returncode == 0
        assert second.told("Successfully shut down") == 1
        await goes_on(collector)
        await first.stop()


async def test_one_that_is_cut_off_from_the_api_server_stops_and_stands_by_in_the_same_process(
    tmp_path: Path, collector: Collector, pki: Pki
) -> None:
    cluster = tmp_path / "sim"
    async with simulated(cluster, "--mode=search", *LIVE) as ready, pair(tmp_path, ready, collector, pki) as both:
        first, second = await at_work(both, collector)
        both.leases.away.add("pod-0")
        began = monotonic()
        async with asyncio.timeout(PATIENCE):
            await first.until("could not be renewed and is given up")
            stopped = monotonic() - began
            await second.until("connected to Teleport")
        print(f"stopped after {stopped:.1f} s, taken over after {monotonic() - began:.1f} s")
        both.leases.away.clear()
        async with asyncio.timeout(PATIENCE):
            await first.until("standing by")
        await goes_on(collector)
        second.process.kill()  # and back again
        await second.process.communicate()
        async with asyncio.timeout(PATIENCE):
            await first.until("connected to Teleport")
        await until_delivered(collector, logged(cluster))
        await first.stop()
    assert first.process.returncode == 0


async def test_one_that_slept_can_move_no_position_and_stands_by(
    tmp_path: Path, collector: Collector, pki: Pki
) -> None:
    cluster = tmp_path / "sim"
    async with simulated(cluster, "--mode=search", *LIVE) as ready, pair(tmp_path, ready, collector, pki) as both:
        first, second = await at_work(both, collector)
        first.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE):
            await second.until("connected to Teleport")
        await goes_on(collector)
        refused = both.bucket.refused
        first.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            await first.until("it begins again")
            await first.until("standing by")
        assert both.bucket.refused > refused, "its last write"
        await goes_on(collector)
        await second.stop()
        async with asyncio.timeout(PATIENCE):
            await first.until("connected to Teleport")
        await until_delivered(collector, logged(cluster))
        await first.stop()
    assert [first.process.returncode, second.process.returncode] == [0, 0]


async def test_in_a_directory_that_both_see_the_next_one_goes_on_where_the_last_one_was(
    tmp_path: Path, collector: Collector, pki: Pki
) -> None:
    cluster = tmp_path / "sim"
    async with (
        simulated(cluster, "--mode=search", *LIVE) as ready,
        pair(tmp_path, ready, collector, pki, storage=f"{tmp_path}/storage") as both,
    ):
        first, second = await at_work(both, collector)
        await first.stop()
        assert await goes_on(collector) < HOLDS - 3.0
        assert collector.ids().total() == len(collector.ids()), "nothing was in flight"
        third = await both.start()
        await third.until("standing by")
        second.process.kill()
        await second.process.communicate()
        await third.until("connected to Teleport")
        await until_delivered(collector, logged(cluster))
        await third.stop()
    assert [first.process.returncode, third.process.returncode] == [0, 0]


async def test_without_a_lease_the_newer_process_has_the_state_and_the_older_one_says_so(
    tmp_path: Path, collector: Collector, pki: Pki
) -> None:
    cluster = tmp_path / "sim"
    async with simulated(cluster, "--mode=search", *LIVE) as ready, pair(tmp_path, ready, collector, pki) as both:
        first = await both.start("--storage-interval=500ms", lease=False)
        await first.until("connected to Teleport")
        await more_than(collector, 400)
        second = await both.start(lease=False)
        async with asyncio.timeout(PATIENCE):
            await first.rest()
        assert first.process.returncode == 80
        assert "another event handler works on the state in s3://" in first.error
        await until_delivered(collector, logged(cluster))
        await second.stop()
    assert second.process.returncode == 0


async def test_while_the_bucket_is_away_delivery_goes_on_and_the_last_write_comes_when_it_is_back(
    tmp_path: Path, collector: Collector, pki: Pki
) -> None:
    cluster = tmp_path / "sim"
    async with simulated(cluster, "--mode=search", *LIVE) as ready, pair(tmp_path, ready, collector, pki) as both:
        first = await both.start("--storage-interval=300ms")
        await first.until("connected to Teleport")
        await more_than(collector, 400)
        both.bucket.away = True
        async with asyncio.timeout(PATIENCE):
            await first.until("the state cannot be written")
        await goes_on(collector)
        both.bucket.away = False
        await goes_on(collector)
        await first.stop()
        assert first.process.returncode == 0
        known = collector.ids()
        second = await both.start("--exit-on-last-event")
        async with asyncio.timeout(PATIENCE):
            await second.rest()
    again = collector.ids() - known
    assert not set(again) & set(known), "what was remembered is not sent again"
    manifest = json.loads((cluster / "manifest.json").read_text())
    assert set(manifest["events"]) <= set(collector.ids())
