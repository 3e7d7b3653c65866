"""The real process delivers to Kafka through kills: nothing is lost, and only what was in flight comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.kafka_receiver import TOPIC, mocked
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLE = """
[sinks.bus]
type = "kafka"
brokers = ["{address}"]
topic = "{topic}"
security = "plaintext"
"""


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
async def test_nothing_is_lost_on_the_way_to_kafka(tmp_path: Path, kills: int) -> None:
    async with mocked(tmp_path) as brokers:
        state = tmp_path / "storage" / "sim.test" / "bus" / "state.db-wal"

        def progress() -> int:
            return state.stat().st_size // 4096 if state.exists() else 0

        tables = TABLE.format(address=brokers.address, topic=TOPIC)
        expected, _ = await deliver_through_kills(tmp_path, tables, progress, kills, apart=1)
        found = [body["uid"] for body in await brokers.taken()]
    assert set(found) == expected
    assert len(found) - len(expected) <= kills * 5000
