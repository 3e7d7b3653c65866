"""The real process delivers to NATS JetStream and to Redis streams through kills, and nothing is lost."""

from __future__ import annotations

import urllib.request
from collections import Counter
from pathlib import Path

import orjson
import pytest
from nats.js.api import StreamConfig

from tests.contract import nats_node, redis_node
from tests.contract.ports import free_ports
from tests.e2e.kills import FEW, MANY, deliver_through_kills

KILLS = pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
EVENTS = {FEW: 6000, MANY: 40_000}  # more than are delivered before the last kill


@pytest.mark.skipif(nats_node.PROGRAM is None, reason="there is no nats-server here (Debian: nats-server)")
@KILLS
async def test_nats_has_every_event_once(tmp_path: Path, kills: int) -> None:
    (monitor,) = free_ports(1)
    with nats_node.running(tmp_path / "nats", f'http: "127.0.0.1:{monitor}"') as server:
        async with nats_node.jetstream(server) as js:
            await js.add_stream(StreamConfig(name="T", subjects=["teleport.>"], duplicate_window=3600))

        def stored() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/jsz", timeout=10) as answer:
                return int(orjson.loads(answer.read())["messages"])

        tables = f'[sinks.bus]\ntype = "nats"\nurl = "{server.url}"\n'
        expected, _ = await deliver_through_kills(
            tmp_path, tables, lambda: stored() // 100, kills, events=EVENTS[kills], apart=4
        )
        total = stored()
        async with nats_node.jetstream(server) as js:
            found = Counter([orjson.loads((await js.get_msg("T", n)).data or b"")["uid"] for n in range(1, total + 1)])
    assert set(found) == expected
    assert max(found.values()) == 1, "what was sent twice within the window is stored once"


@pytest.mark.skipif(redis_node.PROGRAM is None, reason="there is no redis-server here (Debian: redis-server)")
@KILLS
async def test_redis_has_every_event(tmp_path: Path, kills: int) -> None:
    with redis_node.running(tmp_path / "redis") as server:

        def stored() -> int:
            return int(server.ask("XLEN", "teleport:audit")) // 100

        tables = f'[sinks.bus]\ntype = "redis-streams"\nurl = "{server.url}"\n'
        expected, _ = await deliver_through_kills(tmp_path, tables, stored, kills, events=EVENTS[kills], apart=4)
        found = Counter(entry[b"uid"].decode() for entry in server.entries("teleport:audit"))
    assert set(found) == expected
    assert max(found.values()) <= kills + 1
