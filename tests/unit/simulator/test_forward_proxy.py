"""The forward proxies, used by aiohttp's client and by clients that speak the protocols byte by byte."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from event_handler.simulator.forward_proxy import ForwardProxy, Kind
from event_handler.simulator.listener import Listener, copy
from tests.unit.simulator.clients import Stream, connect


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """host:port of a server that sends back what it gets."""
    listener = Listener(copy)
    yield await listener.start()
    await listener.close()


@asynccontextmanager
async def proxy(kind: Kind, user: str = "", password: str = "") -> AsyncIterator[tuple[ForwardProxy, Stream]]:
    """A running proxy, and a connection to it."""
    made = ForwardProxy(kind, user, password)
    reader, writer = await connect(await made.start())
    yield made, (reader, writer)
    writer.close()
    await made.close()


async def echoes(stream: Stream) -> bool:
    reader, writer = stream
    writer.write(b"x" * 100_000)
    writer.write_eof()
    return await reader.read(-1) == b"x" * 100_000


async def ask_connect(stream: Stream, target: str, *headers: str) -> bytes:
    reader, writer = stream
    writer.write("\r\n".join([f"CONNECT {target} HTTP/1.1", f"Host: {target}", *headers, "", ""]).encode())
    return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(("user", "header"), [("", "X: y"), ("a", "Proxy-Authorization: Basic YTpiOmM=")])
async def test_connect_passes_bytes_on_and_counts(echo: str, user: str, header: str) -> None:
    async with proxy(Kind.CONNECT, user, "b:c") as (running, stream):
        assert (await ask_connect(stream, echo, header)).startswith(b"HTTP/1.1 200 ")
        assert await echoes(stream)
        assert (running.accepted, running.targets) == (1, [echo])


@pytest.mark.parametrize("headers", [(), ("Proxy-Authorization: Basic YTpiOmQ=",)], ids=["none", "wrong"])
async def test_connect_wants_the_password(echo: str, headers: tuple[str, ...]) -> None:
    async with proxy(Kind.CONNECT, "a", "b:c") as (running, stream):
        answer = await ask_connect(stream, echo, *headers)
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert b"Proxy-Authenticate: Basic" in answer
        assert (running.accepted, running.targets) == (1, [])


async def test_connect_tells_when_the_target_is_not_there() -> None:
    async with proxy(Kind.CONNECT) as (_, stream):
        assert (await ask_connect(stream, "127.0.0.1:1")).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET http://127.0.0.1:1/ HTTP/1.1", b"405"),
        ("CONNECT", b"502"),
        ("", b"405"),
        ("CONNECT here HTTP/1.1", b"502"),
    ],
)
async def test_other_http_requests_are_refused(request_line: str, status: bytes) -> None:
    async with proxy(Kind.CONNECT) as (_, (reader, writer)):
        writer.write(f"{request_line}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)


async def ask_socks5(stream: Stream, host: bytes, port: int, method: bytes = b"\x00") -> bytes:
    """Send a whole conversation at once, and return all answers up to the reply."""
    reader, writer = stream
    writer.write(b"\x05\x01" + method + (b"\x01\x01a\x01b" if method == b"\x02" else b""))
    writer.write(b"\x05\x01\x00" + host + port.to_bytes(2))
    return await reader.readexactly(2 + 2 * (method == b"\x02") + 10)


GRANTED = b"\x05\x00\x00\x01" + bytes(6)


@pytest.mark.parametrize("host", [b"\x01\x7f\x00\x00\x01", b"\x03\x09127.0.0.1"], ids=["ipv4", "name"])
async def test_socks5_passes_bytes_on_and_counts(echo: str, host: bytes) -> None:
    async with proxy(Kind.SOCKS5) as (running, stream):
        assert await ask_socks5(stream, host, int(echo.rpartition(":")[2])) == b"\x05\x00" + GRANTED
        assert await echoes(stream)
        assert (running.accepted, running.targets) == (1, [echo])


async def test_socks5_with_a_password(echo: str) -> None:
    async with proxy(Kind.SOCKS5, "a", "b") as (_, stream):
        port = int(echo.rpartition(":")[2])
        assert await ask_socks5(stream, b"\x01\x7f\x00\x00\x01", port, b"\x02") == b"\x05\x02\x01\x00" + GRANTED
        assert await echoes(stream)


async def test_socks5_refuses_a_wrong_password_or_none() -> None:
    async with proxy(Kind.SOCKS5, "a", "c") as (running, (reader, writer)):
        writer.write(b"\x05\x01\x02\x01\x01a\x01b")
        assert await reader.read(-1) == b"\x05\x02\x01\x01"
        assert running.targets == []
    async with proxy(Kind.SOCKS5, "a", "c") as (_, (reader, writer)):
        writer.write(b"\x05\x01\x00")
        assert await reader.read(-1) == b"\x05\xff"


async def test_socks5_tells_when_the_target_is_not_there_and_refuses_what_it_cannot() -> None:
    async with proxy(Kind.SOCKS5) as (_, stream):
        assert (await ask_socks5(stream, b"\x01\x7f\x00\x00\x01", 1))[3] == 5
    async with proxy(Kind.SOCKS5) as (_, (reader, writer)):
        writer.write(b"\x05\x01\x00" + b"\x05\x02\x00\x01" + bytes(6))
        assert (await reader.readexactly(12))[3] == 7
    async with proxy(Kind.SOCKS5) as (_, (reader, writer)):
        writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x09" + bytes(6))
        assert (await reader.readexactly(12))[3] == 8


async def test_as_a_process_it_tells_its_address_and_at_the_end_its_counts(echo: str) -> None:
    command = (sys.executable, "-m", "event_handler.simulator.forward_proxy", "--kind=connect")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    stream = await connect(json.loads(await process.stdout.readline())["address"])
    await ask_connect(stream, echo)
    assert await echoes(stream)
    stream[1].close()
    process.send_signal(signal.SIGTERM)
    told, _ = await process.communicate()
    assert json.loads(told) == {"accepted": 1, "targets": [echo]}
    assert process.returncode == 0
