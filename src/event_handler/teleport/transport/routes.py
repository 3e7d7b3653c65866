"""The ordered list of ways into the cluster at an address."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

from event_handler.errors import ConfigurationError
from event_handler.teleport.auth.credentials import Credentials
from event_handler.teleport.transport.base import Dialer, Route, split_address
from event_handler.teleport.transport.direct import direct
from event_handler.teleport.transport.upgrade import upgrade

Choice = Literal["auto", "direct", "tls-routing", "upgrade", "tunnel"]


def routes(
    address: str, credentials: Credentials, *, choice: Choice = "auto", insecure_proxy: bool = False
) -> list[Route]:
    """The ways into the cluster at `address`, best first; `choice` names the only one to try.

    Without an SSH certificate and SSH authorities in `credentials` there is no tunnel. `insecure_proxy` leaves public
    certificates unchecked, never those of the cluster itself. Raises ConfigurationError for what is no address, and for
    a tunnel that cannot be.
    """
    found: list[Route] = []
    if choice in ("auto", "direct", "tls-routing"):
        found.append(Route("direct", address, direct(address)))
    if choice in ("auto", "upgrade"):
        found.append(
            Route("upgrade", address, upgrade(address, always=choice == "upgrade", insecure_proxy=insecure_proxy))
        )
    if choice in ("auto", "tunnel") and credentials.ssh_certificate and credentials.ssh_authorities:
        split_address(address)
        found.append(Route("tunnel", address, _tunnel(address, credentials, insecure_proxy)))
        found.append(Route("tunnel-direct", address, _tunnel_direct(address, credentials)))
    if not found:
        raise ConfigurationError(
            f"teleport.dial = {choice!r} needs an SSH certificate, and {credentials.source} has none",
            "Use an identity file, or leave teleport.dial out.",
        )
    return found


def _tunnel(address: str, credentials: Credentials, insecure_proxy: bool) -> Dialer:
    async def dial() -> socket.socket:
        from event_handler.teleport.transport import (
            ssh_tunnel,  # asyncssh takes a third of a second and 6 MB: for those who need it
        )

        return await ssh_tunnel.tunnel(address, credentials, insecure_proxy=insecure_proxy)()

    return dial


def _tunnel_direct(address: str, credentials: Credentials) -> Dialer:
    async def dial() -> socket.socket:
        from event_handler.teleport.transport import ssh_tunnel

        return await ssh_tunnel.tunnel_direct(address, credentials)()

    return dial


def routes_to(
    addresses: Sequence[str], credentials: Credentials, *, choice: Choice = "auto", insecure_proxy: bool = False
) -> list[Route]:
    """The ways in at any of `addresses`: the likeliest at each address first, so that one that is down does not hold up
    the next.
    """
    by_address = [routes(address, credentials, choice=choice, insecure_proxy=insecure_proxy) for address in addresses]
    if len(addresses) > 1:
        by_address = [
            [Route(f"{route.name} at {route.address}", route.address, route.dial) for route in found]
            for found in by_address
        ]
    return [route for rank in zip_longest(*by_address) for route in rank if route is not None]
