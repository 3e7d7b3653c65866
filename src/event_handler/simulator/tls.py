"""TLS settings of the simulated servers. A refused client is told why by an alert, as by a real server."""

from __future__ import annotations

import ssl
from pathlib import Path


class _AlertingObject(ssl.SSLObject):
    """Lets the alert of a failed handshake out: asyncio drops the connection before it has sent what OpenSSL wrote.

    Asked to wait for more bytes instead, asyncio sends the alert; the failure is told when more bytes, or the end, come
    in.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            raise ssl.SSLWantReadError from error


def server_context(certificate: Path, protocols: list[str]) -> ssl.SSLContext:
    """TLS with that certificate (its key in the same file), selecting one of these ALPN protocols.

    No tickets, as on a real server.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _AlertingObject
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0  # a resumed session would pass by the check of the client's certificate
    if protocols:
        context.set_alpn_protocols(protocols)
    context.load_cert_chain(certificate)
    return context


def auth_context(directory: Path) -> ssl.SSLContext:
    """TLS of the Auth server, for clients with a certificate of any User CA in the directory."""
    context = server_context(directory / "server.pem", ["h2"])
    context.load_verify_locations(directory / "user-ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context
