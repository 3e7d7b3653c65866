"""What is Redis's own: entries, trimming, replicas, clusters and errors, against real redis-servers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import Connection

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Retry
from event_handler.sinks.redis_streams import RedisStreamsSink
from event_handler.sinks.redis_streams.commands import REDIS_PRODUCER, Adding
from event_handler.sinks.redis_streams.options import RedisOptions
from tests.contract.deliveries import events, eventually, verdict
from tests.contract.pki import make_pki
from tests.contract.ports import free_ports
from tests.contract.redis_node import PROGRAM, Server, running

real = pytest.mark.skipif(PROGRAM is None, reason="there is no redis-server here (Debian: redis-server)")
AUDIT, SESSION = "teleport:audit", "teleport:session"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(started: Server) -> Server:
    started.ask("FLUSHALL")
    return started


@asynccontextmanager
async def adder(url: str, **options: Any) -> AsyncIterator[RedisStreamsSink]:
    sink = RedisStreamsSink(RedisOptions(url=url, **options), "bus", "sinks.bus")
    yield sink
    await sink.close()


async def refused(url: str, batch: list[Event] | None = None, **options: Any) -> Retry:
    async with adder(url, **options) as sink:
        said = await verdict(sink, batch)
    assert isinstance(said, Retry)
    assert "secret-word" not in said.reason
    return said


@real
async def test_an_entry_has_the_event_and_what_it_is(server: Server) -> None:
    async with adder(server.url) as sink:
        assert await verdict(sink, [Event("user.login", "u1", 1_790_000_000.123, 0, b'{"uid":"u1"}')]) == Delivered()
    (entry,) = server.entries(AUDIT)
    assert entry == {b"event": b'{"uid":"u1"}', b"type": b"user.login", b"uid": b"u1", b"time": b"1790000000123"}


@real
async def test_recorded_events_have_a_stream_of_their_own_and_name_their_session(server: Server) -> None:
    async with adder(server.url, session_stream="recorded") as sink:
        assert await verdict(sink, events(3, session_id='odd "id"')) == Delivered()
    found = [orjson.loads(entry[b"event"]) for entry in server.entries("recorded")]
    assert [(one["uid"], one["teleport_session_id"]) for one in found] == [(f"e{n}", 'odd "id"') for n in range(3)]


@real
async def test_batches_at_once_all_arrive_in_order(server: Server) -> None:
    async with adder(server.url) as sink:
        said = await asyncio.gather(*(verdict(sink, events(500, first=500 * n, size=900)) for n in range(8)))
        assert said == [Delivered()] * 8
    found = [int(entry[b"uid"][1:]) for entry in server.entries(AUDIT)]
    assert sorted(found) == list(range(4000))
    assert [number for number in found if number < 500] == list(range(500))


@real
async def test_a_stream_is_trimmed(server: Server) -> None:
    async with adder(server.url, max_length=1000) as sink:
        for number in range(8):
            assert await verdict(sink, events(500, first=500 * number)) == Delivered()
    assert 1000 <= server.ask("XLEN", AUDIT) < 1500
    async with adder(server.url, max_length=0, stream="whole") as sink:
        assert await verdict(sink, events(500)) == Delivered()
    assert server.ask("XLEN", "whole") == 500


@real
async def test_another_database(server: Server) -> None:
    async with adder(server.url, db=3) as sink:
        assert await verdict(sink) == Delivered()
    assert server.ask("XLEN", AUDIT, db=3) == 3
    assert (await refused(server.url, db=99)).misconfigured


@real
async def test_a_key_that_holds_something_else_is_for_a_person(server: Server) -> None:
    server.ask("SET", AUDIT, "text")
    said = await refused(server.url)
    assert said.misconfigured
    assert "check sinks.bus.stream" in said.reason


@real
async def test_users_and_their_rights(server: Server, tmp_path: Path) -> None:
    server.ask("ACL", "SETUSER", "alice", "on", ">secret-word", "~teleport:*", "+xadd", "+wait")
    server.ask("ACL", "SETUSER", "reader", "on", ">secret-word", "~*", "+xrange")
    file = tmp_path / "password"
    file.write_text("another-word")
    async with adder(server.url, username="alice", password_file=str(file)) as sink:
        said = await verdict(sink)
        assert isinstance(said, Retry)
        assert said.misconfigured
        assert "check sinks.bus.username and password" in said.reason
        assert "another-word" not in said.reason
        file.write_text("secret-word\n")
        assert await verdict(sink) == Delivered(), "a file that changed is read again"
    said = await refused(server.url, username="reader", password="secret-word")
    assert said.misconfigured
    assert "let the user add to the streams" in said.reason


@real
async def test_without_the_password_that_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path / "s") as server:
        server.ask("CONFIG", "SET", "requirepass", "secret-word")
        async with adder(server.url, password="secret-word") as sink:
            assert await verdict(sink) == Delivered()
        said = await refused(server.url)
    assert said.misconfigured
    assert "username and password" in said.reason


@real
async def test_a_full_memory_is_waited_for(tmp_path: Path) -> None:
    with running(tmp_path / "s") as server:
        async with adder(server.url) as sink:
            assert await verdict(sink) == Delivered()
            server.ask("CONFIG", "SET", "maxmemory", "100kb")
            said = await verdict(sink)
            assert isinstance(said, Retry)
            assert not said.misconfigured
            assert "OOM" in said.reason
            server.ask("CONFIG", "SET", "maxmemory", "0")
            assert await verdict(sink) == Delivered()


@real
async def test_replicas_are_waited_for_and_a_replica_takes_nothing(tmp_path: Path) -> None:
    with (
        running(tmp_path / "a", "--repl-diskless-sync-delay 0") as first,
        running(tmp_path / "b", f"--replicaof 127.0.0.1 {first.port}") as second,
    ):
        await eventually(lambda: "slave0" in first.ask("INFO", "replication"))
        async with adder(first.url, replicas=1, timeout=4) as sink:
            await eventually(lambda: "up" in str(second.ask("INFO", "replication")["master_link_status"]))
            assert await verdict(sink) == Delivered()
            replica = await refused(second.url)
            assert not replica.misconfigured
            assert "READONLY" in replica.reason
            second.kill()
            said = await verdict(sink)
            assert isinstance(said, Retry)
            assert "too few replicas" in said.reason
            assert "sinks.bus.replicas" in said.reason


@real
async def test_in_a_cluster_each_stream_is_found_where_it_is(tmp_path: Path) -> None:
    buses = free_ports(2)
    with (
        running(tmp_path / "a", "--cluster-enabled yes", f"--cluster-port {buses[0]}") as first,
        running(tmp_path / "b", "--cluster-enabled yes", f"--cluster-port {buses[1]}") as second,
    ):
        first.ask("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        second.ask("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        first.ask("CLUSTER", "SET-CONFIG-EPOCH", 1)
        second.ask("CLUSTER", "SET-CONFIG-EPOCH", 2)
        first.ask("CLUSTER", "MEET", "127.0.0.1", second.port, buses[1])
        for one in (first, second):
            await eventually(lambda one=one: b"cluster_state:ok" in one.ask("CLUSTER", "INFO"))  # type: ignore[misc]
        slots = {key: first.ask("CLUSTER", "KEYSLOT", key) for key in ("audit", "{audit}s", "foo", "bar")}
        far = next(key for key, slot in slots.items() if slot > 8191)
        async with adder(first.url, stream=far) as sink:
            assert await verdict(sink, events(300)) == Delivered()
            assert await verdict(sink, events(300, first=300)) == Delivered()
        assert len(second.entries(far)) == 600


@real
async def test_a_server_that_is_killed_and_comes_back_gets_every_event(tmp_path: Path) -> None:
    with running(tmp_path / "s", "--appendonly yes", "--appendfsync always") as server:
        async with adder(server.url, timeout=2) as sink:
            assert await verdict(sink, events(200)) == Delivered()
            server.kill()
            for _ in range(2):
                said = await verdict(sink, events(200, first=200))
                assert isinstance(said, Retry)
                assert not said.misconfigured
            server.start()
            async with asyncio.timeout(20):
                while await verdict(sink, events(200, first=200)) != Delivered():
                    await asyncio.sleep(0.05)
        assert {entry[b"uid"] for entry in server.entries(AUDIT)} == {b"e%d" % number for number in range(400)}


@real
async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    pki = make_pki(tmp_path, "redis")
    key, certificate = pki.issue("localhost")
    (tmp_path / "server.crt").write_bytes(certificate)
    (tmp_path / "server.key").write_bytes(key)
    files = pki.client_files()
    (secure,) = free_ports(1)
    settings = (
        f"--tls-port {secure}",
        f"--tls-cert-file {tmp_path}/server.crt",
        f"--tls-key-file {tmp_path}/server.key",
        f"--tls-ca-cert-file {pki.path('ca.crt')}",
    )
    url = f"rediss://localhost:{secure}"
    with running(tmp_path / "s", *settings) as server:
        async with adder(url, ca=files.ca, cert=files.cert, key=files.key) as sink:
            assert await verdict(sink) == Delivered()
        assert len(server.entries(AUDIT)) == 3
        said = await refused(url)
        assert said.misconfigured
        assert "check sinks.bus.url, ca" in said.reason
        await refused(url, ca=files.ca)


@asynccontextmanager
async def scripted(answer: Callable[[int], bytes]) -> AsyncIterator[str]:
    """A server that answers as `answer` says to each XADD, by its number, and closes at b""."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        try:
            while line := await reader.readline():
                if line == b"CLIENT\r\n":
                    writer.write(b"+OK\r\n")
                elif line == b"XADD\r\n":
                    if not (said := answer(number)):
                        break
                    writer.write(said)
                    number += 1
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


