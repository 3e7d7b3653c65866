"""A Proxy behind a load balancer is reached by a connection upgrade, when a test or the environment says so."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import WSMsgType
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import ConnectError
from event_handler.simulator.certificates import make_authority
from event_handler.teleport.transport.ssh_tunnel import tunnel
from event_handler.teleport.transport.upgrade import forced, needs_upgrade, upgrade
from tests.unit.teleport.transport.proxy_server import UpgradingProxy
from tests.unit.teleport.transport.servers import (
    HttpProxy,
    PublicAuthority,
    Reader,
    Writer,
    echo,
    echoes,
    join,
    listening,
    server_context,
)
from tests.unit.teleport.transport.ssh_server import TunnelServer, make_cluster

pytestmark = pytest.mark.usefixtures("nothing_left")

ROUTED = "teleport-reversetunnel"


async def test_an_upgraded_connection_carries_megabytes_and_answers_pings(public: PublicAuthority) -> None:
    async with listening(echo) as target:
        proxy = UpgradingProxy(target, pings=True)
        async with proxy.listening(public.context()) as port:
            assert await echoes(upgrade(f"localhost:{port}"), 8_000_000)
            for _ in range(100):
                if proxy.endings:
                    break
                await asyncio.sleep(0.02)
    assert proxy.asked == ["alpn-ping"]
    assert proxy.hosts == [f"localhost:{port}"]
    assert proxy.pongs
    assert all(pong == b"teleport" for pong in proxy.pongs)
    assert proxy.endings == [(WSMsgType.CLOSE, 1000)]


async def test_a_server_without_pings_is_asked_again(public: PublicAuthority) -> None:
    async with listening(echo) as target:
        proxy = UpgradingProxy(target, kinds=("alpn",))
        async with proxy.listening(public.context()) as port:
            assert await echoes(upgrade(f"localhost:{port}"))
    assert proxy.asked == ["alpn-ping", "alpn"]


async def test_an_upgrade_goes_through_the_proxy_of_the_environment(
    public: PublicAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = public.context("teleport.example.com")
    async with (
        listening(echo) as target,
        UpgradingProxy(target).listening(context) as upgrading,
        listening(HttpProxy(upgrading)) as port,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        assert await echoes(upgrade("teleport.example.com:443"))


async def test_a_proxy_that_routes_tls_itself_needs_no_upgrade(public: PublicAuthority) -> None:
    async with listening(echo, public.context(protocols=(ROUTED, "h2"))) as port:
        with pytest.raises(ConnectError, match=rf"localhost:{port} needs no connection upgrade"):
            await upgrade(f"localhost:{port}")()


async def _alert(reader: Reader, writer: Writer) -> None:
    """A TLS record with the fatal alert 120, no_application_protocol, as the answer to a ClientHello."""
    await reader.readexactly(5)
    writer.write(b"\x15\x03\x03\x00\x02\x02\x78")
    await writer.drain()
    await reader.read(2000)


async def _slam(reader: Reader, writer: Writer) -> None:
    await reader.readexactly(5)


async def test_the_test_handshake_tells_whether_tls_is_ended_in_front_of_the_proxy(public: PublicAuthority) -> None:
    async with (
        listening(echo, public.context()) as without,
        listening(echo, public.context(protocols=("h2",))) as other,
    ):
        assert await needs_upgrade(f"localhost:{without}", {})
        assert await needs_upgrade(f"localhost:{other}", {})
    async with listening(_alert) as alerting, listening(_slam) as slamming:
        assert await needs_upgrade(f"localhost:{alerting}", {})
        assert not await needs_upgrade(f"localhost:{slamming}", {})
    assert not await needs_upgrade(f"localhost:{slamming}", {})
    async with listening(echo, public.context("elsewhere.example")) as untrusted:
        assert not await needs_upgrade(f"localhost:{untrusted}", {})
        assert await needs_upgrade(f"localhost:{untrusted}", {}, insecure_proxy=True)


async def test_a_silent_server_passes_no_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(reader: Reader, _: Writer) -> None:
        await reader.read(10_000)
        await reader.read(10_000)

    monkeypatch.setattr("event_handler.teleport.transport.upgrade.TEST_TIMEOUT", 0.2)
    async with listening(silence) as port:
        assert not await needs_upgrade(f"localhost:{port}", {})


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", None),
        ("yes", True),
        ("No", False),
        ("ON", True),
        ("0", False),
        ("nonsense", False),
        ("proxy:443=yes", True),
        ("proxy:443=nope", False),
        ("other:443=yes", False),
        ("other:443=no;yes", True),
        ("yes;proxy:443=n", False),
        ("proxy:443=t;proxy:443=yeah", True),
        ("proxy:443=y,proxy:443=no", True),
        (" other:443 = on , proxy:443 = TRUE ", True),
        ("proxy=yes", False),
    ],
)
def test_the_environment_decides_for_one_address_or_for_all(setting: str, expected: bool | None) -> None:
    assert forced("proxy:443", {"TELEPORT_TLS_ROUTING_CONN_UPGRADE": setting}) is expected


@given(st.text(alphabet="yesno=;, :1proxy", max_size=40))
def test_no_setting_breaks_the_decision(setting: str) -> None:
    assert forced("proxy:443", {"TELEPORT_TLS_ROUTING_CONN_UPGRADE": setting}) in (None, True, False)


async def test_what_is_forced_is_not_tested(public: PublicAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(echo) as target, UpgradingProxy(target).listening(public.context()) as port:
        monkeypatch.setenv("TELEPORT_TLS_ROUTING_CONN_UPGRADE", f"localhost:{port}=no")
        with pytest.raises(ConnectError, match="needs no connection upgrade"):
            await upgrade(f"localhost:{port}")()
        assert await echoes(upgrade(f"localhost:{port}", always=True))


class Answering:
    """A web server that answers an upgrade with this head, `%s` being the right Sec-WebSocket-Accept."""

    def __init__(self, head: str, then: bytes = b"", *, deaf: bool = False) -> None:
        self.head, self.then, self.deaf = head, then, deaf

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = request.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()  # noqa: S324
        writer.write(self.head.replace("%s", accept).replace("\n", "\r\n").encode() + self.then)
        await writer.drain()
        if self.deaf:
            await asyncio.Event().wait()
        await reader.read(1000)


SWITCHED = (
    "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nSec-WebSocket-Accept: %s\nSec-WebSocket-Protocol: "
    "alpn-ping\n\n"
)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("HTTP/1.1 404 Not Found\n\n", r"knows no connection upgrade \(404\).*older than Teleport 15\.1"),
        ("HTTP/1.1 400 Bad Request\n\n", r"does not take part"),
        ("HTTP/1.1 200 OK\n\n", r"did not switch protocols \(status 200\)"),
        ("HTTP/1.1 502 Bad Gateway\n\n", r"status 502.*load balancer"),
        ("SSH-2.0-x\n\n", r"status 0"),
        ("", r"broke off the connection upgrade|did not answer"),
        (SWITCHED.replace("%s", "wrong"), "something else than Teleport's WebSocket"),
        (SWITCHED.replace("websocket", "h2c"), "something else than Teleport's WebSocket"),
        (SWITCHED.replace("alpn-ping", "mqtt"), "something else than Teleport's WebSocket"),
    ],
)
async def test_an_answer_that_is_no_upgrade_is_explained(
    public: PublicAuthority, monkeypatch: pytest.MonkeyPatch, head: str, message: str
) -> None:
    monkeypatch.setattr("event_handler.teleport.transport.upgrade.ANSWER_TIMEOUT", 1.0)
    async with listening(Answering(head), public.context()) as port:
        with pytest.raises(ConnectError, match=rf"localhost:{port} .*{message}|localhost:{port} {message}"):
            await upgrade(f"localhost:{port}", always=True)()


async def test_the_form_before_websocket_is_used_when_the_environment_says_so(
    public: PublicAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def legacy(reader: Reader, writer: Writer) -> None:
        assert b"\r\nUpgrade: alpn\r\n" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: alpn\r\n\r\n")
        await echo(reader, writer)

    monkeypatch.setenv("TELEPORT_TLS_ROUTING_CONN_UPGRADE_MODE", "legacy")
    async with listening(legacy, public.context()) as port:
        assert await echoes(upgrade(f"localhost:{port}"))


async def test_an_untrusted_load_balancer_is_refused_unless_told_otherwise(public: PublicAuthority) -> None:
    async with listening(echo) as target, UpgradingProxy(target).listening(public.context("elsewhere.example")) as port:
        with pytest.raises(ConnectError, match=rf"certificate of localhost:{port} is not trusted"):
            await upgrade(f"localhost:{port}", always=True)()
        assert await echoes(upgrade(f"localhost:{port}", always=True, insecure_proxy=True))


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.05])
async def test_a_dial_that_is_cancelled_at_any_point_leaves_nothing(public: PublicAuthority, delay: float) -> None:
    async with listening(Answering(""), public.context()) as port:
        dial = asyncio.ensure_future(upgrade(f"localhost:{port}", always=True)())
        await asyncio.sleep(delay)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial


async def test_what_the_server_sends_with_its_answer_is_not_lost_and_its_end_is_passed_on(
    public: PublicAuthority,
) -> None:
    last = Answering(SWITCHED, b"\x02\x03abc\x89\x02hi\x80\x03def\x88\x02\x03\xe8")
    async with listening(last, public.context()) as port:
        reader, writer = await asyncio.open_connection(sock=await upgrade(f"localhost:{port}", always=True)())
        assert await asyncio.wait_for(reader.read(), 10) == b"abcdef"
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_a_side_that_stops_reading_slows_the_other_down(public: PublicAuthority) -> None:
    sent = 0

    async def endless(_: Reader, writer: Writer) -> None:
        nonlocal sent
        with suppress(OSError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536

    async with listening(endless) as target, UpgradingProxy(target).listening(public.context()) as port:
        stream = await upgrade(f"localhost:{port}")()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)
        assert sent < 32 * 1024 * 1024
        stream.close()


async def test_a_server_that_stops_reading_slows_us_down(public: PublicAuthority) -> None:
    taken = 0

    async def send() -> None:
        nonlocal taken
        while taken < 64 * 1024 * 1024:
            await asyncio.get_running_loop().sock_sendall(stream, bytes(65536))
            taken += 65536

    async with listening(Answering(SWITCHED, deaf=True), public.context()) as port:
        stream = await upgrade(f"localhost:{port}", always=True)()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(), 3.0)
        assert taken < 32 * 1024 * 1024
        stream.close()


async def test_the_tunnel_is_found_by_discovery_on_its_own_port(public: PublicAuthority, tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path)
    async with listening(echo) as target:
        server = TunnelServer(cluster, target)
        async with server.listening(cluster.host_certificate("localhost")) as ssh:
            find = {"proxy": {"ssh": {"ssh_tunnel_public_addr": f"localhost:{ssh}"}, "tls_routing_enabled": False}}
            async with UpgradingProxy(1, find=find).listening(public.context()) as web:
                assert await echoes(tunnel(f"localhost:{web}", cluster.credentials))


async def test_the_tunnel_is_routed_by_tls_where_the_proxy_does_so(
    public: PublicAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(tmp_path)
    async with listening(echo) as target:
        server = TunnelServer(cluster, target)
        async with server.listening(cluster.host_certificate("localhost")) as ssh:

            async def routed(reader: Reader, writer: Writer) -> None:
                assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == ROUTED
                await join(reader, writer, ssh)

            async with listening(routed, public.context(protocols=(ROUTED,))) as tls:
                find = {"proxy": {"ssh": {"public_addr": f"localhost:{tls}"}, "tls_routing_enabled": True}}
                async with UpgradingProxy(1, find=find).listening(public.context()) as web:
                    assert await echoes(tunnel(f"localhost:{web}", cluster.credentials))


async def test_behind_a_load_balancer_the_tunnel_runs_in_the_clusters_own_tls_in_an_upgrade(
    public: PublicAuthority, tmp_path: Path
) -> None:
    cluster = make_cluster(tmp_path)
    own = make_authority("example.test")
    credentials = replace(cluster.credentials, authorities_pem=own.certificate.public_bytes(Encoding.PEM))
    async with listening(echo) as target:
        server = TunnelServer(cluster, target)
        async with server.listening(cluster.host_certificate("localhost")) as ssh:

            async def routed(reader: Reader, writer: Writer) -> None:
                assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == ROUTED
                await join(reader, writer, ssh)

            async with listening(routed, server_context(tmp_path, own, ("localhost",), (ROUTED,))) as tls:
                proxy = UpgradingProxy(tls)
                async with proxy.listening(public.context()) as web:
                    proxy.find = {"proxy": {"ssh": {"public_addr": f"localhost:{web}"}, "tls_routing_enabled": True}}
                    assert await echoes(tunnel(f"localhost:{web}", credentials))
                    with pytest.raises(ConnectError, match=r"certificate of localhost.* is not trusted"):
                        await tunnel(f"localhost:{web}", cluster.credentials, insecure_proxy=True)()
