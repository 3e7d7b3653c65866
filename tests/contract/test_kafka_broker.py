"""The kafka sink against a real broker, where its jars are at hand."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import orjson
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Reject, Retry, Split, Verdict
from event_handler.sinks.kafka import KafkaSink
from event_handler.sinks.kafka.options import KafkaOptions
from tests.contract.deliveries import events
from tests.contract.kafka_mock import messages
from tests.contract.kafka_node import PASSWORD, USER, Broker, jars, running
from tests.event_samples import samples

pytestmark = pytest.mark.skipif(not jars(), reason="there are no jars of Kafka; run `make receivers`")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running(jars(), tmp_path_factory.mktemp("kafka")) as started:
        yield started


@asynccontextmanager
async def kafka(brokers: str, **options: Any) -> AsyncIterator[KafkaSink]:
    sink = KafkaSink(KafkaOptions(brokers=brokers, **options), "bus", "sinks.bus")
    yield sink
    await sink.close()


async def said_of(sink: KafkaSink, batch: list[Event]) -> Verdict:
    return await asyncio.wait_for(sink.deliver(batch), 60)


async def works(broker: Broker, address: str, **options: Any) -> None:
    topic = broker.create(uuid4().hex)
    async with kafka(address, topic=topic, ca=str(broker.pki.path("ca.crt")), **options) as sink:
        assert await said_of(sink, events(20)) == Delivered()
    assert len(messages(broker.plain, topic, 20)) == 20


async def refused(broker: Broker, address: str, **options: Any) -> str:
    async with kafka(address, topic="any", **options) as sink:
        said = await said_of(sink, events(2))
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert PASSWORD not in said.reason
    return said.reason


async def test_events_of_every_type_arrive_once_in_several_batches_at_a_time(broker: Broker) -> None:
    topic = broker.create(uuid4().hex)
    batch = [Event(one["event"], one["uid"], time(), 0, orjson.dumps(one)) for one in samples()]
    async with kafka(broker.plain, topic=topic, tls=False) as sink:
        parts = [batch[start : start + 50] for start in range(0, len(batch), 50)]
        assert set(await asyncio.gather(*(said_of(sink, part) for part in parts))) == {Delivered()}
    found = [orjson.loads(one.value() or b"") for one in messages(broker.plain, topic, len(batch))]
    assert sorted(one["uid"] for one in found) == sorted(event.id for event in batch)


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256", "scram-sha-512"])
async def test_a_password_inside_tls(broker: Broker, mechanism: str) -> None:
    await works(broker, broker.secure, sasl=mechanism, username=USER, password=PASSWORD)


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-512"])
async def test_a_wrong_password_is_said_at_once(broker: Broker, mechanism: str) -> None:
    ca = str(broker.pki.path("ca.crt"))
    started = time()
    reason = await refused(broker, broker.secure, ca=ca, sasl=mechanism, username=USER, password="another-word")
    assert "check sinks.bus.sasl, username and password" in reason
    assert "another-word" not in reason
    assert time() - started < 25, "before the time-out"


async def test_a_client_certificate(broker: Broker) -> None:
    files = broker.pki.client_files()
    await works(broker, broker.mutual, cert=files.cert, key=files.key)


async def test_without_the_certificate_that_is_asked_for(broker: Broker) -> None:
    reason = await refused(broker, broker.mutual, ca=str(broker.pki.path("ca.crt")))
    assert "check sinks.bus.tls, ca, cert and key" in reason


async def test_a_broker_that_is_not_trusted(broker: Broker) -> None:
    assert "check sinks.bus.tls, ca" in await refused(broker, broker.mutual)


def token() -> str:
    """A token without a signature, as Kafka takes them by default."""
    parts = {"alg": "none"}, {"sub": USER, "iat": int(time()), "exp": int(time()) + 600}
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


async def test_a_token_from_a_file(broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token())
    await works(broker, broker.secure, sasl="oauthbearer", token_file=str(file))


class TokenEndpoint(BaseHTTPRequestHandler):
    """Gives tokens to the client that knows its secret."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        wanted = base64.b64encode(b"handler:client-secret").decode()
        good = self.headers["Authorization"] == f"Basic {wanted}"
        said = {"access_token": token(), "token_type": "bearer", "expires_in": 600} if good else {"error": "no"}
        body = json.dumps(said).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


async def test_a_token_from_an_endpoint(broker: Broker) -> None:
    options = {"sasl": "oauthbearer", "oidc_client_id": "handler", "oidc_scope": "kafka"}
    with HTTPServer(("127.0.0.1", 0), TokenEndpoint) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        options["oidc_url"] = f"http://127.0.0.1:{server.server_port}/token"
        await works(broker, broker.secure, oidc_client_secret="client-secret", **options)
        ca = str(broker.pki.path("ca.crt"))
        reason = await refused(broker, broker.secure, ca=ca, oidc_client_secret="another-secret", **options)
        server.shutdown()
        serving.join()
    assert "check sinks.bus.sasl" in reason
    assert "another-secret" not in reason


async def test_a_topic_that_may_not_be_written(broker: Broker) -> None:
    topic = broker.create(uuid4().hex)
    denied = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:{USER}",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    admin = AdminClient({"bootstrap.servers": broker.plain})
    for future in admin.create_acls([denied]).values():
        future.result(30)
    options = {"sasl": "plain", "username": USER, "password": PASSWORD, "ca": str(broker.pki.path("ca.crt"))}
    async with kafka(broker.secure, topic=topic, **options) as sink:
        said = await said_of(sink, events(2))
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "let the user write to the topic, or check sinks.bus.topic" in said.reason


async def test_a_topic_that_there_is_not(broker: Broker) -> None:
    async with kafka(broker.plain, topic="missing", tls=False, timeout=15) as sink:
        said = await said_of(sink, events(2))
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "create the topic, or check sinks.bus.topic" in said.reason


async def test_a_topic_that_takes_less_makes_smaller_sets_and_refuses_the_large_event_only(broker: Broker) -> None:
    topic = broker.create(uuid4().hex, **{"max.message.bytes": "10000"})
    async with kafka(broker.plain, topic=topic, tls=False, compression="none", message_key="session") as sink:
        together = events(10, session_id="s", size=2000)
        assert isinstance(await said_of(sink, together), Split | Partial)
        assert isinstance(await said_of(sink, events(1, size=20_000)), Reject)
        assert await said_of(sink, together[:3]) == Delivered()


async def test_events_that_are_too_old_for_the_topic(broker: Broker) -> None:
    topic = broker.create(uuid4().hex, **{"message.timestamp.before.max.ms": "60000"})
    async with kafka(broker.plain, topic=topic, tls=False) as sink:
        said = await said_of(sink, [Event("e", "u", time() - 3600, 0, b'{"uid":"u"}')])
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "message.timestamp.before.max.ms" in said.reason


async def test_a_broker_that_is_killed_and_comes_back_gets_every_event(broker: Broker) -> None:
    topic = broker.create(uuid4().hex)
    async with kafka(broker.plain, topic=topic, tls=False, timeout=3) as sink:
        assert await said_of(sink, events(100)) == Delivered()
        broker.kill()
        assert isinstance(await said_of(sink, events(100, first=100)), Retry)
        await asyncio.to_thread(broker.start)
        for _ in range(20):
            if (said := await said_of(sink, events(100, first=100))) == Delivered():
                break
        assert said == Delivered()
    found = {orjson.loads(one.value() or b"")["uid"] for one in messages(broker.plain, topic, 200)}
    assert found == {f"e{number}" for number in range(200)}
