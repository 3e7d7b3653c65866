"""Whatever a server sends becomes an error that is waited out, never a fault of ours, and the next call finds its
way again.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from event_handler.errors import ConnectError, RpcError
from event_handler.teleport.rpc import connection as module
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection
from tests.unit.teleport.rpc.odd_server import (
    ALTSVC,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FINE,
    GOAWAY,
    HEADERS,
    OPENING,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Answer,
    OddServer,
    Pairs,
    Peer,
    frame,
    message,
    odd_server,
    sane,
)

pytestmark = pytest.mark.proof

METHOD = "/proto.AuthService/Ping"
QUICK = 0.5  # seconds for a call that is never answered
GOOD = message(b"\x0a\x08sim.test")


def whole(*messages: bytes, opening: Pairs = OPENING, trailers: Pairs = FINE) -> Answer:
    return lambda peer, stream: peer.answer(stream, *messages, opening=opening, trailers=trailers)


def only(pairs: Pairs) -> Answer:
    """Headers that end the stream."""
    return lambda peer, stream: peer.headers(stream, pairs, end=True)


def cut(*messages: bytes) -> Answer:
    """The stream ends with its data; there are no trailers."""
    return then(opens, lambda peer, stream: peer.data(stream, b"".join(messages), end=True))


def begun(*rest: Answer) -> Answer:
    """Headers and a good message, and then something else."""
    return then(opens, sends(GOOD), *rest)


def frames(*kinds_flags_content: tuple[int, int, bytes], stream: int | None = None) -> Answer:
    """Frames as they are given, on the stream of the call or another one."""

    def answer(peer: Peer, called: int) -> None:
        for kind, flags, content in kinds_flags_content:
            peer.raw(frame(kind, flags, called if stream is None else stream, content))

    return answer


def then(*answers: Answer) -> Answer:
    """One after the other."""

    def answer(peer: Peer, stream: int) -> None:
        for one in answers:
            one(peer, stream)

    return answer


def ends(peer: Peer, _: int) -> None:
    peer.close()


def breaks(peer: Peer, _: int) -> None:
    peer.abort()


def opens(peer: Peer, stream: int) -> None:
    peer.headers(stream, OPENING)


def sends(content: bytes) -> Answer:
    return lambda peer, stream: peer.data(stream, content)


def encoded(kind: int, pairs: list[tuple[bytes, bytes]], before: bytes = b"") -> Answer:
    return lambda peer, stream: peer.raw(frame(kind, END_HEADERS, stream, before + peer.encoder.encode(pairs)))


def goaway(code: int, last: int = 2**31 - 1) -> Answer:
    return frames((GOAWAY, 0, struct.pack(">II", last, code)), stream=0)


def raw(data: bytes) -> Answer:
    return lambda peer, _: peer.raw(data)


def status(value: str, *more: tuple[str, str]) -> Answer:
    return whole(GOOD, trailers=[("grpc-status", value), *more])


# What answers a call. Each of these is an error for every kind of call.
BROKEN: dict[str, Answer] = {
    "compressed": whole(message(b"zip", flag=1)),
    "compressed after a good one": whole(GOOD, message(b"zip", flag=1)),
    "flag of no meaning": whole(message(b"zip", flag=7)),
    "cut off in the message": whole(message(b"half", size=9)),
    "cut off in the prefix": whole(b"\0\0"),
    "one byte after a good one": whole(GOOD, b"\0"),
    "4 GiB promised": whole(message(b"little", size=2**32 - 1)),
    "no trailers": cut(GOOD),
    "no trailers and no message": cut(b""),
    "no trailers and half a message": cut(message(b"half", size=9)),
    "no status": whole(GOOD, trailers=[("x-other", "1")]),
    "status that is no number": status("fine"),
    "status that is empty": status(""),
    "status of another world": status("99"),
    "status below zero": status("-1"),
    "an error with a message of broken percents": status("13", ("grpc-message", "%zz%e4%")),
    "an error with details that are no base64": status("13", ("grpc-status-details-bin", "!")),
    "headers only, an error": only([*OPENING, ("grpc-status", "14"), ("grpc-message", "draining")]),
    "headers only, no status": only(OPENING),
    "headers only, status that is no number": only([*OPENING, ("grpc-status", "fine")]),
    "no content type": whole(GOOD, opening=[(":status", "200")]),
    "HTML": whole(b"<html>", opening=[(":status", "200"), ("content-type", "text/html")]),
    "JSON over gRPC": whole(b"{}", opening=[(":status", "200"), ("content-type", "application/grpc+json")]),
    "503 of a proxy": only([(":status", "503"), ("content-type", "text/plain")]),
    "404 with gRPC's content type": whole(GOOD, opening=[(":status", "404"), ("content-type", "application/grpc")]),
    "a redirect": only([(":status", "302"), ("location", "https://elsewhere.test/")]),
    "a status line that is no number": only([(":status", "fine"), ("content-type", "application/grpc")]),
    "no pseudo header": only([("content-type", "application/grpc"), ("grpc-status", "0")]),
    "headers of 100 kB": whole(GOOD, opening=[*OPENING, *((f"x-{n}", "y" * 1000) for n in range(100))]),
    "headers that are no ASCII": encoded(HEADERS, [(b":status", b"200"), (b"x", b"\xff")]),
    "headers that are no HPACK": frames((HEADERS, END_HEADERS, b"\xff" * 30)),
    "a reset, refused": frames((RST_STREAM, 0, struct.pack(">I", 7))),
    "a reset without an error": begun(frames((RST_STREAM, 0, struct.pack(">I", 0)))),
    "a reset of an unknown code": begun(frames((RST_STREAM, 0, struct.pack(">I", 999)))),
    "a reset that is too short": frames((RST_STREAM, 0, b"\0")),
    "farewell": goaway(0),
    "farewell in the middle": begun(goaway(0)),
    "farewell for pinging too often": goaway(11),
    "farewell of an unknown code": goaway(999),
    "farewell before this call": goaway(0, last=0),
    "farewell with a text that is no text": frames((GOAWAY, 0, struct.pack(">II", 0, 2) + b"\xff\xfe")),
    "data before headers": frames((DATA, END_STREAM, GOOD)),
    "data on a stream that nobody opened": frames((DATA, 0, GOOD), stream=99),
    "headers on a stream that nobody opened": lambda peer, _: peer.headers(98, OPENING),
    "a pushed answer": encoded(PUSH_PROMISE, [(b":path", b"/")], struct.pack(">I", 2)),
    "more than the window": begun(*[sends(bytes(16384))] * 64),
    "padding longer than the frame": begun(frames((DATA, 8, b"\xff"))),
    "a window that overflows": begun(frames((WINDOW_UPDATE, 0, struct.pack(">I", 2**31 - 1)))),
    "a window of nothing": begun(frames((WINDOW_UPDATE, 0, struct.pack(">I", 0)))),
    "settings that are cut off": frames((SETTINGS, 0, b"\0\0\0"), stream=0),
    "a setting out of range": frames((SETTINGS, 0, struct.pack(">HI", 5, 1)), stream=0),
    "a ping that is too short": frames((PING, 0, b"\0"), stream=0),
    "headers that go on in nothing": frames((CONTINUATION, END_HEADERS, b"")),
    "a frame of 16 MiB": raw(b"\xff\xff\xff" + bytes(6)),
    "a web server of the last century": raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "garbage": raw(bytes(range(256)) * 8),
    "the end of the connection": ends,
    "the end of the connection in the middle": begun(ends),
    "a connection that breaks": breaks,
    "a connection that breaks in the middle": begun(breaks),
}
# Never answered: the time-out ends these.
SILENT: dict[str, Answer] = {
    "300 MiB promised and the stream left open": begun(sends(message(b"little", size=300 * 2**20))),
    "nothing": then(),
    "an opening": opens,
    "half a message": then(opens, sends(message(b"half", size=9))),
    "a message and no end": begun(),
    "no stream allowed": frames((SETTINGS, 0, struct.pack(">HI", 3, 0)), stream=0),
}
# Allowed by the specifications, and no reason to fail.
HARMLESS: dict[str, Answer] = {
    "an opening with a header that is no base64": whole(GOOD, opening=[*OPENING, ("x-bin", "!")]),
    "fine with a trailer that is no base64": whole(GOOD, trailers=[*FINE, ("x-bin", "!")]),
    "an early hint": then(lambda peer, stream: peer.headers(stream, [(":status", "103"), ("link", "x")]), sane),
    "a frame of an unknown kind": then(frames((0xBE, 0, b"grease")), sane),
    "another way to the same service": then(frames((ALTSVC, 0, b"\0\x05a.testh2=x"), stream=0), sane),
    "a ping": then(frames((PING, 0, bytes(8)), stream=0), sane),
    "a message in pieces": then(opens, *(sends(GOOD[at : at + 1]) for at in range(len(GOOD))), only(FINE)),
    "an unknown setting": then(frames((SETTINGS, 0, struct.pack(">HI", 0xFFF, 1)), stream=0), sane),
}
PREFACE = frames((SETTINGS, 0, b""), stream=0)
# What greets whoever connects, before any call.
GREETINGS: dict[str, Answer] = {
    "farewell": goaway(0, last=0),
    "farewell after the settings": then(PREFACE, goaway(0)),
    "farewell and the end": then(PREFACE, goaway(0), ends),
    "garbage": raw(b"\x16\x03\x01" * 100),
    "a web server of the last century": raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "another protocol": raw(b"SSH-2.0-Go\r\n"),
    "the end": ends,
    "a break": breaks,
    "settings and the end": then(PREFACE, ends),
    "a setting out of range": frames((SETTINGS, 0, struct.pack(">HI", 4, 2**31)), stream=0),
}


async def stream(connection: Connection) -> list[bytes]:
    return [one async for many in connection.stream(METHOD, b"") for one in many]


async def unary(connection: Connection) -> bytes:
    return await connection.unary(METHOD, b"")


@pytest.fixture(autouse=True)
def no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What fails in a callback of the event loop is told by its own logger only."""
    caplog.set_level(logging.WARNING)
    yield
    assert [record.getMessage() for record in caplog.records] == []


