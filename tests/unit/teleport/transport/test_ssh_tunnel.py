"""The reverse tunnel signs in by certificate, trusts host certificates of the cluster only, and leaves nothing
behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from event_handler.errors import ConnectError
from event_handler.teleport.transport.ssh_tunnel import tunnel_direct
from tests.unit.teleport.transport.servers import Reader, Writer, echo, echoes, listening
from tests.unit.teleport.transport.ssh_server import PAYLOAD, Cluster, TunnelServer, make_cluster

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return make_cluster(tmp_path)


async def test_a_tunnel_carries_megabytes_both_ways(cluster: Cluster) -> None:
    async with listening(echo) as target:
        server = TunnelServer(cluster, target)
        async with server.listening() as port:
            assert await echoes(tunnel_direct(f"127.0.0.1:{port}", cluster.credentials), 8_000_000)
    assert server.users[0] == "-teleport-internal-join"
    assert server.payloads == [PAYLOAD]
    assert server.versions[0].startswith("SSH-2.0-")


async def test_without_the_common_principal_the_first_one_of_the_certificate_signs_in(cluster: Cluster) -> None:
    key = asyncssh.import_private_key(cluster.credentials.key_pem)
    certificate = cluster.user_authority.generate_user_certificate(key, "bot", principals=["alice", "bob"])
    credentials = replace(cluster.credentials, ssh_certificate=certificate.export_certificate().decode())
    async with listening(echo) as target:
        server = TunnelServer(cluster, target)
        async with server.listening() as port:
            assert await echoes(tunnel_direct(f"127.0.0.1:{port}", credentials))
    assert server.users[0] == "alice"


@pytest.mark.parametrize("algorithm", ["rsa-sha2-256", "rsa-sha2-512"])
async def test_rsa_certificates_are_used_with_sha_2(cluster: Cluster, algorithm: str) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    authority = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    certificate = authority.generate_user_certificate(key, "bot", principals=["bot"])
    line = f"@cert-authority *.example.test {authority.export_public_key().decode().strip()} type=host"
    credentials = replace(
        cluster.credentials,
        key_pem=key.export_private_key("pkcs8-pem"),
        ssh_certificate=certificate.export_certificate().decode(),
        ssh_authorities=(line,),
    )
    old = replace(cluster, host_authority=authority, user_authority=authority)
    async with (
        listening(echo) as target,
        TunnelServer(old, target).listening(old.host_certificate("127.0.0.1", kind="ssh-rsa")) as port,
    ):
        assert await echoes(tunnel_direct(f"127.0.0.1:{port}", credentials))


def _of_another_cluster(cluster: Cluster) -> Any:
    return replace(cluster, host_authority=asyncssh.generate_private_key("ssh-ed25519")).host_certificate("127.0.0.1")


def _for_another_name(cluster: Cluster) -> Any:
    return cluster.host_certificate("proxy.example.test")


def _without_certificate(cluster: Cluster) -> Any:
    return cluster.host_certificate("127.0.0.1")[0]


def _the_authority_itself(cluster: Cluster) -> Any:
    return cluster.host_authority


def _expired(cluster: Cluster) -> Any:
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key, cluster.host_authority.generate_host_certificate(
        key, "proxy", principals=["127.0.0.1"], valid_before=1_000_000_000
    )


@pytest.mark.parametrize(
    ("host_key", "message"),
    [
        (_of_another_cluster, "is not trusted.*Host CA key is not trusted"),
        (_for_another_name, "is not trusted.*principal mismatch"),
        (_expired, "is not trusted.*expired"),
        (_without_certificate, "shows no SSH host certificate"),
        (_the_authority_itself, "shows no SSH host certificate"),
    ],
)
async def test_a_host_that_the_cluster_does_not_vouch_for_is_refused(
    cluster: Cluster, host_key: Callable[[Cluster], Any], message: str
) -> None:
    server = TunnelServer(cluster, 1)
    async with server.listening(host_key(cluster)) as port:
        with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{port} {message}|of 127\.0\.0\.1:{port} {message}"):
            await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()
    assert server.users == []


async def test_a_refused_certificate_is_said_so(cluster: Cluster) -> None:
    other = replace(cluster, user_authority=asyncssh.generate_private_key("ssh-ed25519"))
    async with TunnelServer(other, 1).listening() as port:
        with pytest.raises(ConnectError, match=rf"{port} refused our SSH certificate.*belongs to this cluster"):
            await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [(b" failed to dial auth server", "to Auth: failed to dial auth server"), (b"", "it gave no reason")],
)
async def test_the_reason_why_auth_cannot_be_reached_comes_from_the_proxy(
    cluster: Cluster, refusal: bytes, reason: str
) -> None:
    async with TunnelServer(cluster, 1, refusal=refusal).listening() as port:
        with pytest.raises(ConnectError, match=reason):
            await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()


async def test_an_ordinary_ssh_server_is_said_to_be_none_of_teleport(cluster: Cluster) -> None:
    async with TunnelServer(cluster, 1, knows_channel=False).listening() as port:
        with pytest.raises(ConnectError, match=r"opens no channel to Auth.*tunnel port"):
            await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()


async def _http(reader: Reader, writer: Writer) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def _silence(reader: Reader, writer: Writer) -> None:
    while await reader.read(1000):
        pass


async def test_what_does_not_speak_ssh_is_said_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(_http) as port:
        with pytest.raises(ConnectError, match=rf"SSH connection to 127\.0\.0\.1:{port} broke"):
            await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()
    monkeypatch.setattr("event_handler.teleport.transport.ssh_tunnel.SSH_TIMEOUT", 0.2)
    async with listening(_silence) as port:
        with pytest.raises(ConnectError, match=rf"no SSH handshake with 127\.0\.0\.1:{port} within"):
            await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()


async def test_a_proxy_that_never_answers_the_request_is_given_up(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("event_handler.teleport.transport.ssh_tunnel.CHANNEL_TIMEOUT", 0.2)
    async with TunnelServer(cluster, 1, silent_request=True).listening() as port:
        with pytest.raises(ConnectError, match="did not connect us to Auth within"):
            await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()


@pytest.mark.parametrize("certificate", ["", "ssh-ed25519-cert-v01@openssh.com AAAA", "nonsense"])
async def test_an_unusable_certificate_is_said_so_without_the_key(cluster: Cluster, certificate: str) -> None:
    with pytest.raises(ConnectError, match=r"SSH part of .*identity cannot be used") as caught:
        await tunnel_direct("127.0.0.1:1", replace(cluster.credentials, ssh_certificate=certificate))()
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01, 0.03, 0.06, 0.1])
async def test_a_dial_that_is_cancelled_at_any_point_leaves_nothing(cluster: Cluster, delay: float) -> None:
    async with TunnelServer(cluster, 1, silent_request=True).listening() as port:
        dial = asyncio.ensure_future(tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)())
        await asyncio.sleep(delay)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial


async def test_the_end_of_either_side_is_the_end_of_the_other(cluster: Cluster) -> None:
    ended = asyncio.Event()

    async def greet(reader: Reader, writer: Writer) -> None:
        writer.write(b"hello")
        await writer.drain()
        if await reader.read(1) == b"":
            ended.set()

    async with listening(greet) as target, TunnelServer(cluster, target).listening() as port:
        reader, writer = await asyncio.open_connection(
            sock=await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()
        )
        assert await reader.readexactly(5) == b"hello"
        writer.write(b"x")
        assert await asyncio.wait_for(reader.read(), 10) == b""  # the server left after one byte
        writer.close()
        await writer.wait_closed()
        _, writer = await asyncio.open_connection(sock=await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)())
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(ended.wait(), 10)


async def test_the_servers_question_whether_we_live_is_answered(cluster: Cluster) -> None:
    async with listening(echo) as target, TunnelServer(cluster, target).listening(keepalive=0.2) as port:
        reader, writer = await asyncio.open_connection(
            sock=await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()
        )
        await asyncio.sleep(1.5)  # the server would have cut us after two questions without an answer
        writer.write(b"still here")
        assert await asyncio.wait_for(reader.readexactly(10), 10) == b"still here"
        writer.close()
        await writer.wait_closed()


async def test_a_reader_that_stops_slows_the_server_down(cluster: Cluster) -> None:
    sent = 0

    async def endless(_: Reader, writer: Writer) -> None:
        nonlocal sent
        with suppress(OSError):
            while True:
                writer.write(bytes(65536))
                sent += 65536
                await writer.drain()

    async with listening(endless) as target, TunnelServer(cluster, target).listening() as port:
        stream = await tunnel_direct(f"127.0.0.1:{port}", cluster.credentials)()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)
        assert sent < 32 * 1024 * 1024
        assert await asyncio.get_running_loop().sock_recv(stream, 10) == bytes(10)
        stream.close()
