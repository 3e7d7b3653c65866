"""What every way in shares: the dialer's type, the form of an address, plain TCP, and a limit on each step's time."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohappyeyeballs

from event_handler.errors import ConfigurationError, ConnectError
from event_handler.names import resolve

URL_PORTS = {"https": 443, "http": 80}  # where a browser would go
Dialer = Callable[[], Awaitable[socket.socket]]

TCP_TIMEOUT = 10.0  # seconds for one address; a firewall that drops packets answers never
HAPPY_EYEBALLS_DELAY = 0.25  # seconds before the next address of a name is tried beside the first (RFC 8305)
TCP_KEEPALIVE = 60  # seconds between probes of an idle connection, as Teleport's own clients send them


@dataclass(frozen=True, slots=True)
class Route:
    """One way into the cluster.

    `name` and `address` (host:port as configured) for log lines and errors, `dial` to walk it.
    """

    name: str
    address: str
    dial: Dialer


def plain_address(address: str) -> str:
    """The `host:port` in an address as users write it: with blanks around it, or as the URL of a Proxy."""
    address = address.strip()
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    plain = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    default = URL_PORTS.get(scheme.lower())
    return f"{plain}:{default}" if default and not re.search(r":\d*$", plain) else plain


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` (IPv6 in brackets) or raise ConfigurationError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    valid_port = port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536
    if not colon or not host or not valid_port or re.search(r"[\s/@\[\]]", host):
        raise ConfigurationError(
            f"the Teleport address {address!r} is not of the form host:port",
            "Write for example teleport.example.com:443 (Proxy) or auth.example.com:3025 (Auth).",
        )
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def within(seconds: float, failure: str, hint: str) -> AsyncIterator[None]:
    """Run a step for `seconds` at most; then it is cancelled and ConnectError says `failure`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ConnectError(f"{failure} within {seconds:.0f} s", hint) from None


async def connect_tcp(host: str, port: int, setting: str = "teleport.addr") -> socket.socket:
    """Connect to the first address of `host` that answers; `setting` is named where the user has to look.

    Returns a non-blocking socket. Raises ConnectError.
    """
    address = join_address(host, port)
    try:
        async with within(
            TCP_TIMEOUT, f"no answer from {address}", "Check the address and that no firewall is between."
        ):
            found = await resolve(host, port)
            connected = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a host name"
        raise ConnectError(f"the name of {address} does not resolve ({reason})", f"Check {setting}.") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own text names the address instead
        raise ConnectError(
            f"cannot connect to {address} ({reason})",
            f"Check {setting} and that {'Teleport' if setting == 'teleport.addr' else 'the proxy'} runs.",
        ) from None
    _tune(connected)
    return connected


def _tune(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, TCP_KEEPALIVE)
