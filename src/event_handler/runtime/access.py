"""Signing in to the cluster as the settings say: which credentials, which ways in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

import structlog

from event_handler.config.model import StartSettings
from event_handler.errors import ConnectError, CredentialsError
from event_handler.teleport.auth import credentials
from event_handler.teleport.auth.credentials import Credentials
from event_handler.teleport.auth.renewal import CredentialsKeeper
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Route, plain_address, split_address, srv
from event_handler.teleport.transport.connector import Connector
from event_handler.teleport.transport.routes import routes_to

CREDENTIALS_EVERY = 0.3  # seconds between readings of credentials that are not valid at the start
TOLD_AFTER = 1.0  # seconds; a file that is just being written is whole in far less
REMIND_EVERY = 60.0  # seconds between lines while it waits for credentials

log = structlog.get_logger()


def keep_credentials(settings: StartSettings) -> CredentialsKeeper:
    """Read the credentials, which must be valid now. Raises CredentialsError or ConfigurationError."""
    files = settings.teleport_identity, settings.teleport_cert, settings.teleport_key, settings.teleport_ca
    interval = settings.teleport_refresh_interval if settings.teleport_refresh_enabled else 0.0
    keeper = CredentialsKeeper(lambda: credentials.load(*files), interval)
    keeper.current.check_not_expired()
    return keeper


async def wait_for_credentials(settings: StartSettings) -> CredentialsKeeper:
    """Read the credentials as soon as they are valid: after a reboot they may be missing or expired until tbot has run.

    Raises ConfigurationError, and CredentialsError for what no waiting repairs; after the startup timeout ConnectError.
    """
    began = monotonic()
    logged, logged_at = "", 0.0
    while True:
        try:
            return keep_credentials(settings)
        except CredentialsError as error:
            if error.lasting:
                raise
            now, limit = monotonic(), settings.startup_timeout
            if limit and now - began >= limit:
                raise ConnectError(
                    f"there were no valid credentials within {limit:.0f} s ({error.message})", error.hint
                ) from None
            if now - began >= TOLD_AFTER and (error.message != logged or now - logged_at >= REMIND_EVERY):
                logged, logged_at = error.message, now
                log.warning(
                    "waiting for valid credentials",
                    reason=error.message,
                    waited_s=round(now - began),
                    next_step=error.hint,
                )
        await asyncio.sleep(CREDENTIALS_EVERY)


def addresses(settings: StartSettings) -> list[str]:
    """Addresses of the cluster as `host:port` or the name of a service.

    Raises ConfigurationError for what is neither.
    """
    found = [plain_address(address) for address in settings.teleport_addr]
    for address in found:
        if not srv.is_service(address):
            split_address(address)
    return found


class Access:
    """Makes clients with the newest credentials.

    The constructor raises ConfigurationError for an address or a way that cannot be.
    """

    def __init__(self, settings: StartSettings, keeper: CredentialsKeeper) -> None:
        self._settings = settings
        self._keeper = keeper
        self._addresses = addresses(settings)
        self._connector = Connector(self._routes)
        if any(srv.is_service(address) for address in self._addresses):
            srv.resolver()
        self._routes_to([address for address in self._addresses if not srv.is_service(address)], keeper.current)

    def connect(self, newer: Credentials | None = None) -> Client:
        """A client that connects at its first call, with `newer` credentials or those in use.

        Raises CredentialsError.
        """
        chosen = newer or self._keeper.current
        chosen.check_not_expired()
        return Client(Connection(self._connector, client_context(chosen)))

    async def _routes(self, chosen: Credentials) -> list[Route]:
        found, unresolved = await srv.resolve(self._addresses)
        return self._routes_to(found, chosen) + unresolved

    def _routes_to(self, found: Sequence[str], chosen: Credentials) -> list[Route]:
        choice, insecure = self._settings.teleport_dial, self._settings.teleport_insecure_proxy
        return routes_to(found, chosen, choice=choice, insecure_proxy=insecure)
