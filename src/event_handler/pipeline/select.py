"""Chooses what is delivered to one sink: filters see type and code only, and duplicates are dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from event_handler.errors import MalformedEventError
from event_handler.event import SESSION_ID, Event, RawEvent, Unreadable, fingerprint
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.filters import Filter
from event_handler.pipeline.tracker import PendingRecording
from event_handler.ports import DeadLetter

UPLOADED = "session.upload"
ENDED = frozenset({"session.end", "windows.desktop.session.end", "db.session.end"})
ANNOUNCING = (UPLOADED, *sorted(ENDED))
UNWANTED_BUCKETS: Final = 4_096  # 230,000 ids, twice what a sweep of the tail reads again at most; a power of two


@dataclass(slots=True)
class Selection:
    """The outcome for a run: what to deliver (with dedup keys), what is dead, and which recordings are pending.

    `new` is how many of the events were not read before, whether the sink wants them or not; `duplicates` were
    selected before, and `filtered` are not wanted.
    """

    events: list[tuple[Event, bytes]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    recordings: list[PendingRecording] = field(default_factory=list)
    new: int = 0
    duplicates: int = 0
    filtered: int = 0


class Selector:
    """Filters of one sink: `types` and `skip_types` for the audit log, `skip_session_types` for recordings.

    `recordings`: whether the recordings of sessions are wanted.
    """

    def __init__(
        self,
        sink: str,
        window: DuplicateWindow,
        *,
        types: Iterable[str] = (),
        skip_types: Iterable[str] = (),
        skip_session_types: Iterable[str] = (),
        recordings: bool = True,
    ) -> None:
        self._sink = sink
        self._window = window
        self._unwanted = DuplicateWindow(UNWANTED_BUCKETS)  # what is new never depends on the filters
        self._audit = Filter(types, skip_types)
        self._recorded = Filter(skip=skip_session_types)
        self._recordings = recordings

    def select(self, events: Iterable[RawEvent]) -> Selection:
        """Select from a run of events."""
        chosen = Selection()
        for raw in events:
            try:
                if isinstance(raw, Unreadable):
                    self._unreadable(raw, chosen)
                elif self._is_wanted(raw, chosen):
                    self._take_new(raw, chosen)
                else:
                    self._pass_by(raw, chosen)
            except Exception as error:  # no event, or a fault of our own code: neither may stop the events behind it
                reason = (
                    str(error)
                    if isinstance(error, MalformedEventError)
                    else f"cannot be read ({type(error).__name__}: {error})"
                )
                self._keep(raw.unreadable(reason), chosen)
        return chosen

    def _is_wanted(self, raw: RawEvent, chosen: Selection) -> bool:
        """Whether the filters want it. A recording that it announces is pending all the same."""
        of_sink = self._recorded if raw.session_id else self._audit
        wanted = of_sink.wants(raw.type, raw.code() if of_sink.needs_code else "")
        if not raw.session_id and self._recordings and raw.type in ANNOUNCING:
            self._note_recording(raw.event(), chosen)
        return wanted

    def _take_new(self, raw: RawEvent, chosen: Selection) -> None:
        """Take an event that is wanted, unless it is known."""
        dedup_key = raw.dedup_key()
        if dedup_key in self._window:
            chosen.duplicates += 1
            return
        event = raw.event()
        self._window.add(dedup_key)
        chosen.events.append((event, dedup_key))
        chosen.new += 1

    def _pass_by(self, raw: RawEvent, chosen: Selection) -> None:
        """Take note of an event that is not wanted."""
        chosen.filtered += 1
        dedup_key = raw.dedup_key()
        if dedup_key not in self._unwanted:
            self._unwanted.add(dedup_key)
            chosen.new += 1

    def _unreadable(self, raw: Unreadable, chosen: Selection) -> None:
        """Keep it, unless its type is known and not wanted. Its code is not known."""
        of_sink = self._recorded if raw.session_id else self._audit
        if not raw.type or of_sink.needs_code or of_sink.wants(raw.type, ""):
            self._keep(raw, chosen)
        else:
            self._pass_by(raw, chosen)

    def _keep(self, raw: Unreadable, chosen: Selection) -> None:
        time = raw.time if raw.type else None
        letter = DeadLetter(self._sink, raw.reason, raw.type, raw.id, raw.session_id, raw.body, time, raw.index)
        chosen.new += self._dead_letter(letter, chosen)

    def _dead_letter(self, letter: DeadLetter, chosen: Selection) -> bool:
        """Once only: the tail of a search reads the same events again and again. Return whether this was the first."""
        dedup_key = dead_letter_key(letter)
        if dedup_key not in self._window:
            self._window.add(dedup_key)
            chosen.dead.append(letter)
            return True
        return False

    def release(self, dedup_keys: Iterable[bytes]) -> None:
        """Forget events that were selected but never handed on, so that they count as new when they are read again."""
        for dedup_key in dedup_keys:
            self._window.discard(dedup_key)

    def _note_recording(self, event: Event, chosen: Selection) -> None:
        content = orjson.loads(event.body)
        session = content.get("sid")
        if content.get("session_recording") == "off" or content.get("recorded") is False:
            return
        if not session and event.type != UPLOADED:
            return  # only an upload is certain to have a recording
        if not isinstance(session, str) or not SESSION_ID.fullmatch(session):
            reason = (
                f"the {event.type} event has no usable session id ({session!r}), so its recording cannot be asked for"
            )
            letter = DeadLetter("recordings", reason, event.type, event.id, "", event.body, event.time, event.index)
            self._dead_letter(letter, chosen)
            return
        chosen.recordings.append(PendingRecording(session, event.time, event.type == UPLOADED))


def dead_letter_key(letter: DeadLetter) -> bytes:
    """What is remembered of a letter for which there is no event, so that the same bytes read again make no second
    one.
    """
    return fingerprint(f"{letter.sink} dead letter {letter.id}")
