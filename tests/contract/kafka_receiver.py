"""A Kafka cluster for tests: librdkafka's own mock, and a real broker where its jars are at hand."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from event_handler.sinks.kafka import KafkaOptions, KafkaSink
from tests.contract.message_adapter import MessageAdapter

TOPIC = "teleport.audit"
JARS = Path(os.environ.get("KAFKA_JARS", "~/.cache/teleport-event-handler-receivers/kafka")).expanduser()


class Brokers:
    """Brokers at an address, and what is in the topic, read by a consumer of its own."""

    option = "sinks.bus.brokers"

    def __init__(self, address: str) -> None:
        self.address = address

    def sink(self, **more: Any) -> KafkaSink:
        known: dict[str, Any] = {
            "brokers": (self.address,),
            "topic": TOPIC,
            "security": "plaintext",
            "timeout": 2.0,
            "partition_by": "none",
        }
        return KafkaSink(KafkaOptions(**{**known, **more}), "bus", "sinks.bus")

    async def messages(self) -> list[Any]:
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[Any]:
        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": "tests", "enable.partition.eof": True}, logger=quiet()
        )
        try:
            metadata = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC]
            if metadata.error is not None:
                return []
            consumer.assign([TopicPartition(TOPIC, number, 0) for number in metadata.partitions])
            left, found = set(metadata.partitions), []
            while left:
                message = consumer.poll(5.0)
                assert message is not None, "the broker gives nothing"
                if message.error() is not None:
                    left.discard(message.partition())
                else:
                    found.append(message)
            return sorted(found, key=lambda message: message.partition())
        finally:
            consumer.close()

    async def taken(self) -> list[dict[str, Any]]:
        return [orjson.loads(message.value()) for message in await self.messages()]

    async def stop(self) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError


def quiet() -> logging.Logger:
    made = logging.Logger("quiet")
    made.addHandler(logging.NullHandler())
    return made


@asynccontextmanager
async def mocked(_: Path) -> AsyncIterator[Brokers]:
    """Librdkafka's mock cluster, which lives in a client of this process; its topics have four partitions."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("mock")
    logger.addHandler(Kept())
    host = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "debug": "mock"}, logger=logger)
    ended = threading.Event()
    polling = threading.Thread(target=lambda: [host.poll(0.05) for _ in iter(ended.is_set, True)])
    polling.start()
    try:
        async with asyncio.timeout(20):
            while not (found := re.search(r"bootstrap\.servers=(\S+)", " ".join(lines))):
                await asyncio.sleep(0.01)
        yield Brokers(found[1])
    finally:
        ended.set()
        polling.join()


class RealBroker(Brokers):
    """One node of Kafka in KRaft mode."""

    def __init__(self, directory: Path, listener: str = "PLAINTEXT", more: str = "") -> None:
        self._listener, self._more = listener, more
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            self.port, self._controller = one.getsockname()[1], two.getsockname()[1]
        super().__init__(f"127.0.0.1:{self.port}")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        (self._directory / "server.properties").write_text(
            f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self._controller}
listeners={self._listener}://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}
advertised.listeners={self._listener}://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{self._listener}:{self._listener}
inter.broker.listener.name={self._listener}
log.dirs={self._directory}/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
num.partitions=1
group.initial.rebalance.delay.ms=0
{self._more}
"""
        )
        self._java(
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "-c",
            str(self._directory / "server.properties"),
        ).wait(60)

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["java", "-Xmx512m", "-cp", f"{JARS}/*", *arguments]
        with (self._directory / "broker.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    async def start(self) -> None:
        self._process = self._java("kafka.Kafka", str(self._directory / "server.properties"))
        async with asyncio.timeout(90):
            while True:
                assert self._process.poll() is None, (self._directory / "broker.log").read_text()[-2000:]
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None


@asynccontextmanager
async def real(directory: Path) -> AsyncIterator[Brokers]:
    broker = RealBroker(directory)
    await asyncio.to_thread(broker.configure)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def no_kafka() -> str:
    if not list(JARS.glob("kafka_2.13-*.jar")):
        return f"there is no Kafka in {JARS}; run `make receivers`"
    return "" if shutil.which("java") else "there is no Java"


KAFKA = [
    MessageAdapter("kafka-mock", mocked, restarts=False, in_order=False),
    MessageAdapter("kafka", real, skip=no_kafka),
]
