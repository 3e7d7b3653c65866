"""One reading of the cluster for several sinks, and who takes part in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

import structlog

from event_handler.checkpoint import Mode, Progress
from event_handler.errors import StateError
from event_handler.report import Reading
from event_handler.runtime.fan_out import FanOut, Member
from event_handler.runtime.session import Follower, FollowSettings
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

    @property
    def reading(self) -> Reading:
        """How far the reading is."""
        return self._follower.reading

    async def renew(self, fresh: Client) -> None:
        await self._follower.renew(fresh)

    async def attend(self, member: Member) -> Outcome:
        """Take part from the next beginning on, until the member is detached or the reading has ended."""
        if self._waited_for:
            self._waited_for -= 1
            self._first.append(member)
        elif self._settings.exit_on_last_event or not await self._is_near(member, self._group.members):
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
            if await self._is_near(member, self._first):
                self._group.join(member)
            elif member.attached:
                log.info("the sink is behind the others and reads for itself until it is near", sink=member.name)
                self._behind.append(member)
                member.detach()

    async def _is_near(self, member: Member, others: list[Member]) -> bool:
        """Whether all can begin where this one is. New ones begin together."""
        known = await self._far([member, *others])
        if member not in known:
            return False
        progress = [known[one] for one in others if one in known]
        if not progress:
            return True
        if _is_new(known[member]) != all(map(_is_new, progress)):
            return False
        farthest = max(_reached(one, known[one]) for one in others if one in known)
        return _reached(member, known[member]) >= farthest - NEAR

    async def _far(self, members: list[Member]) -> dict[Member, Progress]:
        """How far each is. One whose state fails is detached: it says so itself when it reads alone."""
        found = {}
        for member in members:
            try:
                found[member] = await member.store.progress()
            except StateError as error:
                self._group.detach(member, str(error))
        return found


def _is_new(progress: Progress) -> bool:
    return progress.mode is None or (progress.searched is None and not progress.chunks)


def _reached(member: Member, progress: Progress) -> float:
    """About how far its reading is: seconds since the epoch."""
    if progress.mode is Mode.SEARCH:
        return progress.searched or member.start
    made = [chunk.made or 0.0 for chunk in progress.chunks]
    return max([member.start, progress.polled_since or 0.0, *made])
