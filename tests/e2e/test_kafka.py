"""The real process delivers to Kafka through kills: nothing is lost, and only what was in flight comes twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition

from event_handler.sinks.kafka import KAFKA_EVENTS
from tests.contract.kafka_mock import messages, mock_cluster
from tests.contract.kafka_node import jars, running
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TOPIC = "teleport"
REQUESTS = 2
TABLE = f"""
[sinks.bus]
type = "kafka"
brokers = "{{brokers}}"
topic = "{TOPIC}"
tls = false
max-connections = {REQUESTS}
"""


@contextmanager
def a_cluster(kind: str, directory: Path) -> Iterator[str]:
    if kind == "mock":
        with mock_cluster() as mock:
            mock.create(TOPIC)
            yield mock.brokers
    elif found := jars():
        directory.mkdir()
        with running(found, directory) as broker:
            broker.create(TOPIC)
            yield broker.plain
    else:
        pytest.skip("there are no jars of Kafka; run `make receivers`")


class Written:
    """How many messages the topic has, in hundreds."""

    def __init__(self, brokers: str) -> None:
        self._reader = Consumer({"bootstrap.servers": brokers, "group.id": "count", "log_level": 0})

    def __call__(self) -> int:
        return self.count() // 100

    def count(self) -> int:
        parts = [TopicPartition(TOPIC, number) for number in range(4)]
        return sum(self._reader.get_watermark_offsets(part, timeout=30)[1] for part in parts)

    def close(self) -> None:
        self._reader.close()


@pytest.mark.parametrize("kind", ["mock", "broker"])
@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
async def test_nothing_is_lost_and_only_what_was_in_flight_comes_twice(tmp_path: Path, kind: str, kills: int) -> None:
    with a_cluster(kind, tmp_path / "kafka") as brokers:
        written = Written(brokers)
        events = 40_000 if kills == MANY else 10_000
        expected, _ = await deliver_through_kills(
            tmp_path, TABLE.format(brokers=brokers), written, kills, events=events, apart=4
        )
        total = written.count()
        written.close()
        found = Counter(orjson.loads(one.value() or b"")["uid"] for one in messages(brokers, TOPIC, total))
    assert set(found) == expected
    assert max(found.values()) <= kills + 1
    assert total - len(found) <= kills * REQUESTS * KAFKA_EVENTS
