"""A cluster that takes a call and never answers it does not hold up the handler for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from time import time

import pytest
from grpclib.server import Stream

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.server import AuthServer, Faults
from event_handler.teleport.auth.credentials import read_identity
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc import connection
from tests.e2e.conftest import Collector
from tests.e2e.test_cluster_to_collector import CLUSTER, DAY, a_log, client_at, following, run


class HangingServer(AuthServer):
    """Never answers the first two exports."""

    hanging = 2

    async def _export(self, stream: Stream[bytes, bytes]) -> None:
        if self.hanging:
            self.hanging -= 1
            await asyncio.Event().wait()
        await super()._export(stream)


async def test_an_export_that_hangs_is_given_up_and_asked_for_again(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALL_TIMEOUT", 1.0)
    log = a_log(500)
    log.cut_chunks(100, late=0, late_seconds=0.0, duplicates=0.0)
    write_cluster_files(tmp_path, CLUSTER)
    server, port = await HangingServer(log, cluster=CLUSTER, bulk=True, faults=Faults()).start(tmp_path, "127.0.0.1", 0)
    context = client_context(read_identity(str(tmp_path / "identity")))
    try:
        async with asyncio.timeout(60):
            begin = following(time() - 2 * DAY - 60)
            await run(lambda: client_at(f"127.0.0.1:{port}", context), collector.settings, tmp_path / "state", begin)
    finally:
        server.close()
        await server.wait_closed()
    assert collector.ids() == Counter(event.id for event in log.events)
