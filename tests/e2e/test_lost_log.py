"""A state file whose SQLite log is lost, after a power cut or in a copy, goes on where the first start began and not
at "now".
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import time

import pytest

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import Generator
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler
from tests.e2e.test_locks import CLUSTER, grow


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_a_state_without_its_log_loses_no_event(tmp_path: Path, collector: Collector, bulk: bool) -> None:
    log, generator = AuditLog(seed=7), Generator(CLUSTER, seed=7)
    write_cluster_files(tmp_path / "sim", CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=bulk, faults=Faults()).start(
        tmp_path / "sim", "127.0.0.1", 0
    )
    config = configuration(
        tmp_path, {"address": f"127.0.0.1:{port}", "identity": tmp_path / "sim" / "identity"}, collector
    )
    config.write_text(
        "".join(line for line in config.read_text().splitlines(keepends=True) if "start-time" not in line)
    )
    process = await handler(config, "--poll-interval=200ms", stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(60):
        while not list((tmp_path / "storage").glob("*/fluentd/state.db")):
            await asyncio.sleep(0.05)
        for _ in range(3):
            grow(log, [generator.event(time() + 1.0 + number / 1000) for number in range(100)])
            while collector.ids().total() < len(log.events):
                await asyncio.sleep(0.05)
    process.kill()
    await process.wait()
    grow(log, [generator.event(time()) for _ in range(100)])
    (state,) = (tmp_path / "storage").glob("*/fluentd/state.db")
    for part in ("-wal", "-shm"):
        state.with_name(state.name + part).unlink()
    await asyncio.sleep(2.0)  # so that "now" would be later than all of them
    process = await handler(config, "--exit-on-last-event")
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    assert set(collector.ids()) == {event.id for event in log.events}
    server.close()
    await server.wait_closed()
