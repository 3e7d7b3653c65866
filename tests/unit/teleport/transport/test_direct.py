"""Plain TCP reaches its target directly or through a proxy, and every refusal names the address and the next step."""

from __future__ import annotations

import asyncio
import socket

import pytest

from event_handler.errors import ConfigurationError, ConnectError
from event_handler.teleport.transport import direct
from event_handler.teleport.transport.upgrade import upgrade
from tests.unit.teleport.transport.servers import (
    Handler,
    HttpProxy,
    PublicAuthority,
    Reader,
    SocksProxy,
    Writer,
    echo,
    echoes,
    listening,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

FAR = "teleport.example.com:443"


async def test_a_local_port_is_reached_with_keep_alive_and_without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with listening(echo) as port:
        stream = await direct(f"127.0.0.1:{port}")()
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        stream.close()
        assert await echoes(direct(f"localhost:{port}"))


async def test_a_port_without_a_listener_is_said_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectError, match=rf"cannot connect to {address}.*teleport\.addr"):
            await direct(address)()


@pytest.mark.parametrize("name", ["nowhere.invalid", "a" * 64, "a..b"])
async def test_a_name_that_does_not_resolve_is_said_so(name: str) -> None:
    with pytest.raises(ConnectError, match=r"does not resolve.*teleport\.addr"):
        await direct(f"{name}:443")()


@pytest.mark.parametrize("address", ["", "host", "host:", "host:0", "host:65536", ":443", "host:http"])
def test_what_is_no_address_is_refused_before_dialing(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        direct(address)


async def test_an_http_proxy_is_asked_for_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(echo) as target:
        proxy = HttpProxy(target, login="us er:pass:w@rd")
        async with listening(proxy) as port:
            monkeypatch.setenv("https_proxy", f"http://us%20er:pass%3Aw%40rd@127.0.0.1:{port}")
            assert await echoes(direct(FAR))
    assert proxy.seen[0].startswith(f"CONNECT {FAR} HTTP/1.1\r\nHost: {FAR}\r\n")


async def test_a_server_that_speaks_first_behind_a_proxy_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-first"
    async with listening(echo) as target, listening(HttpProxy(target, answer=answer)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
        stream = await direct(FAR)()
        reader, writer = await asyncio.open_connection(sock=stream)
        assert await reader.readexactly(13) == b"SSH-2.0-first"
        writer.close()
        await writer.wait_closed()


async def test_a_proxy_with_tls_is_checked_against_the_public_roots(
    monkeypatch: pytest.MonkeyPatch, public: PublicAuthority
) -> None:
    async with listening(echo) as target:
        async with listening(HttpProxy(target), public.context()) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{port}")
            assert await echoes(direct(FAR), 5_000_000)
        async with listening(HttpProxy(target), public.context("elsewhere.example")) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{port}")
            with pytest.raises(ConnectError, match=f"certificate of the proxy https://localhost:{port} is not trusted"):
                await direct(FAR)()


async def test_a_name_that_tls_cannot_carry_is_said_so(
    public: PublicAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(echo) as target, listening(HttpProxy(target)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(ConnectError, match=r"TLS with \.example\.com:443 failed"):
            await upgrade(".example.com:443", always=True)()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("login", ["", "user:secret"])
async def test_a_socks_proxy_is_asked_for_the_name(monkeypatch: pytest.MonkeyPatch, scheme: str, login: str) -> None:
    async with listening(echo) as target:
        proxy = SocksProxy(target, login=login)
        async with listening(proxy) as port:
            monkeypatch.setenv("HTTP_PROXY", f"{scheme}://{login and login + '@'}127.0.0.1:{port}")
            assert await echoes(direct(FAR))
            assert await echoes(direct("192.0.2.1:3025"))
            assert await echoes(direct("[2001:db8::1]:3025"))
    assert proxy.seen[0] == b"\x03teleport.example.com\x01\xbb"
    assert proxy.seen[1] == b"\x01\xc0\x00\x02\x01\x0b\xd1"
    assert proxy.seen[2] == b"\x04" + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + b"\x0b\xd1"


async def _silence(reader: Reader, writer: Writer) -> None:
    await reader.read()


async def _endless(reader: Reader, writer: Writer) -> None:
    while True:
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 4096)
        await writer.drain()


async def _slam(reader: Reader, writer: Writer) -> None:
    await reader.read(1)


@pytest.mark.parametrize(
    ("scheme", "server", "message"),
    [
        ("http", HttpProxy(1, login="other:login"), r"407 Proxy Auth.*percent-encoded"),
        ("http", HttpProxy(1, answer=b"HTTP/1.1 403 Forbidden\r\n\r\n"), r"403 Forbidden.*rules"),
        ("http", HttpProxy(1, answer=b"HTTP/1.0 502 Bad Gateway\r\n\r\n"), r"502 Bad Gateway.*teleport\.addr"),
        ("http", HttpProxy(1, answer=b"HTTP/1.1 201 Created\r\n\r\n"), r"201 Created"),
        ("http", HttpProxy(1, answer=b"220 mail.example.com ESMTP\r\n\r\n"), r"does not answer as an HTTP proxy"),
        ("http", _endless, r"no end within 16 KiB"),
        ("http", _slam, r"broke off"),
        ("socks5", SocksProxy(1, login="other:login"), r"refused the user name and password"),
        ("socks5", SocksProxy(1, reply=2), r"rules forbid this address"),
        ("socks5", SocksProxy(1, reply=5), r"connection refused"),
        ("socks5", SocksProxy(1, reply=99), r"code 99"),
        ("socks5", _slam, r"broke off"),
        ("socks5", HttpProxy(1), r"does not answer|broke off|did not answer"),
    ],
)
async def test_a_refusal_of_the_proxy_is_explained_without_the_password(
    monkeypatch: pytest.MonkeyPatch, scheme: str, server: Handler, message: str
) -> None:
    monkeypatch.setattr("event_handler.teleport.transport.proxied.PROXY_TIMEOUT", 2.0)
    async with listening(server) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://user:secret@127.0.0.1:{port}")
        with pytest.raises(ConnectError, match=message) as caught:
            await direct(FAR)()
    assert f"{scheme}://127.0.0.1:{port}" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_a_silent_proxy_is_given_up_and_a_cancelled_dial_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr("event_handler.teleport.transport.proxied.PROXY_TIMEOUT", 0.1)
    monkeypatch.setattr("event_handler.teleport.transport.tls_stream.TLS_TIMEOUT", 0.1)
    async with listening(_silence) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://127.0.0.1:{port}")
        with pytest.raises(ConnectError, match=f"{scheme}://127.0.0.1:{port}.*within 0 s"):
            await direct(FAR)()
        monkeypatch.setattr("event_handler.teleport.transport.proxied.PROXY_TIMEOUT", 60)
        monkeypatch.setattr("event_handler.teleport.transport.tls_stream.TLS_TIMEOUT", 60)
        dial = asyncio.ensure_future(direct(FAR)())
        await asyncio.sleep(0.1)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
