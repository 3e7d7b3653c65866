"""Addresses that are the name of a service (`_teleport._tcp.example.com`).

DNS says at which hosts and ports it is (RFC 2782).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from typing import Any

from event_handler.errors import ConfigurationError, ConnectError
from event_handler.teleport.transport.base import Dialer, Route, join_address

LOOKUP_TIMEOUT = 5.0  # seconds for one name, all name servers together
MAX_TARGETS = 16  # hosts of one service; each of them is several ways to try
_SERVICE = re.compile(r"_[A-Za-z0-9-]{1,62}\._tcp\.[^\s:/]+")


def is_service(address: str) -> bool:
    """Whether `address` is the name of a service and not `host:port`."""
    return _SERVICE.fullmatch(address) is not None


def resolver() -> Any:
    """The resolver of this machine.

    Raises ConfigurationError where the library for it is not installed or DNS is not set up.
    """
    try:
        from dns.asyncresolver import Resolver  # an extra, and slow to import
        from dns.exception import DNSException
    except ImportError:
        raise ConfigurationError(
            "a service name in teleport.addr needs the library dnspython, which is not installed",
            "Install it with `pip install 'teleport-event-handler[srv]'`, or write host:port.",
        ) from None
    try:
        return Resolver()
    except (DNSException, OSError) as error:
        raise ConfigurationError(
            f"a service name in teleport.addr needs DNS, which is not set up on this machine "
            f"({' '.join(str(error).split())})",
            "Correct /etc/resolv.conf, or write host:port.",
        ) from None


async def resolve(addresses: Sequence[str]) -> tuple[list[str], list[Route]]:
    """Put in place of each service name its targets as `host:port`, in the order that DNS wants them tried.

    All names are asked for at once, for LOOKUP_TIMEOUT at most. One that does not resolve becomes a way that fails with
    the reason, so that the other addresses are tried all the same.
    """
    found: list[str] = []
    failed: list[Route] = []
    names = [address for address in addresses if is_service(address)]
    answers = dict(zip(names, await asyncio.gather(*map(_targets, names), return_exceptions=True), strict=True))
    for address in addresses:
        answer = answers.get(address, [address])
        if isinstance(answer, Exception):
            failed.append(Route("srv", address, _failing(answer)))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found += answer
    return list(dict.fromkeys(found)), failed


async def _targets(name: str) -> list[str]:
    from dns.exception import DNSException

    hint = "Check teleport.addr, and look the name up with `dig SRV`; host:port works without it."
    try:
        answer = await resolver().resolve(name, "SRV", lifetime=LOOKUP_TIMEOUT)
    except (DNSException, OSError) as error:
        raise ConnectError(f"the service {name} does not resolve ({' '.join(str(error).split())})", hint) from None
    targets = [(record.target.to_text(omit_final_dot=True), record.port) for record in answer.rrset.processing_order()]
    named = [join_address(host, port) for host, port in targets if host and host != "." and port]
    if not named:
        raise ConnectError(f"DNS says that the service {name} is nowhere", hint)
    return named[:MAX_TARGETS]


def _failing(error: Exception) -> Dialer:
    async def dial() -> socket.socket:
        raise error

    return dial
