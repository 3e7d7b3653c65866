"""What is Kafka's own: keys, headers and times of messages, refusals by message, signing in, brokers that say no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Retry
from event_handler.sinks.kafka import KafkaOptions, KafkaSink, configured
from tests.contract.deliveries import events, verdict
from tests.contract.kafka_receiver import TOPIC, Brokers, RealBroker, mocked, no_kafka
from tests.contract.pki import make_pki

PASSWORD = "hunter2-of-kafka"


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    async with mocked(tmp_path) as made:
        yield made


def event(content: dict[str, object], session_id: str = "") -> Event:
    return Event("session.start", "e1", 1_790_000_000.5, 0, orjson.dumps(content), session_id)


@pytest.mark.parametrize(
    ("by", "content", "session_id", "key"),
    [
        ("session", {"sid": "s1", "user": "alice"}, "", b"s1"),
        ("session", {"user": "alice"}, "", b"alice"),
        ("session", {}, "", b"e1"),
        ("session", {"sid": 7}, "", b"e1"),
        ("session", {}, "recorded-1", b"recorded-1"),
        ("user", {"sid": "s1", "user": "alice"}, "", b"alice"),
        ("uid", {"user": "alice"}, "", b"e1"),
        ("none", {"user": "alice"}, "", None),
    ],
)
async def test_the_key_keeps_a_session_or_a_user_in_one_partition(
    brokers: Brokers, by: str, content: dict[str, object], session_id: str, key: bytes | None
) -> None:
    sink = brokers.sink(partition_by=by)
    assert await verdict(sink, [event(content, session_id)]) == Delivered()
    await sink.close()
    (message,) = await brokers.messages()
    assert message.key() == key


async def test_a_message_has_the_events_time_its_type_and_its_id(brokers: Brokers) -> None:
    sink = brokers.sink()
    await verdict(sink, [event({"uid": "e1"})])
    await sink.close()
    (message,) = await brokers.messages()
    assert message.timestamp()[1] == 1_790_000_000_500
    assert message.headers() == [("event", b"session.start"), ("uid", b"e1")]


async def test_a_message_that_is_too_large_is_refused_and_the_others_arrive(brokers: Brokers) -> None:
    sink = brokers.sink(max_message_bytes=20_000)
    said = await verdict(sink, [*events(1), *events(1, first=1, size=30_000), *events(1, first=2)])
    await sink.close()
    assert isinstance(said, Partial)
    assert (said.retry, list(said.rejected)) == (frozenset(), [1])
    assert sorted(body["uid"] for body in await brokers.taken()) == ["e0", "e2"]
    assert sink.limits.event_bytes < 20_000


async def test_nobody_there_is_an_outage_that_names_the_brokers() -> None:
    sink = Brokers("127.0.0.1:1").sink(timeout=1.0)
    said = await verdict(sink)
    await sink.close()
    assert isinstance(said, Retry)
    assert "sinks.bus.brokers" in said.reason
    assert not said.misconfigured


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sasl": "PLAIN"}, "without sinks.bus.username"),
        ({"username": "u", "password": "p"}, "without sinks.bus.sasl"),
        ({"sasl": "OAUTHBEARER"}, "oauth-token-url"),
        ({"cert": "a.pem"}, "only one of sinks.bus.cert and sinks.bus.key"),
        ({"security": "plaintext", "ca": "a.pem"}, "plaintext although TLS files are set"),
        ({"properties": {"acks": "0"}}, "which the sink sets itself"),
        ({"properties": {"no.such.property": "1"}}, "No such configuration property"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_the_start(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SinkError, match=words):
        KafkaSink(KafkaOptions(brokers=("localhost:1",), **options), "bus", "sinks.bus")


def test_what_delivery_rests_on_is_always_set() -> None:
    made = configured(KafkaOptions(brokers=("a:1", "b:2"), properties={"linger.ms": "50"}), "", "", "sinks.bus")
    assert made["enable.idempotence"] is True
    assert made["acks"] == "all"
    assert made["bootstrap.servers"] == "a:1,b:2"
    assert made["linger.ms"] == "50"
    assert made["security.protocol"] == "SSL"


def test_a_secret_is_in_no_repr() -> None:
    options = KafkaOptions(brokers=("a:1",), sasl="PLAIN", username="u", password=PASSWORD, properties={"a": PASSWORD})
    assert PASSWORD not in repr(options)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[RealBroker]:
    """A real broker that wants TLS and a password, and makes no topics by itself."""
    if reason := no_kafka():
        pytest.skip(reason)
    pki = make_pki(tmp_path, "kafka")
    key, cert = pki.issue("localhost", "127.0.0.1")
    (tmp_path / "broker.pem").write_bytes(key + cert)
    users = f'username="admin" password="{PASSWORD}" user_admin="{PASSWORD}"'
    plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
    broker = RealBroker(
        tmp_path,
        "SASL_SSL",
        f"""
ssl.keystore.type=PEM
ssl.keystore.location={tmp_path}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={pki.path("ca.crt")}
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
ssl.endpoint.identification.algorithm=
listener.name.sasl_ssl.plain.sasl.jaas.config={plain}
auto.create.topics.enable=false
""",
    )
    broker.configure()
    await broker.start()
    yield broker
    await broker.stop()


async def test_a_real_broker_with_tls_and_sasl_says_what_is_wrong(guarded: RealBroker, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")
    known: dict[str, Any] = {
        "security": "tls",
        "ca": str(tmp_path / "kafka-ca.crt"),
        "sasl": "PLAIN",
        "username": "admin",
        "password_file": str(tmp_path / "password"),
        "timeout": 5.0,
        "properties": {"ssl.endpoint.identification.algorithm": "none"},
    }
    sink = guarded.sink(**known)
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured, said
    assert "sinks.bus.password" in said.reason
    (tmp_path / "password").write_text(PASSWORD)  # taken up without a restart
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured, said
    assert "sinks.bus.topic" in said.reason
    plain = {name: value for name, value in known.items() if name != "password_file"}
    admin = AdminClient(configured(KafkaOptions(brokers=(guarded.address,), **plain), PASSWORD, "", "x"))
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(20)
    said = await verdict(sink)
    while isinstance(said, Retry):
        said = await verdict(sink)
    assert said == Delivered()
    await sink.close()
    untrusted = guarded.sink(**{**known, "ca": ""})
    said = await verdict(untrusted)
    assert isinstance(said, Retry)
    assert said.misconfigured, said
    assert "sinks.bus.ca" in said.reason
    assert PASSWORD not in said.reason
    await untrusted.close()
