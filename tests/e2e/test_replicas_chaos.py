"""Three replicas are killed, paused and cut off from their database for minutes: nothing is lost.

The environment's REPLICAS_CHAOS_EVENTS makes the log longer: 10,000,000 take some hours.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from pathlib import Path

import pytest

from event_handler.simulator.faults import FaultyRelay
from tests.contract.postgresql_server import no_postgresql, serving
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, handler, simulated
from tests.e2e.test_replicas import Replicas, replicas

EVENTS = int(os.environ.get("REPLICAS_CHAOS_EVENTS", "150000"))
SESSIONS = EVENTS // 500
KILL_EVERY, PAUSE_EVERY, CUT_EVERY = 4.0, 10.0, 7.0  # seconds; a process needs two to be at work again
PAUSED = 8.0  # seconds: longer than its sign of life holds
LONGEST = 60.0 + EVENTS / 250  # seconds

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(LONGEST * 1.5),
    pytest.mark.skipif(bool(no_postgresql()), reason=no_postgresql() or "-"),
]


async def quietly(one: Started) -> None:
    """Read its log to the end, which would stop it otherwise."""
    while line := await one.process.stderr.readline():  # type: ignore[union-attr]
        if line.startswith(b"{"):
            one.lines.append(json.loads(line))
    await one.process.wait()


class Chaos:
    """Keeps three processes running and does them harm, until it is told that enough is enough."""

    def __init__(self, all_of: Replicas, relay: FaultyRelay) -> None:
        self.all_of, self.relay, self.dice = all_of, relay, random.Random(7)
        self.calm, self.over = asyncio.Event(), asyncio.Event()
        self.slots: list[Started] = []
        self.kills = self.pauses = 0
        self.logs: list[asyncio.Task[None]] = []

    async def start(self) -> Started:
        config = self.all_of.config
        one = Started(await handler(config, "--log-format=json", "--poll-interval=300ms"))
        self.all_of.running.append(one)
        self.logs.append(asyncio.create_task(quietly(one)))
        return one

    async def run(self) -> None:
        self.slots = [await self.start() for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for harm in (self.kill, self.pause, self.cut, self.revive):
                group.create_task(harm())

    async def every(self, seconds: float) -> bool:
        """Wait so long; return whether to go on."""
        try:
            await asyncio.wait_for(self.calm.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def kill(self) -> None:
        while await self.every(KILL_EVERY):
            self.dice.choice(self.slots).process.kill()
            self.kills += 1

    async def pause(self) -> None:
        while await self.every(PAUSE_EVERY):
            one = self.dice.choice(self.slots)
            if one.process.returncode is None:
                self.pauses += 1
                one.process.send_signal(signal.SIGSTOP)
                await self.every(PAUSED)
                if one.process.returncode is None:
                    one.process.send_signal(signal.SIGCONT)

    async def cut(self) -> None:
        while await self.every(CUT_EVERY):
            self.relay.cut_all()

    async def revive(self) -> None:
        while not self.over.is_set():
            for at, one in enumerate(self.slots):
                if one.process.returncode is not None:
                    self.slots[at] = await self.start()
            await asyncio.sleep(0.1)


async def test_nothing_is_lost_whatever_happens_to_three_replicas(tmp_path: Path, collector: Collector) -> None:
    cluster = tmp_path / "sim"
    chunk = max(100, EVENTS // 2000)
    options = (f"--events={EVENTS}", f"--sessions={SESSIONS}", f"--chunk={chunk}")
    collector.slow, collector.fail_every = 0.05, 50
    with serving() as server:
        relay = FaultyRelay(f"127.0.0.1:{server.port}")
        address = await relay.start()
        url = server.url(host="127.0.0.1").replace(f"127.0.0.1:{server.port}", address)
        async with simulated(cluster, *options) as ready, replicas(tmp_path, ready, collector, url) as all_of:
            chaos = Chaos(all_of, relay)
            harming = asyncio.create_task(chaos.run())
            manifest = json.loads((cluster / "manifest.json").read_text())
            expected, recordings = set(manifest["events"]), [f"/session.{sid}.log" for sid in manifest["recordings"]]
            async with asyncio.timeout(LONGEST):
                while len(collector.ids()) < EVENTS * 0.9 and not harming.done():
                    await asyncio.sleep(0.5)
                chaos.calm.set()
                while expected - set(collector.ids()) or any(path not in collector.events for path in recordings):
                    await asyncio.sleep(0.5)
            chaos.over.set()
            await harming
            for one in all_of.running:
                if one.process.returncode is None:
                    one.process.terminate()
            await asyncio.gather(*chaos.logs)
        await relay.close()
    ids = collector.ids()
    print(f"\n{chaos.kills} kills, {chaos.pauses} pauses, {relay.cuts} connections cut; {len(ids)} events,", end=" ")
    print(f"{ids.total() - len(ids)} repeats, {len(recordings)} recordings")
    assert set(ids) == expected
    assert chaos.kills > 2
