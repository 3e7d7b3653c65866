"""One reading of the cluster for several sinks, and who takes part in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from uuid import UUID

import structlog

from event_handler.runtime.fan_out import FanOut, Member
from event_handler.runtime.session import Follower, FollowSettings
from event_handler.sources.export import unfinished_since
from event_handler.sources.search import read_position
from event_handler.state.store import Store
from event_handler.teleport.rpc.client import Client

NEAR = 3600.0  # seconds of the log that those who are ahead read once more, for one that is behind
OPENED_WITHIN = 10.0  # seconds that the first reading waits for all sinks, so that it need not begin again for each

log = structlog.get_logger()


class Outcome(Enum):
    """Why a sink takes part no longer: all is read, it held up the others, or it is too far from them to begin."""

    ENDED = auto()
    DETACHED = auto()
    BEHIND = auto()


class SharedReading:
    """Reads for all sinks that are about as far as the one that is farthest; `sinks` is how many there are.

    A sink that is far behind, new, or was detached reads for itself until it is near.
    """

    def __init__(self, connect: Callable[[], Client], settings: FollowSettings, sinks: int) -> None:
        self._group = FanOut()
        self._follower = Follower(connect, self._group, settings)
        self._settings = settings
        self._waited_for = sinks  # sinks that have not said yet how far they are
        self._first: list[Member] = []
        self._behind: list[Member] = []  # of those
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """As Follower.run."""
        try:
            await self._wait_for_all()
            await self._follower.run()
        finally:
            self._ended.set()

    async def renew(self, fresh: Client) -> None:
        await self._follower.renew(fresh)

    async def attend(self, member: Member) -> Outcome:
        """Take part from the next beginning on, until the member is detached or the reading has ended."""
        if self._waited_for:
            self._waited_for -= 1
            self._first.append(member)
        elif self._settings.exit_on_last_event or not self._is_near(member, self._group.members):
            return Outcome.BEHIND
        else:
            log.info("the sink is near the others and shares their reading", sink=member.name)
            self._group.join(member)
        ended, left = (asyncio.create_task(event.wait()) for event in (self._ended, member.left))
        try:
            await asyncio.wait({ended, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            left.cancel()
            if member.attached:
                member.detach()
                self._group.forget()
        if self._ended.is_set():
            return Outcome.ENDED
        return Outcome.BEHIND if member in self._behind else Outcome.DETACHED

    async def _wait_for_all(self) -> None:
        """Until each sink has said how far it is, or has failed to."""
        loop = asyncio.get_running_loop()
        end = loop.time() + OPENED_WITHIN
        while self._waited_for and loop.time() < end:
            await asyncio.sleep(0.01)
        self._waited_for = 0
        for member in [one for one in self._first if one.attached]:
            if self._is_near(member, self._first):
                self._group.join(member)
            else:
                log.info("the sink is behind the others and reads for itself until it is near", sink=member.name)
                self._behind.append(member)
                member.detach()

    def _is_near(self, member: Member, others: list[Member]) -> bool:
        """Whether all can begin where this one is. New ones begin together."""
        if not others:
            return True
        if _is_new(member.store) != all(_is_new(one.store) for one in others):
            return False
        return _reached(member) >= max(map(_reached, others)) - NEAR


def _is_new(store: Store) -> bool:
    return not store.fact("mode") or (read_position(store) is None and not store.positions("bulk/"))


def _reached(member: Member) -> float:
    """About how far its reading is: seconds since the epoch."""
    if member.store.fact("mode") == "search":
        return read_position(member.store) or member.start
    made = [_made(name) for stream in member.store.positions("bulk/") for name in [stream.split("/", 2)[2]]]
    return max([member.start, unfinished_since(member.store) or 0.0, *made])


def _made(chunk: str) -> float:
    """When a chunk was made, 0 when its name does not tell (UUIDv7 does)."""
    try:
        return (UUID(chunk).int >> 80) / 1000
    except ValueError:
        return 0.0
