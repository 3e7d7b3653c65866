"""How the real process ends: by one signal or two, with a collector that hangs, by a dry run, and beside a second
process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from time import monotonic

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

HANGS = 3600.0  # seconds: longer than any test


async def hanging(config: Path, collector: Collector, *more: str) -> Started:
    """A handler with one request in flight that is not answered."""
    collector.stall_once = HANGS
    started = Started(await handler(config, "--log-format=json", *more))
    async with asyncio.timeout(60):
        while not collector.requests:
            await asyncio.sleep(0.01)
    return started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_collector_that_hangs_delays_the_end_by_the_shutdown_timeout_only_and_loses_nothing(
    tmp_path: Path, collector: Collector, number: signal.Signals
) -> None:
    async with simulated(tmp_path / "sim", "--events=50", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        started = await hanging(config, collector, "--shutdown-timeout=1s")
        began = monotonic()
        started.process.send_signal(number)
        async with asyncio.timeout(30):
            await started.rest()
        assert monotonic() - began >= 1.0
        assert started.process.returncode == 0
        assert started.told("stopped with events in flight; they are sent again at the next start") == 1
        again = await handler(config, "--exit-on-last-event")
        await again.communicate()
        assert again.returncode == 0
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    assert sorted(collector.ids().elements()) == sorted(manifest["events"])


async def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, collector: Collector) -> None:
    async with simulated(tmp_path / "sim", "--events=50", "--sessions=0") as ready:
        started = await hanging(configuration(tmp_path, ready, collector), collector, "--shutdown-timeout=1h")
        started.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await started.until("stopping")
            started.process.send_signal(signal.SIGTERM)
            await started.rest()
    assert started.process.returncode == -signal.SIGTERM


async def test_a_reader_of_the_log_that_ends_stops_neither_deliveries_nor_the_wish_to_stop(
    tmp_path: Path, collector: Collector
) -> None:
    collector.fail_every = 2
    async with simulated(tmp_path / "sim", "--events=3000", "--sessions=0") as ready:
        reading, writing = os.pipe()
        process = await handler(configuration(tmp_path, ready, collector), stderr=writing)
        os.close(writing)
        async with asyncio.timeout(60):
            while not collector.requests:
                await asyncio.sleep(0.005)
            os.close(reading)
            while len(collector.ids()) < 3000:
                await asyncio.sleep(0.05)
            process.terminate()
            assert await process.wait() == 0


async def test_a_second_process_on_the_same_storage_ends_and_names_the_first(
    tmp_path: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=50", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        first = await hanging(config, collector, "--shutdown-timeout=10ms")
        second = await handler(config)
        _, errors = await second.communicate()
        await first.stop()
    assert second.returncode == 1
    assert f"another event handler (pid {first.process.pid}) works in".encode() in errors.splitlines()[-1]


async def test_a_dry_run_tells_what_it_would_deliver_and_leaves_nothing_behind(
    tmp_path: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=40", "--sessions=2") as ready:
        config = configuration(tmp_path, ready, collector)
        started = Started(await handler(config, "--log-format=json", "--dry-run", "--exit-on-last-event"))
        async with asyncio.timeout(60):
            await started.rest()
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    told = {line["id"] for line in started.lines if line["event"] == "would deliver"}
    assert started.process.returncode == 0
    assert told == set(manifest["events"])
    assert collector.requests == 0
    assert not (tmp_path / "storage").exists()
