"""Signing in to the cluster as the settings say: which credentials, which ways in."""

from __future__ import annotations

from time import sleep

from event_handler.errors import ConfigurationError, CredentialsError
from event_handler.settings.model import StartSettings
from event_handler.teleport import credentials
from event_handler.teleport.client import Client
from event_handler.teleport.connection import Connection
from event_handler.teleport.credentials import Credentials
from event_handler.teleport.dial import Way
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
        self._entrance = Entrance(lambda: self._ways(self._keeper.current))
        self._ways(keeper.current)

    def connect(self) -> Client:
        """A client that connects at its first call. Raises CredentialsError when the credentials have expired."""
        newest = self._keeper.current
        newest.check_not_expired()
        return Client(Connection(self._entrance, client_context(newest)))

    def _ways(self, newest: Credentials) -> list[Way]:
        addresses = [address.strip() for address in self._settings.teleport_addr]
        insecure = self._settings.teleport_insecure_proxy
        found = ways_to(addresses, newest, choice=self._settings.teleport_dial, insecure_proxy=insecure)
        if not found:
            raise ConfigurationError(
                f"teleport.dial = {self._settings.teleport_dial!r} needs an SSH certificate, and {newest.source} has none",
                "Use an identity file, or leave teleport.dial out.",
            )
        return found
