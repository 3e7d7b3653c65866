"""Access tokens: fetched when they are needed, kept, and renewed before they end, by one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import structlog

from event_handler.ports import Retry
from event_handler.sinks.http import Answer, HttpClient

RENEW_EARLY = 300.0  # seconds before a token's end; metadata servers give a new one from then on
RENEW_AGAIN = 30.0  # seconds between two tries to renew a token that is still good
UNAUTHORIZED = 401  # the status that says that a token is not taken

Send = Callable[[], Awaitable[Answer | Retry]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and the seconds that it is good for from when it was asked for."""

    value: str = field(repr=False)
    seconds: float


class TokenSource(Protocol):
    """Where tokens come from. `fetch` never raises for what the other side does, and ends within bounded time."""

    async def fetch(self) -> Token | Retry: ...

    def reload(self) -> None:
        """Files that are read may have changed."""

    async def close(self) -> None: ...


class AccessTokens:
    """The tokens of one sink. `clock` counts seconds from any moment.

    While one delivery asks for a new token, others go on with the old one as long as it is good, and wait for the
    answer otherwise: each wait is as long as one request, for what came of it is everybody's.
    """

    def __init__(self, source: TokenSource, clock: Callable[[], float] = monotonic) -> None:
        self._source = source
        self._clock = clock
        self._value = ""
        self._ends = 0.0
        self._renew_at = 0.0
        self._asking = asyncio.Lock()
        self._asked = 0  # how often somebody was answered
        self._failure = Retry("")
        self._shown = ""  # the token in the client's header

    async def current(self) -> str | Retry:
        """A token, or why there is none."""
        now, before = self._clock(), self._asked
        if self._value and (now < self._renew_at or (now < self._ends and self._asking.locked())):
            return self._value
        async with self._asking:
            if self._asked == before:
                await self._renew()
        return self._value or self._failure

    async def _renew(self) -> None:
        asked = self._clock()
        got = await self._source.fetch()
        self._asked += 1
        if isinstance(got, Token):
            self._value, self._ends = got.value, asked + got.seconds
            self._renew_at = asked + max(got.seconds - RENEW_EARLY, got.seconds / 2)
            return
        self._failure = got
        if (now := self._clock()) < self._ends:
            self._renew_at = now + RENEW_AGAIN
            log.warning("an access token could not be renewed, the old one is still good", reason=got.reason)
        else:
            self._value = ""

    def refused(self, value: str) -> None:
        """The receiver does not take this token: the next one who wants a token asks for another."""
        if value == self._value:
            self._value, self._ends = "", 0.0

    async def signed_in(self, client: HttpClient, send: Send) -> Answer | Retry:
        """What `send` brings, which uses `client`, with a token in its header; after a 401 with a new one, once."""
        for last in (False, True):
            token = await self.current()
            if isinstance(token, Retry):
                return token
            if token != self._shown:
                client.set_header("Authorization", f"Bearer {token}")
                self._shown = token
            answer = await send()
            if last or isinstance(answer, Retry) or answer.status != UNAUTHORIZED:
                return answer
            self.refused(token)
        raise AssertionError("the last try returns")

    def reload(self) -> None:
        self._source.reload()

    async def close(self) -> None:
        await self._source.close()
