"""How far a cluster was read for several sinks together: as far as the one that is least far.

Each sink's state stays its own. What is remembered goes to all that are attached; one whose state fails is detached.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import time

from event_handler.ports import DeadLetter, RecordingItem
from event_handler.runtime.fan_out import FanOut
from event_handler.sources.export import CLOSED_DAYS, DONE, FIRST_DAY, day_of
from event_handler.sources.search import FLOOR, STREAM
from event_handler.state.store import Store

ANNOUNCED_TO_ALL = 30.0  # seconds that a recording waits until every sink has remembered that it is pending


class MergedState:
    """A ReadingState and a RecordingQueue over the members that are attached at the moment."""

    def __init__(self, group: FanOut) -> None:
        self._group = group
        self._waiting_since: dict[str, float] = {}  # recordings that some member does not know of

    def fact(self, name: str) -> str:
        values = [value for _, value in self._group.of_each(lambda store: store.fact(name))]
        if len(values) == 1:
            return values[0]
        if name == FIRST_DAY:
            return min((value for value in values if value), default="")
        if name == CLOSED_DAYS:
            return " ".join(sorted(set.intersection(*map(set, map(str.split, values)))) if values else [])
        if name == FLOOR:  # is part of where each member begins
            return min((value for value in values if value), default="") if all(values) else ""
        return next((value for value in values if value), "")

    def agree_on_days(self) -> None:
        """Where a member has a first day, one that is new gets that of its start: older days are not for it."""
        days = self._group.of_each(lambda store: store.fact(FIRST_DAY))
        new = {member.store: str(day_of(member.start)) for member, day in days if not day}
        if len(new) < len(days):
            self._group.of_each(lambda store: store.remember(FIRST_DAY, new[store]) if store in new else None)

    def remember(self, name: str, value: str) -> None:
        def remember(store: Store) -> None:
            if name != FIRST_DAY or store.fact(name) < value:  # a member may have closed more days
                store.remember(name, value)

        self._group.of_each(remember)

    def positions(self, prefix: str) -> dict[str, str]:
        """A chunk is done when it is for all; where they have come to different places in it, it begins again."""
        if prefix == STREAM:
            return self._least_far()
        of_each = self._group.of_each(
            lambda store: (store.positions(prefix), store.fact(FIRST_DAY), store.fact(CLOSED_DAYS))
        )
        if len(of_each) == 1:
            return of_each[0][1][0]
        found: dict[str, str] = {}
        for stream in {stream for _, (positions, _, _) in of_each for stream in positions}:
            day = stream.split("/")[1]
            cursors = {
                DONE if day < first or day in closed.split() else positions.get(stream, "")
                for _, (positions, first, closed) in of_each
            }
            cursors = cursors - {DONE} or cursors
            found[stream] = cursors.pop() if len(cursors) == 1 else ""
        return found

    def _least_far(self) -> dict[str, str]:
        """The earliest of the times up to which the members have everything, none where one has no time yet."""
        times = [
            positions.get(STREAM, "") for _, positions in self._group.of_each(lambda store: store.positions(STREAM))
        ]
        return {STREAM: min(times, key=float)} if times and all(times) else {}

    def forget_until(self, prefix: str, end: str) -> None:
        self._group.of_each(lambda store: store.forget_until(prefix, end))

    def due_recordings(self, now: float, limit: int, longest_wait: float) -> list[RecordingItem]:
        """Those that are due for a member, and pending or done for all of them: so that each is asked for once."""
        due: dict[str, RecordingItem] = {}
        for _, items in self._group.of_each(lambda store: store.due_recordings(now, limit, longest_wait)):
            for item in items:
                due.setdefault(item.session_id, item)
        if len(self._group.members) == 1:
            return list(due.values())
        self._waiting_since = {sid: since for sid, since in self._waiting_since.items() if sid in due}
        together = [self._together(sid) for sid in due]
        return [item for item in together if item is not None]

    def _together(self, session_id: str) -> RecordingItem | None:
        """What is known of a recording by those who have not had all of it, None while it has to wait."""
        known = [found for _, found in self._group.of_each(lambda store: store.recording(session_id))]
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

    def waiting_recordings(self) -> tuple[int, int]:
        counts = [counted for _, counted in self._group.of_each(lambda store: store.waiting_recordings())]
        return max((waiting for waiting, _ in counts), default=0), max((untried for _, untried in counts), default=0)

    def recording_done(self, session_id: str) -> None:
        self._group.of_each(lambda store: store.recording_done(session_id))

    def recording_given_up(self, letter: DeadLetter) -> None:
        def give_up(store: Store) -> None:
            known = store.recording(letter.session_id)
            if known is not None and not known[0]:
                store.recording_given_up(letter)

        self._group.of_each(give_up)

    def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        self._group.of_each(lambda store: store.recording_later(session_id, next_try, counted=counted))

    def recording_looked(self, session_id: str, next_try: float) -> None:
        self._group.of_each(lambda store: store.recording_looked(session_id, next_try))

    def recordings_looked_at(self) -> list[str]:
        of_each = self._group.of_each(lambda store: store.recordings_looked_at())
        return list(dict.fromkeys(session_id for _, sessions in of_each for session_id in sessions))

    def recordings_due_now(self, sessions: Iterable[str]) -> None:
        given = list(sessions)
        self._group.of_each(lambda store: store.recordings_due_now(given))
