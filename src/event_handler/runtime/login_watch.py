"""Reads the logins of a cluster for the locks, apart from all sinks: one that is down, or slow, hides no failed login.

It searches for events of one type, which every back end can do, on a connection of its own. How far it was is not
remembered: what can still count is younger than the period and ten minutes, and is read again at each start; the
lockout knows what it has counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from time import monotonic, time

import structlog

from event_handler.backoff import backoff
from event_handler.runtime.lockout import FAILED_LOGIN, LoginLockout
from event_handler.sources.pages import Search
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import event_time

POLL = 2.0  # seconds between searches
# seconds, where bulk export is at hand: there each search is a query of Athena's, and shares a limit with others
POLL_BULK = 30.0
OVERLAP = 10.0  # seconds that every search looks back: back ends write with that much delay and round to seconds
SWEEP_EVERY = 60.0  # seconds between searches for all that can still count: some back ends have events minutes late
LOGINS_AHEAD = 25 * 3600.0  # seconds into the future that a search reaches, for our clock may be behind by a time zone
SERVER_REST = 4.0  # times as long as a search took, the server has rest of us
PROBE_AHEAD = 2 * 86_400.0  # seconds; a day that has no events yet
LOGINS_AT_ONCE = (
    50  # logins counted in one go, which takes about two milliseconds: a flood of them must not hold up the deliveries
)
LONGEST_LOGIN_WAIT = 15.0  # seconds between tries to connect
REMIND_EVERY = 60.0  # seconds between lines while logins cannot be read

log = structlog.get_logger()


class LoginWatch:
    """Feeds a lockout and makes its locks. `connect` makes a new client from the newest credentials."""

    def __init__(self, connect: Callable[[], Client], lockout: LoginLockout) -> None:
        self._connect = connect
        self._lockout = lockout
        self._newest = 0.0  # time of the newest login seen
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled: whatever fails, it is begun again."""
        attempt, reminded = 0, -REMIND_EVERY
        while True:
            client: Client | None = None
            begun = monotonic()
            try:
                client = self._connect()
                await self._follow(client)
            except Exception as error:  # of the cluster, the state or our own code: none may end the watch
                if begun - reminded >= REMIND_EVERY:
                    reminded = begun
                    log.warning(
                        "logins cannot be read for the locks now, will try again", error=str(error) or repr(error)
                    )
            finally:
                if client is not None:
                    await client.aclose()
            attempt = 0 if monotonic() - begun > LONGEST_LOGIN_WAIT else attempt + 1
            await asyncio.sleep(0.2 + backoff(attempt, LONGEST_LOGIN_WAIT))

    async def finish(self, seconds: float) -> None:
        """Wait until everything that is in the log now has been read and its locks were tried, but not for longer
        than that.
        """
        self._ending.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def _follow(self, client: Client) -> None:
        search = Search(client, types=(FAILED_LOGIN,))
        poll = POLL_BULK if await client.has_bulk_export(time() + PROBE_AHEAD) else POLL
        swept = -SWEEP_EVERY
        while True:
            ending, begun = self._ending.is_set(), monotonic()
            oldest, now = self._lockout.oldest, time()
            since = max(oldest, min(self._newest, now) - OVERLAP)
            if ending or begun - swept >= SWEEP_EVERY:
                swept, since = begun, oldest
            await self._read(search, since, max(since, now + LOGINS_AHEAD))
            await self._lockout.make_locks(client)
            if ending:
                self._ended.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(poll, search.seconds * SERVER_REST)):
                    await (asyncio.Event() if ending else self._ending).wait()

    async def _read(self, search: Search, since: float, until: float) -> None:
        async with aclosing(search.pages(since, until)) as pages:
            async for events, _ in pages:
                for at in range(0, len(events), LOGINS_AT_ONCE):
                    await self._lockout.observe(events[at : at + LOGINS_AT_ONCE])
                    await asyncio.sleep(0)
                self._newest = max([self._newest, *map(event_time, events)])
