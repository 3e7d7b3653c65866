"""The Proxy's SSH tunnel: a user's certificate opens it, and a channel in it leads to Auth."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncssh

from event_handler.simulator.fronts.transport_channel import Dialing, TunnelConnection
from event_handler.simulator.listener import Reader, Writer, copy_both_ways, hand_over

KEEPALIVE = 300  # seconds between the server's keepalive requests; after three without an answer the client is dropped
REMOTE_AUTH = "@remote-auth-server"  # the address that stands for any Auth server of the cluster


class _Users(asyncssh.SSHServer):
    """Lets in who has a certificate of a User CA that is valid for the user name.

    Plain keys and passwords open nothing.
    """

    def __init__(self, authorities: list[asyncssh.SSHKey]) -> None:
        self._authorities = authorities

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key in self._authorities


class Tunnel:
    """Serves the tunnel in front of `auth` (host:port) with the certificates that are in `directory` when a client
    connects.
    """

    def __init__(self, directory: Path, auth: str) -> None:
        self._directory = directory
        self._auth = auth

    def protocol(self) -> asyncio.BaseProtocol:
        """A protocol for one accepted connection."""
        directory = self._directory
        authorities = [
            asyncssh.import_public_key(line) for line in (directory / "user-ca.pub").read_text().splitlines()
        ]
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: _Users(authorities),
            server_host_keys=[(str(directory / "ssh-host"), str(directory / "ssh-host-cert.pub"))],
            server_version="Teleport",
            keepalive_interval=KEEPALIVE,
            keepalive_count_max=3,
        )
        return TunnelConnection(options, self._dial)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Serve a raw connection of the tunnel's own port."""
        await hand_over(reader, writer, b"", self.protocol, None)

    async def _dial(self, dialing: Dialing) -> None:
        try:
            address = json.loads(dialing.payload)["address"]
        except (ValueError, KeyError, TypeError):
            dialing.refuse(" the dial request is no JSON object with an address")
            return
        if address != REMOTE_AUTH:
            dialing.refuse(f" failed connecting to {address}: only {REMOTE_AUTH} is simulated")
            return
        host, _, port = self._auth.rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError as error:
            dialing.refuse(f" failed connecting to {self._auth}: {error.strerror}")
            return
        dialing.accept()
        await copy_both_ways(dialing.reader, dialing.writer, reader, writer)
