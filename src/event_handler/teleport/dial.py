"""The way in: a dialer is a coroutine that returns a connected byte stream, as a non-blocking socket.

Whatever lies between (a proxy, a tunnel, an upgraded connection) is the dialer's business; one TLS session and gRPC run on top of
the socket that it returns. A dialer whose stream is no kernel socket pumps it through a `socket.socketpair()`, which no other
process can reach.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import aiohappyeyeballs

from event_handler.errors import ConfigurationError, ConnectError

Dialer = Callable[[], Awaitable[socket.socket]]

TCP_TIMEOUT = 10.0  # seconds for one address; a firewall that drops packets answers never
HAPPY_EYEBALLS_DELAY = 0.25  # seconds before the next address of a name is tried beside the first (RFC 8305)


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` (IPv6 in brackets) or raise ConfigurationError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"the Teleport address {address!r} is not of the form host:port",
            "Write for example teleport.example.com:443 (Proxy) or auth.example.com:3025 (Auth).",
        )
    return host, int(port)


def direct(address: str) -> Dialer:
    """Dial `address` over plain TCP: right for the Auth port and for a Proxy with TLS routing."""
    host, port = split_address(address)

    async def dial() -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TCP_TIMEOUT):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                return await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY)
        except TimeoutError:
            raise ConnectError(
                f"no answer from {address} within {TCP_TIMEOUT:.0f} s",
                "Check the address and that no firewall is between.",
            ) from None
        except socket.gaierror as error:
            raise ConnectError(f"the name of {address} does not resolve ({error.strerror})", "Check teleport.addr.") from None
        except OSError as error:
            raise ConnectError(
                f"cannot connect to {address} ({error.strerror or error})",
                "Check teleport.addr and that Teleport runs.",
            ) from None

    return dial
