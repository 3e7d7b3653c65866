"""What is NATS's own: subjects, ids, acknowledgements, ways to sign in, against a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import StreamConfig

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Reject, Retry
from event_handler.sinks.nats import NatsSink
from event_handler.sinks.nats.nkeys import NkeyError, user_key
from event_handler.sinks.nats.options import NatsOptions, Subject
from tests.contract.deliveries import events, verdict
from tests.contract.nats_node import PROGRAM, USER, Key, Server, jetstream, operated, running
from tests.contract.pki import make_pki

real = pytest.mark.skipif(PROGRAM is None, reason="there is no nats-server here (Debian: nats-server)")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("nats")) as started:
        yield started


@asynccontextmanager
async def publisher(server: Server | str, **options: Any) -> AsyncIterator[NatsSink]:
    url = server if isinstance(server, str) else server.url
    sink = NatsSink(NatsOptions(url=url, **options), "bus", "sinks.bus")
    yield sink
    await sink.close()


@asynccontextmanager
async def stream(server: Server, **config: Any) -> AsyncIterator[str]:
    """A stream of any name that takes `NAME.>`."""
    name = f"s{uuid4().hex}"
    async with jetstream(server) as js:
        await js.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"], **config))
        yield name
        await js.delete_stream(name)


async def stored(server: Server, name: str) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
    async with jetstream(server) as js:
        info = await js.stream_info(name)
        found = [await js.get_msg(name, seq) for seq in range(1, info.state.last_seq + 1)]
    return [(one.subject or "", one.headers or {}, orjson.loads(one.data or b"")) for one in found]


@real
async def test_an_event_has_a_subject_of_its_type_and_its_id(server: Server) -> None:
    async with stream(server) as name, publisher(server, subject=f"{name}.audit.{{type}}", stream=name) as sink:
        assert await verdict(sink, [Event("user.login", "u1", 1.0, 0, b'{"uid":"u1"}')]) == Delivered()
        ((subject, headers, body),) = await stored(server, name)
    assert subject == f"{name}.audit.user.login"
    assert headers["Nats-Msg-Id"] == "u1"
    assert body == {"uid": "u1"}


@real
async def test_a_recorded_event_names_its_session(server: Server) -> None:
    async with stream(server) as name, publisher(server, session_subject=f"{name}.session.{{session}}") as sink:
        assert await verdict(sink, events(3, session_id="a-b-c")) == Delivered()
        found = await stored(server, name)
    assert {(subject, body["teleport_session_id"]) for subject, _, body in found} == {
        (f"{name}.session.a-b-c", "a-b-c")
    }


@real
async def test_what_is_sent_twice_is_stored_once(server: Server) -> None:
    async with stream(server) as name, publisher(server, subject=f"{name}.x") as sink:
        batches = [events(100, first=100 * number) for number in range(5)]
        assert await asyncio.gather(*(verdict(sink, batch) for batch in batches)) == [Delivered()] * 5
        assert await verdict(sink, batches[0]) == Delivered()
        found = await stored(server, name)
    assert sorted(body["uid"] for _, _, body in found) == sorted(f"e{number}" for number in range(500))


@real
async def test_without_a_stream_a_person_is_told_what_to_do(server: Server) -> None:
    async with publisher(server, subject="nobody.{type}") as sink:
        said = await verdict(sink, events(3))
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "nats stream add" in said.reason
    assert "sinks.bus.subject" in said.reason


@real
async def test_another_stream_than_expected_is_for_a_person(server: Server) -> None:
    async with stream(server) as name, publisher(server, subject=f"{name}.x", stream="another") as sink:
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "check sinks.bus.stream" in said.reason


@real
async def test_an_event_that_is_too_large_for_the_stream_is_refused_alone(server: Server) -> None:
    async with stream(server, max_msg_size=1000) as name, publisher(server, subject=f"{name}.x") as sink:
        said = await verdict(sink, [*events(1), *events(1, first=1, size=2000), *events(1, first=2)])
        assert isinstance(said, Partial)
        assert set(said.rejected) == {1}
        assert not said.retry
        assert isinstance(await verdict(sink, events(1, first=3, size=2000)), Reject)


@real
async def test_an_event_that_is_too_large_for_the_server_is_refused_alone(tmp_path: Path) -> None:
    with running(tmp_path / "small", "max_payload: 8192") as small:
        async with stream(small) as name, publisher(small, subject=f"{name}.x") as sink:
            said = await verdict(sink, [*events(1, size=9000), *events(1, first=1)])
    assert isinstance(said, Partial)
    assert set(said.rejected) == {0}
    assert "max_payload" in said.rejected[0]


@real
async def test_a_full_stream_is_waited_for(server: Server) -> None:
    from nats.js.api import DiscardPolicy

    config = {"max_msgs": 2, "discard": DiscardPolicy.NEW}
    async with stream(server, **config) as name, publisher(server, subject=f"{name}.x") as sink:
        said = await verdict(sink, events(3))
        assert isinstance(said, Partial)
        assert said.retry == {2}
        assert not said.misconfigured
        assert "the stream is full" in said.reason
        assert isinstance(await verdict(sink, events(1, first=2)), Retry)


@real
async def test_a_server_that_is_killed_and_comes_back_gets_every_event_once(tmp_path: Path) -> None:
    with running(tmp_path / "killed") as server:
        async with stream(server) as name, publisher(server, subject=f"{name}.x", timeout=2) as sink:
            assert await verdict(sink, events(200)) == Delivered()
            server.kill()
            said = await verdict(sink, events(200, first=200))
            assert isinstance(said, Retry)
            assert not said.misconfigured
            assert isinstance(await verdict(sink, events(200, first=200)), Retry)
            server.start()
            async with asyncio.timeout(20):
                while await verdict(sink, events(200, first=200)) != Delivered():
                    await asyncio.sleep(0.05)
            found = await stored(server, name)
    assert sorted(body["uid"] for _, _, body in found) == sorted(f"e{number}" for number in range(400))


AUTHORIZATION = """
authorization {{
  users: [
    {{ user: alice, password: "a-secret-word", permissions: {{ publish: [">"], subscribe: [">"] }} }}
    {{ user: reader, password: "a-secret-word", permissions: {{ publish: ["nothing"], subscribe: [">"] }} }}
    {{ nkey: {nkey} }}
  ]
}}
"""


@real
async def test_passwords_and_nkeys(tmp_path: Path) -> None:
    key = Key(USER)
    (tmp_path / "seed").write_text(f"{key.seed}\n")
    (tmp_path / "other").write_text(Key(USER).seed)
    with running(tmp_path / "s", AUTHORIZATION.format(nkey=key.public)) as server:
        async with jetstream(server, user="alice", password="a-secret-word") as js:
            await js.add_stream(StreamConfig(name="T", subjects=["teleport.>"]))
        for good in (
            {"username": "alice", "password": "a-secret-word"},
            {"nkey_file": str(tmp_path / "seed")},
        ):
            async with publisher(server, **good) as sink:
                assert await verdict(sink) == Delivered(), good
        for bad, text in (
            ({"username": "alice", "password": "another-word"}, "check sinks.bus.username and password"),
            ({"nkey_file": str(tmp_path / "other")}, "nkey-file"),
            ({}, "check sinks.bus.username"),
            ({"username": "reader", "password": "a-secret-word"}, "let the user publish to sinks.bus.subject"),
        ):
            async with publisher(server, **bad) as sink:
                said = await verdict(sink)
                while isinstance(said, Retry) and "closed the connection" in said.reason:  # overtaken by a reset
                    said = await verdict(sink)
                assert isinstance(said, Retry), bad
                assert said.misconfigured, said
                assert text in said.reason
                assert "word " not in said.reason.replace("password ", "")


@real
async def test_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("not-the-token")
    with running(tmp_path / "s", 'authorization { token: "the-secret-token" }') as server:
        async with jetstream(server, token="the-secret-token") as js:
            await js.add_stream(StreamConfig(name="T", subjects=["teleport.>"]))
        async with publisher(server, token_file=str(file)) as sink:
            assert isinstance(await verdict(sink), Retry)
            file.write_text("the-secret-token\n")
            assert await verdict(sink) == Delivered(), "a file that changed is read again"


@real
async def test_a_credentials_file(tmp_path: Path) -> None:
    settings, credentials = operated()
    file = tmp_path / "user.creds"
    file.write_text(credentials)
    with running(tmp_path / "s", settings) as server:
        async with publisher(server, creds_file=str(file)) as sink:
            said = await verdict(sink)
            assert isinstance(said, Retry)
            assert "no stream takes the subject" in said.reason, "signed in, and the account has no stream"


TLS = """
tls {{ cert_file: "{d}/server.crt", key_file: "{d}/server.key", ca_file: "{ca}", verify: true }}
"""


@real
async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    pki = make_pki(tmp_path, "nats")
    key, certificate = pki.issue("localhost")
    (tmp_path / "server.crt").write_bytes(certificate)
    (tmp_path / "server.key").write_bytes(key)
    files = pki.client_files()
    with running(tmp_path / "s", TLS.format(d=tmp_path, ca=pki.path("ca.crt"))) as server:
        url = server.url.replace("nats://", "tls://")
        async with publisher(url, ca=files.ca, cert=files.cert, key=files.key) as sink:
            said = await verdict(sink)
            assert isinstance(said, Retry)
            assert "no stream takes the subject" in said.reason
        for options in ({}, {"ca": files.ca}):
            async with publisher(url, **options) as sink:
                said = await verdict(sink)
                assert isinstance(said, Retry)
                if not options:
                    assert said.misconfigured
                    assert "check sinks.bus.ca" in said.reason


@real
async def test_a_server_without_tls_gets_no_secret_and_no_event(server: Server) -> None:
    url = server.url.replace("nats://", "tls://")
    async with publisher(url, username="alice", password="a-secret-word") as sink:
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "speaks no TLS" in said.reason


async def test_a_password_does_not_go_out_in_the_clear_where_tls_is_asked_for() -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"auth_required":true,"headers":true,"max_payload":1048576}\r\n')
        heard.extend(await reader.read(4096))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, publisher(f"tls://127.0.0.1:{port}", username="a", password="a-secret-word") as sink:
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert heard == b""


async def test_a_server_that_no_longer_answers_is_left() -> None:
    came = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        writer.write(b'INFO {"headers":true,"max_payload":1048576}\r\n')
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening, publisher(f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}", timeout=1) as sink:
        for number in (1, 2):
            said = await verdict(sink)
            assert isinstance(said, Retry)
            assert said.unanswered
            assert came == number


async def test_a_server_that_is_not_there_is_waited_for() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with publisher(f"nats://127.0.0.1:{nobody.getsockname()[1]}") as sink:
            said = await asyncio.gather(*(verdict(sink) for _ in range(3)))
    assert all(isinstance(one, Retry) and not one.misconfigured and "connect" in one.reason.lower() for one in said)


@pytest.mark.parametrize("template", ["", "a..b", "a.{kind}", "a b", "a.*", "a.>", ".a", "a.{type"])
def test_a_subject_that_cannot_be_one_is_refused(template: str) -> None:
    with pytest.raises(SinkError, match="cannot be a subject"):
        Subject(template, "sinks.bus.subject")


@given(st.text(), st.text())
def test_every_type_gives_a_subject(type_: str, session: str) -> None:
    words = Subject("a.{type}.{session}", "x").of(type_, session).split(".")
    assert words[0] == "a"
    assert all(words)
    assert all(not set(word) & set("*> \t\r\n") and word.isascii() for word in words)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "http://localhost"}, "names no NATS server"),
        ({"url": "nats://user:secret-word@localhost"}, "names no NATS server"),
        ({"token": "secret-word", "username": "a"}, "set together"),
        ({"password": "secret-word"}, "without sinks.bus.username"),
        ({"nkey_file": "/does/not/exist"}, "cannot be used"),
        ({"cert": "a.pem"}, "only one of"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SinkError, match=text) as raised:
        NatsSink(NatsOptions(**{"url": "nats://localhost", **options}), "bus", "sinks.bus")
    assert "secret-word" not in str(raised.value)


@given(st.integers(0, 56), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_seed_with_a_wrong_letter_is_noticed(place: int, letter: str) -> None:
    """The last letter holds three bits of the seed and two that mean nothing."""
    seed = Key(USER).seed
    other = seed[:place] + letter + seed[place + 1 :]
    if other != seed:
        with pytest.raises(NkeyError):
            user_key(other)


def test_a_key_is_the_one_of_its_seed() -> None:
    key = Key(USER)
    assert user_key(key.seed).public == key.public
    assert key.seed not in repr(user_key(key.seed))
