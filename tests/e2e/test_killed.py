"""The real process, killed with SIGKILL at random moments and started again: nothing lost, and repeated only what was
in flight.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

EVENTS = 20_000


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_kills_lose_nothing(tmp_path: Path, collector: Collector, mode: str, kills: int) -> None:
    options = (
        f"--mode={mode}",
        f"--events={EVENTS}",
        "--sessions=10",
        "--duplicates=0.02",
        "--unavailable-every=7000",
        "--days=3",
    )
    dice = random.Random(20)
    async with simulated(tmp_path / "sim", *options) as ready:
        config = configuration(tmp_path, ready, collector)
        for _ in range(kills):
            before = collector.requests
            process = await handler(config)
            target = before + dice.randrange(1, 4)
            while collector.requests < target and process.returncode is None:
                if before and collector.ids().total() >= EVENTS:
                    break
                await asyncio.sleep(0.005)
            await asyncio.sleep(dice.random() * 0.05)
            process.kill()
            await process.communicate()
        process = await handler(config, "--exit-on-last-event")
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    delivered = collector.ids()
    assert set(manifest["events"]) - set(delivered) == set()
    repeated = delivered.total() - len(delivered)
    in_flight = 10 * 500  # requests in flight times events of an array, the most that one kill can repeat
    assert repeated <= kills * in_flight
    assert {path for path in collector.events if path.startswith("/session.")} == {
        f"/session.{s}.log" for s in manifest["recordings"]
    }


async def test_sigterm_finishes_what_is_in_flight_and_the_next_start_repeats_nothing(
    tmp_path: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=5000", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        process = await handler(config)
        while collector.requests < 3:
            await asyncio.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
        assert b"Successfully shut down" in errors
        process = await handler(config, "--exit-on-last-event")
        await process.communicate()
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    assert sorted(collector.ids().elements()) == sorted(manifest["events"])


async def test_an_expired_or_absent_identity_ends_the_start_after_its_timeout_in_one_line_and_a_contradiction_at_once(
    tmp_path: Path, collector: Collector
) -> None:
    golden = Path(__file__).parents[1] / "data" / "golden" / "credentials"
    expired, absent, whole = golden / "tbot-directory" / "identity", tmp_path / "absent", golden / "identity"
    both = f'identity = "{whole}"\ncert = "{whole}"\n'
    for table, more, code, reason in (
        (f'identity = "{absent}"\n', ("--startup-timeout=100ms",), 1, "there is no file"),
        (f'identity = "{expired}"\n', ("--startup-timeout=100ms",), 1, "expired at"),
        (both, (), 80, "are both configured"),
    ):
        config = configuration(tmp_path, {}, collector, teleport=f'addr = "127.0.0.1:1"\n{table}')
        started = Started(await handler(config, *more))
        async with asyncio.timeout(60):
            await started.rest()
        assert started.process.returncode == code
        assert reason in started.error
        assert len(started.error.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_cluster_is_away_ends_it_with_success(
    tmp_path: Path, collector: Collector, number: signal.Signals
) -> None:
    golden = Path(__file__).parents[1] / "data" / "golden" / "credentials" / "identity"
    ready = {"address": "127.0.0.1:1", "identity": str(golden)}
    started = Started(await handler(configuration(tmp_path, ready, collector)))
    await started.until("cannot read now")
    started.process.send_signal(number)
    await started.rest()
    assert started.process.returncode == 0, started.error
    assert started.told("Successfully shut down") == 1
