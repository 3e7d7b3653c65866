"""Signing in to the cluster as the settings say: which credentials, which ways in."""

from __future__ import annotations

from collections.abc import Sequence
from time import sleep

from event_handler.errors import CredentialsError
from event_handler.settings.model import StartSettings
from event_handler.teleport import credentials
from event_handler.teleport.client import Client
from event_handler.teleport.connection import Connection
from event_handler.teleport.dial import Way, srv
from event_handler.teleport.dial.ways import ways_to
from event_handler.teleport.entrance import Entrance
from event_handler.teleport.renewal import CredentialsKeeper
from event_handler.teleport.tls import client_context

TRIES = 4  # readings of the credentials at the start
BETWEEN_TRIES = 0.3  # seconds; a file is written in far less


def keep_credentials(settings: StartSettings) -> CredentialsKeeper:
    """Read the credentials; they must be valid now, or within a second: tbot may be writing them at this moment.

    Raises CredentialsError or ConfigurationError.
    """
    files = settings.teleport_identity, settings.teleport_cert, settings.teleport_key, settings.teleport_ca
    interval = settings.teleport_refresh_interval if settings.teleport_refresh_enabled else 0.0
    tries = TRIES
    while True:
        try:
            keeper = CredentialsKeeper(lambda: credentials.load(*files), interval)
            keeper.current.check_not_expired()
            return keeper
        except CredentialsError:
            tries -= 1
            if not tries:
                raise
            sleep(BETWEEN_TRIES)


class Access:
    """Makes clients with the newest credentials. The constructor raises ConfigurationError for an address or a way that cannot be."""

    def __init__(self, settings: StartSettings, keeper: CredentialsKeeper) -> None:
        self._settings = settings
        self._keeper = keeper
        self._addresses = [address.strip() for address in settings.teleport_addr]
        self._entrance = Entrance(self._ways)
        if any(srv.is_service(address) for address in self._addresses):
            srv.resolver()
        self._ways_to([address for address in self._addresses if not srv.is_service(address)])

    def connect(self) -> Client:
        """A client that connects at its first call. Raises CredentialsError when the credentials have expired."""
        newest = self._keeper.current
        newest.check_not_expired()
        return Client(Connection(self._entrance, client_context(newest)))

    async def _ways(self) -> list[Way]:
        addresses, unresolved = await srv.resolve(self._addresses)
        return self._ways_to(addresses) + unresolved

    def _ways_to(self, addresses: Sequence[str]) -> list[Way]:
        choice, insecure = self._settings.teleport_dial, self._settings.teleport_insecure_proxy
        return ways_to(addresses, self._keeper.current, choice=choice, insecure_proxy=insecure)
