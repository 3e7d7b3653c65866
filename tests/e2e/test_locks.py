"""Login locks in the real process: every failed login is seen though no sink takes anything, and none is counted
twice.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import time

import pytest

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import Generator, LogEvent, encode, stamp
from event_handler.simulator.log import AuditLog, day_of
from event_handler.simulator.server import AuthServer, Faults
from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler

CLUSTER = "sim.test"
USERS = 10  # with five failed logins each
LOCKING = ("--lock-enabled", "--lock-failed-attempts-count=5", "--lock-period=5m")
DOWN = ("--fluentd-url=https://localhost:1/test.log", "--fluentd-session-url=https://localhost:1/session")


def failed_login(user: int, number: int) -> LogEvent:
    moment = time() - 30 + number
    content = {
        "event": "user.login",
        "code": "T1000W",
        "uid": f"failed-{user}-{number}",
        "ei": 0,
        "time": stamp(moment),
    }
    return encode(content | {"success": False, "user": f"mallory{user}"}, moment)


def grow(log: AuditLog, events: list[LogEvent]) -> None:
    for event in events:
        log.add(event)
    log.add_chunk(day_of(time()), events)


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_every_failed_login_is_seen_while_all_sinks_are_down_also_over_a_lost_connection(
    tmp_path: Path, collector: Collector, bulk: bool
) -> None:
    log, generator = AuditLog(seed=7), Generator(CLUSTER, seed=7)
    grow(log, [generator.event(time() - 3600 + number) for number in range(3000)])
    credentials = tmp_path / "sim"
    write_cluster_files(credentials, CLUSTER)
    auth = AuthServer(log, cluster=CLUSTER, bulk=bulk, faults=Faults())
    server, port = await auth.start(credentials, "127.0.0.1", 0)
    config = configuration(tmp_path, {"address": f"127.0.0.1:{port}", "identity": credentials / "identity"}, collector)
    for user in range(USERS):
        grow(log, [failed_login(user, number) for number in range(4)])
    options = (
        *LOCKING,
        *DOWN,
        f"--file-path={tmp_path / 'events'}",
        "--max-in-flight-bytes=1048576",
        "--shutdown-timeout=100ms",
    )
    process = await handler(config, *options, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(60):
            while not (tmp_path / "events").exists() or (tmp_path / "events").read_text().count("failed-") < 4 * USERS:
                await asyncio.sleep(0.1)
        assert auth.locks == []
        server.close()
        await server.wait_closed()
        for user in range(USERS):
            grow(log, [failed_login(user, 4)])
        server, _ = await auth.start(credentials, "127.0.0.1", port)
        async with asyncio.timeout(60):
            while len(auth.locks) < USERS:
                await asyncio.sleep(0.1)
    finally:
        process.terminate()
        await process.wait()
        server.close()
        await server.wait_closed()
    made = [json.loads(line)["user"] for line in (credentials / "locks.jsonl").read_text().splitlines()]
    assert sorted(made) == [f"mallory{user}" for user in range(USERS)]


async def test_a_run_to_the_last_event_makes_the_locks_that_are_due(tmp_path: Path, collector: Collector) -> None:
    log = AuditLog(seed=7)
    grow(log, [failed_login(0, number) for number in range(5)])
    credentials = tmp_path / "sim"
    write_cluster_files(credentials, CLUSTER)
    auth = AuthServer(log, cluster=CLUSTER, bulk=True, faults=Faults())
    server, port = await auth.start(credentials, "127.0.0.1", 0)
    config = configuration(tmp_path, {"address": f"127.0.0.1:{port}", "identity": credentials / "identity"}, collector)
    for _ in range(2):
        process = await handler(config, *LOCKING, "--exit-on-last-event")
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
        assert len(auth.locks) == 1
    server.close()
    await server.wait_closed()
