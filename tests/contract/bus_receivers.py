"""Kafka, NATS and Redis for the suite of message sinks: the product itself, or librdkafka's own mock of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from nats.js.api import StreamConfig

from event_handler.ports import Sink
from event_handler.sinks.kafka import KafkaSink
from event_handler.sinks.kafka.options import KafkaOptions
from event_handler.sinks.nats import NatsSink
from event_handler.sinks.nats.options import NatsOptions
from event_handler.sinks.redis_streams import RedisStreamsSink
from event_handler.sinks.redis_streams.options import RedisOptions
from tests.contract import nats_node, redis_node
from tests.contract.kafka_mock import MockCluster, mock_cluster
from tests.contract.message_adapter import MessageAdapter

TOPIC = "teleport"


class Kafka:
    option = "sinks.bus"

    def __init__(self, cluster: MockCluster) -> None:
        self._cluster = cluster

    def sink(self) -> Sink:
        options = KafkaOptions(brokers=self._cluster.brokers, topic=TOPIC, tls=False, timeout=2.0)
        return KafkaSink(options, "bus", "sinks.bus")

    async def taken(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[dict[str, Any]]:
        settings = {"bootstrap.servers": self._cluster.brokers, "group.id": "suite", "enable.partition.eof": True}
        reader = Consumer({**settings, "log_level": 0})
        found: list[dict[str, Any]] = []
        try:
            reader.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
            while (message := reader.poll(20.0)) is not None and message.error() is None:
                found.append(orjson.loads(message.value() or b""))
        finally:
            reader.close()
        return found

    async def stop(self) -> None:
        self._cluster.down()

    async def start(self) -> None:
        self._cluster.up()


@asynccontextmanager
async def kafka(_: Path) -> AsyncIterator[Kafka]:
    with mock_cluster() as cluster:
        cluster.create(TOPIC, 1)
        yield Kafka(cluster)


class Nats:
    option = "sinks.bus"

    def __init__(self, server: nats_node.Server) -> None:
        self._server = server

    def sink(self) -> Sink:
        subjects = {"subject": "teleport.{type}", "session_subject": "teleport.recorded"}
        return NatsSink(NatsOptions(url=self._server.url, timeout=5.0, **subjects), "bus", "sinks.bus")

    async def taken(self) -> list[dict[str, Any]]:
        async with nats_node.jetstream(self._server) as js:
            last = (await js.stream_info(TOPIC)).state.last_seq
            return [orjson.loads((await js.get_msg(TOPIC, number)).data or b"") for number in range(1, last + 1)]

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


@asynccontextmanager
async def nats(directory: Path) -> AsyncIterator[Nats]:
    with nats_node.running(directory) as server:
        async with nats_node.jetstream(server) as js:
            await js.add_stream(StreamConfig(name=TOPIC, subjects=["teleport.>"]))
        yield Nats(server)


class Redis:
    option = "sinks.bus"

    def __init__(self, server: redis_node.Server) -> None:
        self._server = server

    def sink(self) -> Sink:
        options = RedisOptions(url=self._server.url, stream=TOPIC, session_stream=TOPIC, timeout=5.0)
        return RedisStreamsSink(options, "bus", "sinks.bus")

    async def taken(self) -> list[dict[str, Any]]:
        entries = await asyncio.to_thread(self._server.entries, TOPIC)
        return [orjson.loads(fields[b"event"]) for fields in entries]

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


@asynccontextmanager
async def redis(directory: Path) -> AsyncIterator[Redis]:
    with redis_node.running(directory) as server:
        yield Redis(server)


BUSES = [
    MessageAdapter("kafka", kafka),
    MessageAdapter("nats", nats, skip=lambda: "" if nats_node.PROGRAM else "there is no nats-server"),
    MessageAdapter("redis-streams", redis, skip=lambda: "" if redis_node.PROGRAM else "there is no redis-server"),
]
