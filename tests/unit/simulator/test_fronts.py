"""Every way into a simulated cluster, gone with clients that share no code with it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import pytest
from cryptography import x509

from event_handler.simulator.authorities import Phase
from event_handler.simulator.credentials import Credentials, write_cluster_files
from event_handler.simulator.fronts import Front, transport_channel
from event_handler.simulator.fronts.proxy import Fronts
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from tests.unit.simulator.clients import (
    AUTH_PROTOCOL,
    CLUSTER,
    TUNNEL_PROTOCOL,
    InnerTls,
    Transport,
    auth_answers,
    auth_answers_inside,
    connect,
    issuer,
    open_tunnel,
    selected,
    user_context,
    web_context,
)

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "discovery"
PUBLIC = "Simulated public authority"


@asynccontextmanager
async def fronts(directory: Path, front: Front, ping_every: float = 30.0) -> AsyncIterator[dict[str, str]]:
    write_cluster_files(directory, CLUSTER)
    server, port = await AuthServer(AuditLog(), cluster=CLUSTER, bulk=True, faults=Faults()).start(
        directory, "127.0.0.1", 0
    )
    started = Fronts(directory, CLUSTER, f"127.0.0.1:{port}", ping_every=ping_every)
    try:
        await started.start(front)
        yield started.addresses
    finally:
        await started.close()
        server.close()
        await server.wait_closed()


@pytest.fixture
async def routing(tmp_path: Path) -> AsyncIterator[str]:
    async with fronts(tmp_path, Front.TLS_ROUTING) as addresses:
        yield addresses["web"]


async def get(directory: Path, address: str, path: str) -> Any:
    connector = aiohttp.TCPConnector(ssl=web_context(directory))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"https://{address}{path}") as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_the_protocol_of_auth_leads_to_auth_itself(tmp_path: Path, routing: str) -> None:
    reader, writer = await connect(routing, user_context(tmp_path, AUTH_PROTOCOL, "h2"))
    assert (selected(writer), issuer(writer)) == ("h2", CLUSTER)
    assert await auth_answers((reader, writer))
    writer.close()


async def test_the_protocol_of_another_clusters_auth_is_closed_without_a_word(tmp_path: Path, routing: str) -> None:
    with pytest.raises((ConnectionError, ssl.SSLEOFError)):
        await connect(routing, user_context(tmp_path, AUTH_PROTOCOL.replace("73", "74"), "h2"))


async def test_protocols_that_nothing_speaks_get_the_alert(tmp_path: Path, routing: str) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        await connect(routing, web_context(tmp_path, "teleport-mcp"), "localhost")


async def test_what_is_no_tls_is_closed(routing: str) -> None:
    reader, writer = await connect(routing)
    writer.write(b"SSH-2.0-Go\r\n")
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    ("protocols", "chosen"), [((), None), (("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1")]
)
async def test_browsers_get_the_public_certificate(
    tmp_path: Path, routing: str, protocols: tuple[str, ...], chosen: str | None
) -> None:
    _, writer = await connect(routing, web_context(tmp_path, *protocols), "localhost")
    assert (selected(writer), issuer(writer)) == (chosen, PUBLIC)
    writer.close()


def same_shape(real: Any, simulated: Any, path: str = "") -> None:
    """What is told at all has the name and type of the real answer."""
    assert type(real) is type(simulated), path
    if isinstance(real, dict):
        assert simulated.keys() <= real.keys() | {"ssh_tunnel_public_addr"}, path
        for key in simulated.keys() & real.keys():
            same_shape(real[key], simulated[key], f"{path}.{key}")


@pytest.mark.parametrize("name", ["find", "ping"])
async def test_discovery_is_shaped_as_a_real_one(tmp_path: Path, routing: str, name: str) -> None:
    told = await get(tmp_path, routing, f"/webapi/{name}")
    same_shape(json.loads((GOLDEN / f"{name}.json").read_text()), told)
    assert told["cluster_name"] == CLUSTER
    assert told["proxy"]["tls_routing_enabled"] is True
    assert told["proxy"]["ssh"]["public_addr"] == routing.replace("127.0.0.1", "localhost")


@asynccontextmanager
async def upgraded(directory: Path, address: str, kind: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    connector = aiohttp.TCPConnector(ssl=web_context(directory))
    url = f"https://{address}/webapi/connectionupgrade"
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(url, protocols=[kind], compress=0, autoping=False) as frames,
    ):
        assert frames.protocol == kind
        yield frames


def receiver(frames: aiohttp.ClientWebSocketResponse) -> Callable[[], Awaitable[bytes]]:
    async def receive() -> bytes:
        message = await frames.receive()
        return message.data if message.type is aiohttp.WSMsgType.BINARY else b""

    return receive


@pytest.mark.parametrize("kind", ["alpn", "alpn-ping"])
async def test_an_upgraded_connection_leads_to_auth(tmp_path: Path, routing: str, kind: str) -> None:
    async with upgraded(tmp_path, routing, kind) as frames:
        context = user_context(tmp_path, AUTH_PROTOCOL, "h2")
        assert await auth_answers_inside(context, receiver(frames), frames.send_bytes)


async def test_pings_come_only_when_asked_for_and_do_not_disturb_the_stream(tmp_path: Path) -> None:
    async with fronts(tmp_path, Front.TLS_ROUTING, ping_every=0.05) as addresses:
        async with upgraded(tmp_path, addresses["web"], "alpn-ping") as frames:
            for _ in range(3):
                message = await frames.receive()
                assert (message.type, message.data) == (aiohttp.WSMsgType.PING, b"teleport")
                await frames.pong(message.data)
        async with upgraded(tmp_path, addresses["web"], "alpn") as frames:
            with pytest.raises(TimeoutError):
                await frames.receive(timeout=0.3)


async def test_the_end_of_the_inner_stream_closes_the_websocket(tmp_path: Path, routing: str) -> None:
    async with upgraded(tmp_path, routing, "alpn") as frames:
        await frames.send_bytes(b"this is no ClientHello")
        assert (await frames.receive()).type is aiohttp.WSMsgType.CLOSE


@pytest.mark.parametrize("kind", ["", "chat"])
async def test_other_kinds_of_upgrade_are_refused(tmp_path: Path, routing: str, kind: str) -> None:
    reader, writer = await connect(routing, web_context(tmp_path), "localhost")
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /webapi/connectionupgrade HTTP/1.1\r\nHost: {routing}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    writer.write(f"{head}Sec-WebSocket-Protocol: {kind}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_inside_an_upgraded_connection_the_tunnel_has_a_certificate_of_the_cluster(
    tmp_path: Path, routing: str
) -> None:
    async with upgraded(tmp_path, routing, "alpn-ping") as frames:
        inner = InnerTls(user_context(tmp_path, TUNNEL_PROTOCOL), receiver(frames), frames.send_bytes, "localhost")
        await inner.run(inner.session.do_handshake)
        assert inner.session.selected_alpn_protocol() == TUNNEL_PROTOCOL
        assert (await inner.run(lambda: inner.session.read(8))) == b"SSH-2.0-"


async def through_tunnel(directory: Path, connection: asyncssh.SSHClientConnection) -> bool:
    transport = Transport(connection)
    await transport.open()
    assert await transport.dial("@remote-auth-server")
    return await auth_answers_inside(user_context(directory), transport.receive, transport.send)


@pytest.mark.parametrize("user", ["-teleport-internal-join", "teleport-event-handler"])
async def test_the_tunnel_on_the_web_port_leads_to_auth(tmp_path: Path, routing: str, user: str) -> None:
    tls = web_context(tmp_path, TUNNEL_PROTOCOL)
    async with await open_tunnel(tmp_path, routing, user=user, tls=tls) as connection:
        assert connection.get_extra_info("server_version") == "SSH-2.0-Teleport"
        assert await through_tunnel(tmp_path, connection)


@pytest.fixture
async def separate(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    async with fronts(tmp_path, Front.SEPARATE) as addresses:
        yield addresses


async def test_the_tunnel_on_a_port_of_its_own_is_told_and_leads_to_auth(
    tmp_path: Path, separate: dict[str, str]
) -> None:
    told = (await get(tmp_path, separate["web"], "/webapi/find"))["proxy"]
    assert told["tls_routing_enabled"] is False
    assert told["ssh"]["ssh_tunnel_public_addr"] == separate["tunnel"].replace("127.0.0.1", "localhost")
    async with await open_tunnel(tmp_path, told["ssh"]["ssh_tunnel_public_addr"]) as connection:
        assert await through_tunnel(tmp_path, connection)
        assert await through_tunnel(tmp_path, connection), "a second channel works beside the first"


async def test_the_separate_web_port_routes_nothing_to_auth(tmp_path: Path, separate: dict[str, str]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(separate["web"], user_context(tmp_path, AUTH_PROTOCOL, "h2"))
    with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
        async with upgraded(tmp_path, separate["web"], "alpn"):
            pass


async def test_the_host_certificate_is_for_the_names_of_the_proxy_and_of_the_clusters_authority(
    tmp_path: Path, separate: dict[str, str]
) -> None:
    write_cluster_files(tmp_path / "other", "other.test")
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await open_tunnel(tmp_path / "other", separate["tunnel"])
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await open_tunnel(tmp_path, separate["tunnel"], host_name="proxy.example.com")


async def test_the_tunnel_lets_in_only_certificates_of_the_user_authority_for_that_user(
    tmp_path: Path, separate: dict[str, str]
) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await open_tunnel(tmp_path, separate["tunnel"], user="root")
    with pytest.raises(asyncssh.PermissionDenied):
        await open_tunnel(tmp_path, separate["tunnel"], key=asyncssh.generate_private_key("ssh-ed25519"))
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    forged = asyncssh.generate_private_key("ssh-ed25519").generate_user_certificate(
        stranger, "x", principals=["-teleport-internal-join"]
    )
    with pytest.raises(asyncssh.PermissionDenied):
        await open_tunnel(tmp_path, separate["tunnel"], key=(stranger, forged))


async def test_the_tunnel_refuses_an_expired_certificate(tmp_path: Path, separate: dict[str, str]) -> None:
    Credentials(tmp_path, CLUSTER, lifetime=timedelta(seconds=-5)).renew()
    with pytest.raises(asyncssh.PermissionDenied):
        await open_tunnel(tmp_path, separate["tunnel"])


async def test_a_rotation_leaves_no_gap_in_the_tunnel_either(tmp_path: Path, separate: dict[str, str]) -> None:
    credentials = Credentials(tmp_path, CLUSTER)
    for phase in Phase:
        assert credentials.advance() is phase
        async with await open_tunnel(tmp_path, separate["tunnel"]):
            credentials.renew()
        async with await open_tunnel(tmp_path, separate["tunnel"]):
            pass


async def test_the_tunnel_dials_nothing_but_auth_and_says_so(tmp_path: Path, separate: dict[str, str]) -> None:
    async with await open_tunnel(tmp_path, separate["tunnel"]) as connection:
        transport = Transport(connection)
        await transport.open()
        assert not await transport.dial("@local-node")
        await transport.ended()
        assert transport.stderr == b" failed connecting to @local-node: only @remote-auth-server is simulated"
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("true")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 1)


async def test_a_channel_on_which_nothing_is_asked_is_closed(
    tmp_path: Path, separate: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_channel, "REQUEST_TIMEOUT", 0.1)
    async with await open_tunnel(tmp_path, separate["tunnel"]) as connection, asyncio.timeout(30):
        transport = Transport(connection)
        await transport.open()
        await transport.ended()


async def test_behind_the_load_balancer_only_the_upgrade_leads_to_auth(tmp_path: Path) -> None:
    async with fronts(tmp_path, Front.LOAD_BALANCER) as addresses:
        address = addresses["load_balancer"]
        _, writer = await connect(address, web_context(tmp_path, TUNNEL_PROTOCOL), "localhost")
        assert (selected(writer), issuer(writer)) == (None, PUBLIC), "the sign that an upgrade is needed"
        writer.close()
        reader, writer = await connect(address, web_context(tmp_path), "localhost")
        writer.write(b"SSH-2.0-Go\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(address, user_context(tmp_path, AUTH_PROTOCOL, "h2"))
        told = await get(tmp_path, address, "/webapi/find")
        assert told["proxy"]["ssh"]["public_addr"] == address.replace("127.0.0.1", "localhost")
        async with upgraded(tmp_path, address, "alpn-ping") as frames:
            context = user_context(tmp_path, AUTH_PROTOCOL, "h2")
            assert await auth_answers_inside(context, receiver(frames), frames.send_bytes)


def test_the_public_certificate_is_for_localhost_and_of_another_authority_than_the_cluster(tmp_path: Path) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    web, host = (x509.load_pem_x509_certificate((tmp_path / file).read_bytes()) for file in ("web.pem", "server.pem"))
    names = web.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert web.issuer != host.issuer


async def test_fronts_close_with_connections_still_open(tmp_path: Path) -> None:
    async with fronts(tmp_path, Front.TLS_ROUTING) as addresses:
        streams = [await connect(addresses["web"], user_context(tmp_path, AUTH_PROTOCOL, "h2")) for _ in range(3)]
        streams += [await connect(addresses["web"], web_context(tmp_path, TUNNEL_PROTOCOL), "localhost")]
    for reader, writer in streams:
        async with asyncio.timeout(10):
            await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()