ENTRY = b"$3\r\n1-0\r\n"


async def test_of_a_connection_that_ends_only_what_was_answered_counts() -> None:
    async with scripted(lambda number: ENTRY if number < 2 else b"") as url, adder(url) as sink:
        said = await verdict(sink, events(5))
        assert isinstance(said, Partial)
        assert said.retry == {2, 3, 4}
        assert not said.rejected


@pytest.mark.parametrize("code", ["LOADING", "MISCONF", "OOM", "READONLY", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN"])
async def test_what_passes_by_itself_is_sent_again(code: str) -> None:
    async with scripted(lambda number: f"-{code} some words\r\n".encode() if number == 1 else ENTRY) as url:
        sink = RedisStreamsSink(RedisOptions(url=url), "bus", "sinks.bus")
        said = await verdict(sink, events(3))
        await sink.close()
    assert isinstance(said, Partial)
    assert said.retry == {1}
    assert not said.misconfigured
    assert code in said.reason


async def test_a_server_that_hangs_is_given_up() -> None:
    async with scripted(lambda number: ENTRY if number < 2 else b"+") as url, adder(url, timeout=1) as sink:
        said = await verdict(sink, events(5))
    assert isinstance(said, Retry)
    assert said.unanswered
    assert "within 1 s" in said.reason


async def test_a_server_that_is_not_there_is_waited_for() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        said = await refused(f"redis://127.0.0.1:{nobody.getsockname()[1]}")
    assert not said.misconfigured
    assert "check that it runs" in said.reason


@given(
    st.lists(st.tuples(st.text(), st.text(), st.floats(0, 4e9), st.dictionaries(st.text(), st.text())), min_size=1),
    st.text(min_size=1),
    st.integers(0, 5),
    st.booleans(),
)
def test_the_commands_are_those_that_the_client_would_make(
    found: list[tuple[str, str, float, dict[str, str]]], stream: str, length: int, idempotent: bool
) -> None:
    try:
        batch = [Event(type_, uid, time, 0, orjson.dumps(body)) for type_, uid, time, body in found]
        stream.encode()
        made = Adding(stream, length, idempotent=idempotent).commands(batch)
    except (UnicodeEncodeError, TypeError):
        return
    client: Any = Connection(protocol=2)  # type: ignore[no-untyped-call]
    expected = b""
    for event in batch:
        words: list[Any] = ["XADD", stream]
        words += ["IDMP", REDIS_PRODUCER, event.id] if idempotent else []
        words += ["MAXLEN", "~", length] if length else []
        words += ["*", "event", event.body, "type", event.type, "uid", event.id, "time", round(event.time * 1000)]
        expected += b"".join(client.pack_command(*words))
    assert made == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "http://localhost"}, "names no Redis server"),
        ({"url": "redis://:secret-word@localhost"}, "names no Redis server"),
        ({"url": "redis://localhost/2"}, "names no Redis server"),
        ({"username": "alice"}, "without sinks.bus.password"),
        ({"password": "secret-word", "password_file": "x"}, "both set"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SinkError, match=text) as raised:
        RedisStreamsSink(RedisOptions(**{"url": "redis://localhost", **options}), "bus", "sinks.bus")
    assert "secret-word" not in str(raised.value)
