"""The way in through the SSH reverse tunnel of a Proxy: for clusters whose Proxy does not route TLS to Auth."""

from __future__ import annotations

import os
import socket

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate

from event_handler.errors import ConnectError
from event_handler.teleport.auth.credentials import Credentials
from event_handler.teleport.transport import proxied
from event_handler.teleport.transport.base import Dialer, split_address, within
from event_handler.teleport.transport.discovery import find, tunnel_address
from event_handler.teleport.transport.ssh_channel import open_transport
from event_handler.teleport.transport.stream import Stream, as_socket
from event_handler.teleport.transport.tls_stream import cluster_context, public_context, start_tls
from event_handler.teleport.transport.upgrade import TUNNEL_PROTOCOL, needs_upgrade, open_upgraded

SSH_TIMEOUT = 20.0  # seconds for handshake and sign-in
CHANNEL_TIMEOUT = 35.0  # seconds; the Proxy itself tries for 30 to reach an Auth server
CLIENT_VERSION = "Teleport-Event-Handler"  # the server wants "SSH-2.0-" before it and looks at no more
_NO_TUNNEL_HINT = "Check that it is the tunnel port of a Teleport Proxy."
JOIN_USER = "-teleport-internal-join"  # the principal in the certificate of every user


def tunnel(address: str, credentials: Credentials, *, insecure_proxy: bool = False) -> Dialer:
    """Ask the Proxy at `address` for its tunnel, and dial that: over TLS where it routes TLS, over plain TCP otherwise.

    Raises ConfigurationError at once; the dialer raises ConnectError.
    """
    split_address(address)

    async def dial() -> socket.socket:
        options = _options(credentials)
        found = await find(address, insecure_proxy=insecure_proxy)
        target = tunnel_address(found, os.environ)
        try:
            below = (
                await _tls(target, credentials, insecure_proxy) if found.tls_routing else await proxied.connect(target)
            )
            return await _ssh(below, target, options)
        except ConnectError:
            if found.cluster_name in ("", credentials.cluster):
                raise
            raise ConnectError(
                f"{address} is the Proxy of the cluster {found.cluster_name}, and {credentials.source} is of "
                f"{credentials.cluster}",
                "Correct teleport.addr, or make an identity in that cluster.",
                conclusive=True,
            ) from None

    return dial


def tunnel_direct(address: str, credentials: Credentials) -> Dialer:
    """Dial `address` itself as a tunnel listener, over plain TCP. Raises as `tunnel` does."""
    split_address(address)

    async def dial() -> socket.socket:
        options = _options(credentials)
        return await _ssh(await proxied.connect(address), address, options)

    return dial


async def _tls(address: str, credentials: Credentials, insecure: bool) -> Stream:
    """TLS that the Proxy routes to its tunnel, checked by public roots.

    Inside an upgraded connection by the cluster's own.
    """
    host, _ = split_address(address)
    if await needs_upgrade(address, os.environ, insecure_proxy=insecure):
        context = cluster_context(credentials.authorities_pem, (TUNNEL_PROTOCOL,))
        hint = (
            "Check that the identity belongs to this cluster, and make it again if the cluster's authority was rotated."
        )
        below = await open_upgraded(address, insecure_proxy=insecure)
    else:
        context = public_context(address, insecure=insecure, protocols=(TUNNEL_PROTOCOL,))
        hint = "Check teleport.addr and the certificate of the Proxy."
        below = await proxied.connect(address)
    return await start_tls(below, context, host, address, hint)


def _options(credentials: Credentials) -> asyncssh.SSHClientConnectionOptions:
    """Sign in by certificate and trust host certificates of the cluster's authorities only: no agent, no files of the
    user.
    """
    try:
        key = asyncssh.import_private_key(credentials.key_pem)
        certificate = asyncssh.import_certificate(credentials.ssh_certificate)
        authorities = [asyncssh.import_public_key(line.split(None, 2)[2]) for line in credentials.ssh_authorities]
        principals = certificate.principals if isinstance(certificate, SSHOpenSSHCertificate) else []
        return asyncssh.SSHClientConnectionOptions(
            username=JOIN_USER if JOIN_USER in principals or not principals else principals[0],
            client_keys=[(key, certificate)],
            known_hosts=([], authorities, []),
            client_version=CLIENT_VERSION,
            preferred_auth=["publickey"],
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            agent_path=None,
            x509_trusted_certs=None,
            compression_algs=None,
            config=None,
        )
    except (asyncssh.Error, ValueError, IndexError) as error:
        raise ConnectError(
            f"the SSH part of {credentials.source} cannot be used ({error})",
            "Make the identity again with tbot or `tctl auth sign`.",
        ) from None


async def _ssh(below: Stream, address: str, options: asyncssh.SSHClientConnectionOptions) -> socket.socket:
    """Sign in on `below`, which from now on belongs to the tunnel, and connect to Auth.

    `address` is `host:port` as dialed.
    """
    host, port = split_address(address)
    stream = as_socket(below)
    try:
        async with within(SSH_TIMEOUT, f"no SSH handshake with {address}", _NO_TUNNEL_HINT):
            connection = await asyncssh.run_client(
                stream, config=None, options=options, host_key_alias=host, host=host, port=port
            )
    except BaseException as error:
        stream.close()
        raise _explain(error, address) from None
    try:
        async with within(
            CHANNEL_TIMEOUT, f"the Proxy at {address} did not connect us to Auth", "Check that Auth runs."
        ):
            return as_socket(await open_transport(connection, address))
    except BaseException as error:
        connection.abort()
        raise _explain(error, address) from None


def _explain(error: BaseException, address: str) -> BaseException:
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return ConnectError(
            f"the SSH host certificate of {address} is not trusted ({error.reason})",
            "Check that the identity belongs to this cluster, dial the Proxy by one of its public names, and issue the "
            "identity "
            "again if the cluster's authority was rotated.",
            conclusive=True,
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return ConnectError(
            f"{address} shows no SSH host certificate that can be used ({error.reason})", _NO_TUNNEL_HINT
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return ConnectError(
            f"{address} refused our SSH certificate ({error.reason})",
            "Check that the identity belongs to this cluster and has not expired.",
            conclusive=True,
        )
    if isinstance(error, asyncssh.ChannelOpenError):
        return ConnectError(f"{address} opens no channel to Auth ({error.reason})", _NO_TUNNEL_HINT)
    if isinstance(error, asyncssh.Error | OSError):
        return ConnectError(f"the SSH connection to {address} broke ({error})", _NO_TUNNEL_HINT)
    return error
