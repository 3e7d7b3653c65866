"""Keeps the newest valid credentials: reads their files again and again, and tells in good time that they expire.

Files are compared by what is in them, so a file cut off by its writer, a swapped symlink or a file that is away for a moment is
simply not valid yet: the credentials at hand stay in use until a whole, newer set is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from event_handler.errors import ConfigurationError, ConnectError, CredentialsError, RpcError
from event_handler.teleport.credentials import RENEW, Credentials

WARN_FROM = 0.2  # share of the lifetime that is left when the warnings begin
WARN_EVERY = timedelta(days=1)
TORN_RETRY = 1.0  # seconds; files that do not fit each other are usually being written at this moment

log = structlog.get_logger()


class CredentialsKeeper:
    """`read` reads the files, `interval` is in seconds, 0 keeps the first credentials for ever. The constructor raises as `read`."""

    def __init__(self, read: Callable[[], Credentials], interval: float) -> None:
        self._read = read
        self._interval = interval
        self.current = read()
        self._problem = ""
        self._asked = asyncio.Event()
        self._warned = datetime.min.replace(tzinfo=UTC)

    async def watch(self, renew: Callable[[], Awaitable[None]]) -> None:
        """Run until cancelled. `renew` is awaited when there are new credentials, and again while it raises ConnectError."""
        pending = False
        while True:
            self.warn_of_expiry(datetime.now(UTC))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._asked.wait()
            self._asked.clear()
            if self._interval and self._read_again():
                pending = True
            if pending:
                try:
                    await renew()
                    pending = False
                except (ConnectError, RpcError) as error:
                    log.warning("the new credentials do not get in yet; the old connection stays", error=str(error))

    def look_now(self) -> None:
        """Read the files at once (SIGHUP)."""
        self._asked.set()

    def _pause(self) -> float:
        longest = self._interval or WARN_EVERY.total_seconds() / 24
        return min(longest, TORN_RETRY) if self._problem else longest

    def _read_again(self) -> bool:
        """Take newer credentials over; say once when the files have become unusable."""
        problem = ""
        fresh = self.current
        try:
            fresh = self._read()
            fresh.check_not_expired()
        except (CredentialsError, ConfigurationError) as error:
            problem = str(error)
        if problem:
            if problem != self._problem and self.current.not_after > datetime.now(UTC):
                log.warning("the credentials cannot be read now; the ones at hand stay in use", reason=problem)
            self._problem = problem
            return False
        self._problem = ""
        if fresh == self.current:
            return False
        if fresh.cluster != self.current.cluster:
            self._problem = f"the credentials are now for the cluster {fresh.cluster}, and this process reads {self.current.cluster}"
            log.error(self._problem, next_step="Restart to read that cluster.")
            return False
        self.current = fresh
        log.info("credentials renewed", expires=fresh.not_after.isoformat())
        return True

    def warn_of_expiry(self, now: datetime) -> None:
        """Warn from 20 % of the lifetime on, once a day; after it, that nothing can be read any more once the connection is lost."""
        credentials = self.current
        left = credentials.not_after - now
        if left > WARN_FROM * (credentials.not_after - credentials.not_before) or now - self._warned < WARN_EVERY:
            return
        self._warned = now
        expires = credentials.not_after.isoformat()
        if left > timedelta():
            log.warning("the credentials expire soon", expires=expires, source=credentials.source, next_step=RENEW)
        else:
            log.error("the credentials have expired", expired=expires, source=credentials.source, next_step=RENEW)
