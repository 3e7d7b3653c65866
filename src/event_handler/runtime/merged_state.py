"""How far a cluster was read for several sinks together: as far as the one that is least far.

Each sink's state stays its own. What is remembered goes to all that are attached; one whose state fails is detached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import date
from math import inf
from time import time

from event_handler.checkpoint import DONE, Chunk, Progress, Recording, day_of
from event_handler.ports import DeadLetter, RecordingItem, StateStore
from event_handler.runtime.fan_out import FanOut, Member

ASK_FOR_TURN_EVERY = 0.2  # seconds; a replica that ends is followed within a second
ANNOUNCED_TO_ALL = 30.0  # seconds that a recording waits until every sink has remembered that it is pending


class MergedState:
    """A SharedState and a RecordingQueue over the members that are attached at the moment."""

    def __init__(self, group: FanOut) -> None:
        self._group = group
        self._waiting_since: dict[str, float] = {}  # recordings that some member does not know of
        self._takers: dict[str, list[Member]] = {}  # by recording, until it is done

    async def progress(self) -> Progress:
        found = await self._group.of_each(lambda store: store.progress())
        return merged([progress for _, progress in found])

    async def take(self, chunk: Chunk) -> str | None:
        """For all members, or for none: whoever is waited for has to be asked again."""
        cursors: dict[Member, str] = {}
        for member in self._group.members:
            for _, cursor in await self._group.of_each(lambda store: store.take(chunk), [member]):
                if cursor is None:
                    await self._give_back(chunk, list(cursors))
                    return None
                if cursor != DONE:
                    cursors[member] = cursor
        await self._learn()
        if not cursors:
            return DONE
        self._group.takers[chunk] = list(cursors)
        found = set(cursors.values())
        return found.pop() if len(found) == 1 else ""  # where they have come to different places, it begins again

    async def _give_back(self, chunk: Chunk, members: list[Member]) -> None:
        await self._group.of_each(lambda store: store.give_back(chunk), members)

    async def know_others(self) -> None:
        for member, ids in await self._group.of_each(lambda store: store.new_ids()):
            member.know(ids)

    async def _learn(self) -> None:
        """Know what a replica has delivered whose work was taken over: all but what was in flight."""
        for member, ids in await self._group.of_each(lambda store: store.taken_over_ids()):
            member.know(ids)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Do within what only one replica may do at a time; waits until the others do not.

        Who is cancelled keeps the turn: what it has in flight is still to be delivered, and it begins again, or ends
        and frees everything.
        """
        members = self._group.members
        await self._wait_for_turn(name, members)
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self._end_turn(name, members)
            raise
        await self._end_turn(name, members)

    async def _end_turn(self, name: str, members: list[Member]) -> None:
        await self._group.of_each(lambda store: store.end_turn(name), members)

    async def _wait_for_turn(self, name: str, members: list[Member]) -> None:
        """One member after the other, always in the same order, so that no two replicas wait for one another."""
        for member in members:
            while not all(ours for _, ours in await self._group.of_each(lambda store: store.take_turn(name), [member])):
                await asyncio.sleep(ASK_FOR_TURN_EVERY)
        await self._learn()

    async def agree_on_days(self) -> None:
        """Where a member has a first day, one that is new gets that of its start: older days are not for it."""
        found = await self._group.of_each(lambda store: store.progress())
        new = {member.store: day_of(member.start) for member, progress in found if progress.first_day is None}
        if len(new) == len(found):
            return

        async def agree(store: StateStore) -> None:
            if store in new:
                await store.close_days(new[store])

        await self._group.of_each(agree)

    async def close_days(self, first: date) -> None:
        async def close(store: StateStore) -> None:
            before = (await store.progress()).first_day
            if before is None or before < first:  # a member may have closed more days
                await store.close_days(first)

        await self._group.of_each(close)

    async def last_id_passed(self) -> None:
        await self._group.of_each(lambda store: store.last_id_passed())

    async def due_recordings(self, now: float, limit: int, longest_wait: float = inf) -> list[RecordingItem]:
        """Those that are due for a member, and pending or done for all of them: so that each is asked for once."""
        due: dict[str, RecordingItem] = {}
        for _, items in await self._group.of_each(lambda store: store.due_recordings(now, limit, longest_wait)):
            for item in items:
                due.setdefault(item.session_id, item)
        await self._learn()
        if len(self._group.members) == 1:
            return list(due.values())
        self._waiting_since = {sid: since for sid, since in self._waiting_since.items() if sid in due}
        together = [await self._together(sid) for sid in due]
        return [item for item in together if item is not None]

    async def _together(self, session_id: str) -> RecordingItem | None:
        """What is known of a recording by those who have not had all of it, None while it has to wait."""
        known = dict(await self._group.of_each(lambda store: store.take_recording(session_id)))
        if None in known.values():
            since = self._waiting_since.setdefault(session_id, time())
            if time() - since < ANNOUNCED_TO_ALL:
                return None
        wanted = {member: found[1] for member, found in known.items() if found is not None and not found[0]}
        items = list(wanted.values())
        if not items:
            return None
        self._group.takers[Recording(session_id)] = self._takers[session_id] = list(wanted)
        return RecordingItem(
            session_id,
            min(item.announced for item in items),
            any(item.uploaded for item in items),
            max(item.attempts for item in items),
            min(item.next_try for item in items),
            min(item.next_index for item in items),
            max(item.looks for item in items),
        )

    async def waiting_recordings(self) -> tuple[int, int]:
        counts = [counted for _, counted in await self._group.of_each(lambda store: store.waiting_recordings())]
        return max((waiting for waiting, _ in counts), default=0), max((untried for _, untried in counts), default=0)

    async def recording_done(self, session_id: str) -> None:
        await self._group.of_each(lambda store: store.recording_done(session_id), self._takers.pop(session_id, None))

    async def recording_given_up(self, letter: DeadLetter) -> None:
        self._takers.pop(letter.session_id, None)

        async def give_up(store: StateStore) -> None:
            known = await store.recording(letter.session_id)
            if known is not None and not known[0]:
                await store.recording_given_up(letter)

        await self._group.of_each(give_up)

    async def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        await self._group.of_each(lambda store: store.recording_later(session_id, next_try, counted=counted))

    async def recording_looked(self, session_id: str, next_try: float) -> None:
        await self._group.of_each(
            lambda store: store.recording_looked(session_id, next_try), self._takers.pop(session_id, None)
        )

    async def recordings_looked_at(self) -> list[str]:
        of_each = await self._group.of_each(lambda store: store.recordings_looked_at())
        return list(dict.fromkeys(session_id for _, sessions in of_each for session_id in sessions))

    async def recordings_due_now(self, sessions: Iterable[str] = ()) -> None:
        given = list(sessions)
        await self._group.of_each(lambda store: store.recordings_due_now(given))


def merged(members: list[Progress]) -> Progress:
    """As far as the one that is least far. A chunk is done when it is for all; where members have come to different
    places in it, it begins again.
    """
    if len(members) <= 1:
        return members[0] if members else Progress()
    searched = [one.searched for one in members]
    floors = [one.floor for one in members]
    days = [one.first_day for one in members if one.first_day is not None]
    return Progress(
        members[0].mode,
        None if None in searched else min(time for time in searched if time is not None),
        None if None in floors else min(time for time in floors if time is not None),  # part of where each begins
        next((one.last_id for one in members if one.last_id), ""),
        min(days, default=None),
        frozenset.intersection(*(one.closed_days for one in members)),
        {chunk: _cursor(chunk, members) for one in members for chunk in one.chunks},
    )


def _cursor(chunk: Chunk, members: list[Progress]) -> str:
    cursors = {one.cursor(chunk) for one in members}
    cursors = cursors - {DONE} or cursors
    return cursors.pop() if len(cursors) == 1 else ""
