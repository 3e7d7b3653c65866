"""How far a cluster was read for several sinks together: as far as the one that is least far.

Each sink's state stays its own. What is remembered goes to all that are attached; one whose state fails is detached.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from math import inf
from time import time

from event_handler.checkpoint import DONE, Chunk, Progress, day_of
from event_handler.ports import DeadLetter, RecordingItem, StateStore
from event_handler.runtime.fan_out import FanOut

ANNOUNCED_TO_ALL = 30.0  # seconds that a recording waits until every sink has remembered that it is pending


class MergedState:
    """A ReadingState and a RecordingQueue over the members that are attached at the moment."""

    def __init__(self, group: FanOut) -> None:
        self._group = group
        self._waiting_since: dict[str, float] = {}  # recordings that some member does not know of

    async def progress(self) -> Progress:
        found = await self._group.of_each(lambda store: store.progress())
        for member, progress in found:
            member.progress = progress
        return merged([progress for _, progress in found])

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
        if len(self._group.members) == 1:
            return list(due.values())
        self._waiting_since = {sid: since for sid, since in self._waiting_since.items() if sid in due}
        together = [await self._together(sid) for sid in due]
        return [item for item in together if item is not None]

    async def _together(self, session_id: str) -> RecordingItem | None:
        """What is known of a recording by those who have not had all of it, None while it has to wait."""
        known = [found for _, found in await self._group.of_each(lambda store: store.recording(session_id))]
        if None in known:
            since = self._waiting_since.setdefault(session_id, time())
            if time() - since < ANNOUNCED_TO_ALL:
                return None
        items = [item for done, item in filter(None, known) if not done]
        if not items:
            return None
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
        await self._group.of_each(lambda store: store.recording_done(session_id))

    async def recording_given_up(self, letter: DeadLetter) -> None:
        async def give_up(store: StateStore) -> None:
            known = await store.recording(letter.session_id)
            if known is not None and not known[0]:
                await store.recording_given_up(letter)

        await self._group.of_each(give_up)

    async def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        await self._group.of_each(lambda store: store.recording_later(session_id, next_try, counted=counted))

    async def recording_looked(self, session_id: str, next_try: float) -> None:
        await self._group.of_each(lambda store: store.recording_looked(session_id, next_try))

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
