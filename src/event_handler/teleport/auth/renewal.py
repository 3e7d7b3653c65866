"""Keeps the newest valid credentials: reads their files again and again, and tells in good time that they expire.

Files are compared by what is in them, so a file cut off by its writer, a swapped symlink or a file that is away for a
moment is simply not valid yet: the credentials at hand stay in use until a whole, newer set is there. Newer ones
replace valid ones only when the cluster has let them in; where the old ones have expired, there is nothing to keep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog

from event_handler.errors import ConfigurationError, CredentialsError, EventHandlerError
from event_handler.teleport.auth.credentials import RENEW, TIME, Credentials

WARN_FROM = 0.2  # share of the lifetime that is left when the warnings begin
WARN_EVERY = timedelta(days=1)
TORN_RETRY = 1.0  # seconds; files that do not fit each other are usually being written at this moment
ENTRY_RETRY = 15.0  # seconds between tries of new credentials, as between tries to connect
REMIND_EVERY = 60.0  # seconds between lines that say the same

log = structlog.get_logger()


class CredentialsKeeper:
    """`read` reads the files, `interval` is in seconds, 0 reads them again on request only.

    The constructor raises as `read`.
    """

    def __init__(self, read: Callable[[], Credentials], interval: float) -> None:
        self._read = read
        self._interval = interval
        self.current = read()
        self.renewals = 0
        self._newer: Credentials | None = None  # not yet let in
        self._problem = ""
        self._asked = asyncio.Event()
        self._warned = datetime.min.replace(tzinfo=UTC)
        self._logged = ("", 0.0)

    async def watch(self, renew: Callable[[Credentials], Awaitable[None]]) -> None:
        """Run until cancelled; may be called again after an error, and goes on where it was.

        `renew` is awaited with newer credentials, and again while it raises an EventHandlerError.
        """
        while True:
            self.warn_of_expiry(datetime.now(UTC))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._asked.wait()
            if self._interval or self._asked.is_set():
                self._asked.clear()
                self._look()
            if self._newer is not None:
                await self._bring_in(self._newer, renew)

    def look_now(self) -> None:
        """Read the files at once (SIGHUP)."""
        self._asked.set()

    def _pause(self) -> float:
        longest = self._interval or WARN_EVERY.total_seconds() / 24
        if self._newer is not None:
            longest = min(longest, ENTRY_RETRY)
        return min(longest, TORN_RETRY) if self._problem else longest

    def _look(self) -> None:
        """Keep what is newer in the files; say once when they have become unusable."""
        try:
            fresh = self._read()
            fresh.check_not_expired()
        except (CredentialsError, ConfigurationError) as error:
            if str(error) != self._problem and not self._expired():
                log.warning("the credentials cannot be read now; the ones at hand stay in use", reason=str(error))
            self._problem = str(error)
            return
        self._problem = ""
        if fresh.cluster != self.current.cluster:
            self._problem = (
                f"the credentials are now for the cluster {fresh.cluster}, and this process reads "
                f"{self.current.cluster}"
            )
            if self._is_news(self._problem):
                log.error(self._problem, next_step="Restart to read that cluster.")
            return
        if fresh != self._newer:
            self._newer = None if fresh == self.current else fresh

    async def _bring_in(self, newer: Credentials, renew: Callable[[Credentials], Awaitable[None]]) -> None:
        """Use newer credentials as soon as they got in, or at once where there are no others."""
        if self._expired():
            self._use(newer)
        try:
            await renew(newer)
            self._use(newer)
            self._newer = None
        except EventHandlerError as error:
            if self._is_news(str(error)):
                log.warning("the new credentials do not get in yet; the old ones stay in use", error=str(error))

    def _use(self, newer: Credentials) -> None:
        if newer != self.current:
            self.current = newer
            self.renewals += 1
            log.info("credentials renewed", expires=newer.not_after.isoformat())

    def _expired(self) -> bool:
        return self.current.not_after <= datetime.now(UTC)

    def _is_news(self, text: str) -> bool:
        logged, at = self._logged
        if text == logged and monotonic() - at < REMIND_EVERY:
            return False
        self._logged = text, monotonic()
        return True

    def warn_of_expiry(self, now: datetime) -> None:
        """Warn from 20 % of the lifetime on, once a day; after it, that nothing can be read any more once the
        connection is lost.

        A clock that is behind the one that signed them is told too: the cluster may refuse what seems to be of the
        future.
        """
        credentials = self.current
        left = credentials.not_after - now
        early = now < credentials.not_before
        late = left <= WARN_FROM * (credentials.not_after - credentials.not_before)
        if not (early or late) or abs(now - self._warned) < WARN_EVERY:
            return
        self._warned = now
        if early:
            log.warning(
                "by this machine's clock the credentials are not valid yet",
                clock=f"{now:{TIME}}",
                valid_from=f"{credentials.not_before:{TIME}}",
                source=credentials.source,
                next_step="Compare the clocks of this machine and of the cluster (`date -u`, NTP).",
            )
            return
        expires = credentials.not_after.isoformat()
        if left > timedelta():
            log.warning("the credentials expire soon", expires=expires, source=credentials.source, next_step=RENEW)
        else:
            log.error("the credentials have expired", expired=expires, source=credentials.source, next_step=RENEW)
