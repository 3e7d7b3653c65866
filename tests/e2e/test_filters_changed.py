"""A filter that was wrong and is put right: the process says from where the new one counts, and reads the past again
when asked.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time

import pytest

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import encode, stamp
from event_handler.simulator.server import AuthServer, Faults
from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler
from tests.e2e.test_filters import CLUSTER, LOGINS, OTHERS, SESSION, a_log, delivered

OLD = 40 * 3600.0  # seconds
# seconds after the others; what lies within the look-back time of the last event is searched again at a start
LATER = 3600.0


async def lines_of(config: Path, *options: str, code: int = 0) -> list[str]:
    """Run until everything is delivered; return what was logged."""
    process = await handler(config, "--exit-on-last-event", "--log-format=json", *options)
    _, errors = await process.communicate()
    assert process.returncode == code, errors.decode()[-2000:]
    return [json.loads(line)["event"] for line in errors.splitlines() if line.startswith(b"{")]


def told(lines: list[str], text: str) -> bool:
    return any(text in line for line in lines)


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_the_past_is_read_again_once(tmp_path: Path, collector: Collector, bulk: bool) -> None:
    log, last = a_log(age=OLD), set()
    if not bulk:
        last = {"user.update T1003I"}
        moment = time() - OLD + LATER
        log.add(
            encode(
                {"event": "user.update", "code": "T1003I", "uid": "user.update T1003I", "ei": 0, "time": stamp(moment)},
                moment,
            )
        )
    write_cluster_files(tmp_path / "sim", CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=bulk, faults=Faults()).start(
        tmp_path / "sim", "127.0.0.1", 0
    )
    config = configuration(
        tmp_path, {"address": f"127.0.0.1:{port}", "identity": tmp_path / "sim" / "identity"}, collector
    )
    again = f"--reread-from={datetime.now(UTC) - timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
    try:
        async with asyncio.timeout(100):
            assert told(await lines_of(config, "--types=user.logn*"), "matches no event type")
            assert delivered(collector) == set()
            assert told(await lines_of(config, "--types=user.login"), "filters changed since the last start")
            assert delivered(collector) == set()
            lines = await lines_of(config, "--types=user.login", again)
            assert told(lines, "reading goes back")
            assert not told(lines, "filters changed")
            assert delivered(collector) == LOGINS
            lines = await lines_of(config, again)
            assert told(lines, "at an earlier start already")
            assert delivered(collector) == LOGINS | last
            await lines_of(config, f"--reread-from={datetime.now(UTC) - timedelta(days=4):%Y-%m-%dT%H:%M:%SZ}")
            assert delivered(collector) == LOGINS | OTHERS | SESSION | last
            assert max(collector.ids().values()) == 1
    finally:
        server.close()
        await server.wait_closed()
