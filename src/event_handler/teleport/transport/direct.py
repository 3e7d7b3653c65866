"""The shortest way in: TCP, on which the TLS session with Auth runs.

It serves the Auth port and a Proxy with TLS routing.
"""

from __future__ import annotations

import socket

from event_handler.teleport.transport import proxied
from event_handler.teleport.transport.base import Dialer, split_address
from event_handler.teleport.transport.stream import as_socket


def direct(address: str) -> Dialer:
    """Dial `address`. Raises ConfigurationError at once when it is no `host:port`; the dialer raises ConnectError."""
    split_address(address)

    async def dial() -> socket.socket:
        return as_socket(await proxied.connect(address))

    return dial
