"""An SSH server that plays the Proxy's tunnel listener: certificates, one channel type, one channel request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.stream import SSHTCPStreamSession

from event_handler.simulator.credentials import write_cluster_files
from event_handler.teleport.auth.credentials import Credentials, read_identity
from tests.unit.teleport.transport.servers import take_what_waits

PAYLOAD = b'{"address":"@remote-auth-server","conn_type":"node"}'
STDERR = asyncssh.EXTENDED_DATA_STDERR


@dataclass
class Cluster:
    """The authorities of a cluster and the credentials of its user."""

    host_authority: asyncssh.SSHKey
    user_authority: asyncssh.SSHKey
    credentials: Credentials

    def host_certificate(
        self, *principals: str, kind: str = "ecdsa-sha2-nistp256"
    ) -> tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]:
        key = asyncssh.generate_private_key(kind)
        return key, self.host_authority.generate_host_certificate(key, "proxy", principals=list(principals))


def make_cluster(directory: Path) -> Cluster:
    """An identity as the simulator writes it, with SSH authorities whose keys the test has."""
    write_cluster_files(directory / "cluster", "example.test")
    credentials = read_identity(str(directory / "cluster" / "identity"))
    host, user = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    key = asyncssh.import_private_key(credentials.key_pem)
    certificate = user.generate_user_certificate(key, "bot", principals=["bot", "-teleport-internal-join"])
    line = f"@cert-authority example.test,*.example.test {host.export_public_key().decode().strip()} type=host"
    return Cluster(
        host,
        user,
        replace(credentials, ssh_authorities=(line,), ssh_certificate=certificate.export_certificate().decode()),
    )


@dataclass
class TunnelServer:
    """Leads the channel to a local port.

    `refusal` is the text on stderr of a refused dial; the lists tell what came in.
    """

    cluster: Cluster
    port: int
    refusal: bytes | None = None
    silent_request: bool = False
    knows_channel: bool = True
    users: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)

    @asynccontextmanager
    async def listening(
        self, *host_keys: Any, signature_algs: tuple[str, ...] = (), keepalive: float = 0
    ) -> AsyncIterator[int]:
        """Serve on a loopback port with these host keys (or pairs of key and certificate).

        Clients may sign by `signature_algs` only, and are asked every `keepalive` seconds whether they live.
        """
        keys = host_keys or (self.cluster.host_certificate("127.0.0.1", "localhost"),)
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Server(self),
            server_host_keys=list(keys),
            signature_algs=signature_algs,
            keepalive_interval=keepalive,
            keepalive_count_max=2,
            gss_host=None,
            config=None,
        )
        try:
            yield acceptor.get_port()
        finally:
            await take_what_waits()
            acceptor.close()
            await asyncio.sleep(0.01)  # a connection that was just accepted shows up in the list only now
            for connection in self.connections:
                connection.abort()
                await connection.wait_closed()
            await acceptor.wait_closed()


class _Server(asyncssh.SSHServer):
    def __init__(self, tunnel: TunnelServer) -> None:
        self._tunnel = tunnel

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._tunnel.connections.append(conn)
        if self._tunnel.knows_channel:
            # asyncssh looks handlers up by name on the connection
            conn._process_teleport_transport_open = lambda packet: _open(self._tunnel, conn)  # type: ignore[attr-defined]
        self._conn = conn

    def begin_auth(self, username: str) -> bool:
        self._tunnel.users.append(username)
        self._tunnel.versions.append(self._conn.get_extra_info("client_version"))
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key == self._tunnel.cluster.user_authority.convert_to_public()


def _open(tunnel: TunnelServer, conn: asyncssh.SSHServerConnection) -> tuple[_Channel, SSHTCPStreamSession[bytes]]:
    channel = _Channel(conn, asyncio.get_running_loop(), None, "strict", 2 * 1024 * 1024, 32 * 1024)
    channel.tunnel = tunnel
    return channel, SSHTCPStreamSession[bytes](channel.serve)


class _Channel(asyncssh.SSHTCPChannel[bytes]):
    _write_datatypes = {STDERR}  # noqa: RUF012
    tunnel: TunnelServer

    def _process_teleport_transport_dial_request(self, packet: Any) -> bool | None:
        self.tunnel.payloads.append(packet.get_remaining_payload())
        if self.tunnel.silent_request:
            return None
        if self.tunnel.refusal is not None:
            self.write(self.tunnel.refusal, STDERR)
            return False
        return True

    async def serve(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        """Copy both ways between the channel and the local port until one side ends."""
        if self.tunnel.silent_request or self.tunnel.refusal is not None:
            await reader.read()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.tunnel.port)

        async def copy(source: Any, target: Any) -> None:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()

        copies = [asyncio.create_task(copy(reader, far_writer)), asyncio.create_task(copy(far_reader, writer))]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()
            far_writer.transport.abort()
            for task in copies:
                task.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
