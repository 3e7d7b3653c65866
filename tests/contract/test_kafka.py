"""What is Kafka's own: keys, headers, reports of delivery, and a cluster that refuses, is slow, or is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import process_time
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Reject, Retry, Split
from event_handler.sinks.kafka import KafkaSink
from event_handler.sinks.kafka.options import KafkaOptions
from tests.contract.deliveries import events, eventually, verdict
from tests.contract.kafka_mock import INIT_PRODUCER, MockCluster, messages, mock_cluster

# Codes of the protocol.
TOO_LARGE, NOT_ENOUGH_REPLICAS, TOPIC_DENIED, CLUSTER_DENIED, BAD_TIME, INVALID_RECORD = 10, 19, 29, 31, 32, 87
TOPIC = "teleport"


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with mock_cluster() as made:
        made.create(TOPIC)
        yield made


@asynccontextmanager
async def kafka(brokers: str, **options: Any) -> AsyncIterator[KafkaSink]:
    given = {"brokers": brokers, "topic": TOPIC, "tls": False, **options}
    sink = KafkaSink(KafkaOptions(**given), "bus", "sinks.bus")
    yield sink
    await sink.close()


def login(**more: Any) -> Event:
    body = {"cluster_name": "example.test", "event": "user.login", "uid": "u1", **more}
    return Event("user.login", "u1", 1_790_000_000.123, 0, orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


async def test_a_message_has_key_headers_and_the_time_of_its_event(cluster: MockCluster) -> None:
    async with kafka(cluster.brokers) as sink:
        assert await verdict(sink, [login(user='alice "the" admin')]) == Delivered()
    (message,) = messages(cluster.brokers, TOPIC, 1)
    assert orjson.loads(message.value() or b"")["uid"] == "u1"
    assert message.key() == b'alice "the" admin'
    assert message.timestamp() == (1, 1_790_000_000_123)
    assert message.headers() == [("event", b"user.login"), ("uid", b"u1"), ("cluster_name", b"example.test")]


@pytest.mark.parametrize(
    ("chosen", "more", "key"),
    [
        ("session", {"sid": "s-1", "user": "alice"}, b"s-1"),
        ("session", {"user": "alice"}, b"alice"),
        ("session", {}, None),
        ("user", {"sid": "s-1", "user": "alice"}, b"alice"),
        ("uid", {"user": "alice"}, b"u1"),
        ("none", {"user": "alice"}, None),
    ],
)
async def test_the_key_is_what_was_chosen(
    cluster: MockCluster, chosen: str, more: dict[str, str], key: bytes | None
) -> None:
    async with kafka(cluster.brokers, message_key=chosen) as sink:
        assert await verdict(sink, [login(**more)]) == Delivered()
    (message,) = messages(cluster.brokers, TOPIC, 1)
    assert message.key() == key


async def test_a_recording_has_its_session_as_key_and_a_topic_of_its_own(cluster: MockCluster) -> None:
    cluster.create("sessions")
    async with kafka(cluster.brokers, session_topic="sessions") as sink:
        assert await verdict(sink, events(20, session_id="s-1")) == Delivered()
    found = messages(cluster.brokers, "sessions", 20)
    assert {(one.key(), one.partition()) for one in found} == {(b"s-1", found[0].partition())}
    bodies = [orjson.loads(one.value() or b"") for one in found]
    assert [body["uid"] for body in bodies] == [f"e{number}" for number in range(20)]
    assert {body["teleport_session_id"] for body in bodies} == {"s-1"}


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd", "snappy"])
async def test_every_compression_is_read_back(cluster: MockCluster, compression: str) -> None:
    async with kafka(cluster.brokers, compression=compression) as sink:
        assert await verdict(sink, events(200, size=500)) == Delivered()
    found = messages(cluster.brokers, TOPIC, 200)
    assert {orjson.loads(one.value() or b"")["uid"] for one in found} == {f"e{number}" for number in range(200)}


async def test_nothing_counts_before_a_broker_has_answered(cluster: MockCluster) -> None:
    async with kafka(cluster.brokers) as sink:
        assert await verdict(sink) == Delivered()
        cluster.slow(2000)
        delivering = asyncio.create_task(sink.deliver(events(10)))
        await asyncio.sleep(0.2)
        assert not delivering.done()
        assert await delivering == Delivered()


async def test_waiting_for_reports_takes_little_time_of_the_processor(cluster: MockCluster) -> None:
    async with kafka(cluster.brokers, timeout=2) as sink:
        cluster.down()
        before = process_time()
        said = await verdict(sink, events(100))
        assert isinstance(said, Retry)
        assert process_time() - before < 1.0


async def test_a_cluster_that_is_away_is_waited_for_and_found_again(cluster: MockCluster) -> None:
    async with kafka(cluster.brokers, timeout=1, properties={"reconnect.backoff.max.ms": 100}) as sink:
        cluster.down()
        said = await verdict(sink)
        assert isinstance(said, Retry)
        assert not said.misconfigured
        assert "no broker was reached" in said.reason
        cluster.up()
        while isinstance(said := await verdict(sink), Retry):
            assert not said.misconfigured
        assert said == Delivered()


async def test_an_error_that_passes_is_repeated_by_the_client_and_arrives_once(cluster: MockCluster) -> None:
    cluster.fail(NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS)
    async with kafka(cluster.brokers, compression="none") as sink:
        assert await verdict(sink, events(50)) == Delivered()
    found = messages(cluster.brokers, TOPIC, 50)
    assert sorted(orjson.loads(one.value() or b"")["uid"] for one in found) == sorted(f"e{n}" for n in range(50))


async def test_an_event_that_is_too_large_here_is_named(cluster: MockCluster) -> None:
    async with kafka(cluster.brokers, message_max_bytes=20_000) as sink:
        assert sink.limits.event_bytes < 20_000
        batch = [*events(1), *events(1, first=1, size=30_000), *events(1, first=2)]
        said = await verdict(sink, batch)
        assert isinstance(said, Partial)
        assert set(said.rejected) == {1}
        assert not said.retry
        assert "sinks.bus.message-max-bytes" in said.rejected[1]
    assert len(messages(cluster.brokers, TOPIC, 2)) == 2


async def test_a_set_that_is_too_large_for_the_topic_is_split_and_a_single_event_refused(cluster: MockCluster) -> None:
    cluster.fail(TOO_LARGE)
    async with kafka(cluster.brokers, message_key="session") as sink:
        said = await verdict(sink, events(5, session_id="one partition"))
        assert isinstance(said, Split)
        assert "max.message.bytes" in said.reason
        cluster.fail(TOO_LARGE)
        assert isinstance(await verdict(sink, events(1)), Reject)
        assert await verdict(sink, events(1)) == Delivered()


async def test_of_a_batch_in_which_one_set_is_refused_that_is_sent_again(cluster: MockCluster) -> None:
    cluster.fail(INVALID_RECORD)
    async with kafka(cluster.brokers, message_key="uid") as sink:
        said = await verdict(sink, events(40))
        assert isinstance(said, Partial)
        assert 0 < len(said.retry) < 40
        assert not said.rejected
    again = {f"e{place}" for place in said.retry}
    found = messages(cluster.brokers, TOPIC, 40 - len(again))
    assert {orjson.loads(one.value() or b"")["uid"] for one in found} == {f"e{n}" for n in range(40)} - again


@pytest.mark.parametrize(("code", "advice"), [(TOPIC_DENIED, "check sinks.bus.topic"), (BAD_TIME, "message.timestamp")])
async def test_what_a_person_must_correct_is_said(cluster: MockCluster, code: int, advice: str) -> None:
    cluster.fail(code)
    async with kafka(cluster.brokers) as sink:
        said = await verdict(sink, events(1))
        assert isinstance(said, Retry)
        assert said.misconfigured
        assert advice in said.reason


async def test_a_topic_that_there_is_not_is_for_a_person(cluster: MockCluster) -> None:
    cluster.fail_topic("missing", 3)
    properties = {"topic.metadata.propagation.max.ms": 200}
    async with kafka(cluster.brokers, topic="missing", timeout=3, properties=properties) as sink:
        said = await verdict(sink)
        assert isinstance(said, Retry)
        assert said.misconfigured
        assert "create the topic, or check sinks.bus.topic" in said.reason


async def test_a_full_queue_is_waited_for(cluster: MockCluster) -> None:
    async with kafka(cluster.brokers, properties={"queue.buffering.max.messages": 20}) as sink:
        assert await verdict(sink, events(100)) == Delivered()
    assert len(messages(cluster.brokers, TOPIC, 100)) == 100


async def test_a_queue_that_stays_full_leaves_the_rest_for_later(cluster: MockCluster) -> None:
    cluster.down()
    async with kafka(cluster.brokers, timeout=1, properties={"queue.buffering.max.messages": 5}) as sink:
        said = await asyncio.wait_for(sink.deliver(events(12)), 30)
        assert isinstance(said, Retry)


async def test_a_producer_that_failed_for_good_is_replaced(cluster: MockCluster) -> None:
    cluster.fail(CLUSTER_DENIED, request=INIT_PRODUCER)
    async with kafka(cluster.brokers) as sink:
        said = await verdict(sink, events(10))
        assert isinstance(said, Retry)
        assert said.misconfigured
        assert "IdempotentWrite" in said.reason
        assert await verdict(sink, events(10)) == Delivered()
    assert len(messages(cluster.brokers, TOPIC, 10)) == 10


async def test_a_sink_that_is_closed_answers_those_who_wait(cluster: MockCluster) -> None:
    cluster.slow(3000)
    async with kafka(cluster.brokers) as sink:
        delivering = asyncio.create_task(sink.deliver(events(10)))
        await asyncio.sleep(0.1)
    said = await delivering
    assert isinstance(said, Retry)
    assert not said.misconfigured


async def test_a_password_that_changes_is_taken_up(cluster: MockCluster, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first password")
    async with kafka(cluster.brokers, sasl="plain", username="alice", password_file=str(file), timeout=1) as sink:
        before = sink._producer
        await verdict(sink)
        assert sink._producer is before
        file.write_text("another password")
        await sink.reopen()
        await verdict(sink)
        assert sink._producer is not before


async def test_log_lines_of_the_client_are_ours_and_hold_no_secret(
    cluster: MockCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = {"sasl": "plain", "username": "alice", "password": "a-secret-word"}
    with capture_logs() as lines:
        async with kafka(cluster.brokers, timeout=1, properties={"debug": "all"}, **secret) as sink:
            await verdict(sink)
    said = [line for line in lines if line["event"] == "Kafka's client says"]
    assert len(said) > 10
    assert {line["sink"] for line in said} == {"bus"}
    assert "a-secret-word" not in str(lines)
    written = capfd.readouterr()
    assert written.out + written.err == ""


async def test_an_abandoned_call_leaves_the_sink_usable(cluster: MockCluster) -> None:
    cluster.slow(300)
    async with kafka(cluster.brokers) as sink:
        delivering = asyncio.create_task(sink.deliver(events(10)))
        await asyncio.sleep(0.1)
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
        assert await verdict(sink, events(10, first=10)) == Delivered()
        await eventually(lambda: sink._producer.users == 0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"properties": {"acks": "1"}}, "cannot set acks"),
        ({"properties": {"enable.idempotence": False}}, "cannot set enable.idempotence"),
        ({"properties": {"plugin.library.paths": "x"}}, "cannot set plugin"),
        ({"properties": {"no.such.thing": "1"}}, "no.such.thing"),
        ({"sasl": "plain", "password": "secret-word"}, "username is missing"),
        ({"sasl": "plain", "username": "alice"}, "password and sinks.bus.password-file are missing"),
        ({"username": "alice", "password": "secret-word"}, "need sinks.bus.sasl"),
        ({"sasl": "oauthbearer"}, "are missing"),
        ({"oidc_url": "https://x"}, "without it"),
        ({"tls": False, "ca": "ca.pem"}, "need TLS"),
        ({"tls": True, "ca": "/does/not/exist.pem"}, "refuses the options"),
        ({"tls": True, "cert": "c.pem"}, "only one of"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SinkError, match=text) as raised:
        KafkaSink(KafkaOptions(brokers="localhost:1", topic=TOPIC, **{"tls": False, **options}), "bus", "sinks.bus")
    assert "secret-word" not in str(raised.value)
