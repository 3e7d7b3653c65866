"""The ordered list of ways into the cluster at an address."""

from __future__ import annotations

from typing import Literal

from event_handler.teleport.credentials import Credentials
from event_handler.teleport.dial.base import Way
from event_handler.teleport.dial.direct import direct
from event_handler.teleport.dial.upgrade import upgrade

Choice = Literal["auto", "direct", "tls-routing", "upgrade", "tunnel"]


def ways(address: str, credentials: Credentials, *, choice: Choice = "auto", insecure_proxy: bool = False) -> list[Way]:
    """The ways into the cluster at `address`, best first; `choice` names the only one to try.

    Without an SSH certificate and SSH authorities in `credentials` there is no tunnel, so the list may be empty where a tunnel was
    chosen. `insecure_proxy` leaves public certificates unchecked, never those of the cluster itself. Raises ConfigurationError for
    what is no address.
    """
    found: list[Way] = []
    if choice in ("auto", "direct", "tls-routing"):
        found.append(Way("direct", direct(address)))
    if choice in ("auto", "upgrade"):
        found.append(Way("upgrade", upgrade(address, always=choice == "upgrade", insecure_proxy=insecure_proxy)))
    if choice in ("auto", "tunnel") and credentials.ssh_certificate and credentials.ssh_authorities:
        from event_handler.teleport.dial.ssh_tunnel import tunnel, tunnel_direct  # asyncssh takes a third of a second to import

        found.append(Way("tunnel", tunnel(address, credentials, insecure_proxy=insecure_proxy)))
        found.append(Way("tunnel-direct", tunnel_direct(address, credentials)))
    return found