async def is_sane_again(odd: OddServer, connection: Connection) -> None:
    odd.answer, odd.greeting = sane, None
    assert (await Client(connection).ping()).name == "sim.test"


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_to_a_call_is_an_error_of_the_call_or_the_connection(tmp_path: Path, name: str) -> None:
    async with odd_server(tmp_path) as (odd, connection):
        for call in (unary, stream):
            odd.answer = BROKEN[name]
            with pytest.raises((ConnectError, RpcError)) as caught:
                await asyncio.wait_for(call(connection), 20)
            assert "\n" not in caught.value.message
            await is_sane_again(odd, connection)


@pytest.mark.parametrize("name", SILENT)
async def test_an_answer_that_never_ends_is_given_up(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNARY_TIMEOUT", QUICK)
    monkeypatch.setattr(module, "STALL_TIMEOUT", QUICK)
    async with odd_server(tmp_path) as (odd, connection):
        for call in (unary, stream):
            odd.answer = SILENT[name]
            with pytest.raises((ConnectError, RpcError)):
                await asyncio.wait_for(call(connection), 20)
    async with odd_server(tmp_path) as (odd, connection):
        await is_sane_again(odd, connection)


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_the_specifications_allow_is_no_reason_to_fail(tmp_path: Path, name: str) -> None:
    async with odd_server(tmp_path) as (odd, connection):
        odd.answer = HARMLESS[name]
        assert await unary(connection) == (await stream(connection))[0] != b""
        assert odd.accepted == 1


@pytest.mark.parametrize("name", GREETINGS)
async def test_a_connection_that_is_ended_as_soon_as_it_stands_is_lost_and_no_fault(tmp_path: Path, name: str) -> None:
    async with odd_server(tmp_path) as (odd, connection):
        for call in (unary, stream):
            connection.close()
            odd.greeting = lambda peer: GREETINGS[name](peer, 0)
            for _ in range(3):  # the farewell may arrive before the call is begun, or after it
                with pytest.raises((ConnectError, RpcError)):
                    await asyncio.wait_for(call(connection), 20)
            await is_sane_again(odd, connection)


async def test_an_answer_without_a_message_is_no_answer_to_a_unary_call_and_an_empty_stream(tmp_path: Path) -> None:
    async with odd_server(tmp_path) as (odd, connection):
        for answer in (whole(), only([*OPENING, *FINE])):
            odd.answer = answer
            with pytest.raises(RpcError) as caught:
                await unary(connection)
            assert caught.value.code == "INTERNAL"
            assert await stream(connection) == []
            await is_sane_again(odd, connection)


async def test_messages_before_the_broken_one_are_handed_on(tmp_path: Path) -> None:
    async with odd_server(tmp_path) as (odd, connection):
        odd.answer = whole(GOOD, GOOD, message(b"zip", flag=1))
        stream_of_many = connection.stream(METHOD, b"")
        got = await anext(stream_of_many)
        while len(got) < 2:
            got += await anext(stream_of_many)
        with pytest.raises(RpcError, match="compressed"):
            await anext(stream_of_many)
    assert got == [GOOD[5:]] * 2
