"""Chooses what is delivered.

filters see type and code only, duplicates are dropped, and only what remains is converted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from event_handler.errors import MalformedEventError
from event_handler.event import SESSION_ID, Event
from event_handler.pipeline.dedup import DuplicateWindow, fingerprint
from event_handler.pipeline.filters import Filter
from event_handler.pipeline.tracker import PendingRecording
from event_handler.state.store import DeadLetter
from event_handler.teleport.wire.beginning import Beginning
from event_handler.teleport.wire.decode import RawEvent, convert, read_code, read_envelope, read_event, stable_id

UPLOADED = "session.upload"
ENDED = frozenset({"session.end", "windows.desktop.session.end", "db.session.end"})
UNDECODABLE = "undecodable"  # key of a dead letter's body that holds the bytes as they came
BEGINNING = "beginning"  # key of a dead letter's body that holds the first bytes only
ANNOUNCING = (UPLOADED, *sorted(ENDED))


@dataclass(slots=True)
class Selection:
    """The outcome for a run of wire events.

    what to deliver (with fingerprints), what is dead, what recordings they announce.
    """

    events: list[tuple[Event, bytes]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    recordings: list[PendingRecording] = field(default_factory=list)


class Selector:
    """Filters of one sink: `types` and `skip_types` for the audit log, `skip_session_types` for recordings.

    `recordings`: whether sessions that have one are announced.
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
        self._audit = Filter(types, skip_types)
        self._recorded = Filter(skip=skip_session_types)
        self._recordings = recordings
        self.duplicates = 0

    def select(self, wires: Iterable[bytes], session_id: str = "") -> Selection:
        """Select from undecoded events, those of the recording `session_id` where it is given."""
        chosen = Selection()
        for wire in wires:
            self._one_or_dead(wire, session_id, chosen)
        return chosen

    def _one_or_dead(self, wire: bytes, session_id: str, chosen: Selection) -> None:
        if isinstance(wire, Beginning):
            self._too_large(wire, session_id, chosen)
            return
        try:
            self._one(read_event(wire), session_id, chosen)
        except (
            Exception
        ) as error:  # bytes that are no event, or a fault of our own code: neither may stop the events behind it
            reason = (
                str(error)
                if isinstance(error, MalformedEventError)
                else f"cannot be read ({type(error).__name__}: {error})"
            )
            body = orjson.dumps({UNDECODABLE: base64.b64encode(wire).decode()})
            self._dead_letter(DeadLetter(self._sink, reason, "", stable_id(body), session_id, body), chosen)

    def _too_large(self, beginning: Beginning, session_id: str, chosen: Selection) -> None:
        """Of an event that cannot be taken in whole the beginning is kept, unless its type is not wanted.

        Its code is not known.
        """
        try:
            raw = read_envelope(beginning)
        except MalformedEventError:
            raw = RawEvent("", "", 0.0, 0, b"")
        of_sink = self._recorded if session_id else self._audit
        if raw.type and not of_sink.needs_code and not of_sink.wants(raw.type, ""):
            return
        reason = (
            f"an event of {beginning.size} bytes is too large to be delivered; the whole of it is in the "
            f"cluster's audit log only"
        )
        body = orjson.dumps({BEGINNING: base64.b64encode(beginning).decode()})
        name = named(raw.id, body)
        self._dead_letter(DeadLetter(self._sink, reason, raw.type, name, session_id, body, raw.time, raw.index), chosen)

    def release_dead_letters(self, letters: Iterable[DeadLetter]) -> None:
        """Forget dead letters that were never handed on."""
        self.release(dead_letter_key(letter) for letter in letters)

    def _dead_letter(self, letter: DeadLetter, chosen: Selection) -> None:
        """Once only: the tail of a search reads the same events again and again."""
        dedup_key = dead_letter_key(letter)
        if dedup_key not in self._window:
            self._window.add(dedup_key)
            chosen.dead.append(letter)

    def release(self, dedup_keys: Iterable[bytes]) -> None:
        """Forget events that were selected but never handed on, so that they count as new when they are read again."""
        for dedup_key in dedup_keys:
            self._window.discard(dedup_key)

    def _one(self, raw: RawEvent, session_id: str, chosen: Selection) -> None:
        if session_id:
            if not _wanted(self._recorded, raw):
                return
        else:
            announces = self._recordings and raw.type in ANNOUNCING
            wanted = _wanted(self._audit, raw)
            if announces:
                self._note_recording(raw, chosen)
            if not wanted:
                return
        known = _has_uid(raw.content, raw.id)  # then a duplicate is found without reading its content
        if known and self._is_duplicate(_dedup_key(raw, raw.id, session_id)):
            return
        body, uid = convert(raw.content)
        name = named(uid, body)
        # The server's id of an event without uid is made up for this one read, but in a recording it is a hash of the
        # content.
        dedup_key = _dedup_key(raw, raw.id if session_id and not uid.strip() and raw.id.strip() else name, session_id)
        if not known and self._is_duplicate(dedup_key):
            return
        self._window.add(dedup_key)
        chosen.events.append((Event(raw.type, name, raw.time, raw.index, body, session_id), dedup_key))

    def _is_duplicate(self, dedup_key: bytes) -> bool:
        found = dedup_key in self._window
        self.duplicates += found
        return found

    def _note_recording(self, raw: RawEvent, chosen: Selection) -> None:
        body, uid = convert(raw.content)
        content = orjson.loads(body)
        session = content.get("sid")
        if content.get("session_recording") == "off" or content.get("recorded") is False:
            return
        if not session and raw.type != UPLOADED:
            return  # only an upload is certain to have a recording
        if not isinstance(session, str) or not SESSION_ID.fullmatch(session):
            reason = (
                f"the {raw.type} event has no usable session id ({session!r}), so its recording cannot be asked for"
            )
            self._dead_letter(
                DeadLetter("recordings", reason, raw.type, named(uid, body), "", body, raw.time, raw.index), chosen
            )
            return
        chosen.recordings.append(PendingRecording(session, raw.time, raw.type == UPLOADED))


def _wanted(of_sink: Filter, raw: RawEvent) -> bool:
    return of_sink.wants(raw.type, read_code(raw.content) if of_sink.needs_code else "")


def _dedup_key(raw: RawEvent, name: str, session_id: str) -> bytes:
    return fingerprint(f"{session_id}/{raw.index}/{name}" if session_id else name)


def named(uid: str, body: bytes) -> str:
    """The id of an event: its uid, and a hash of its content where it has none."""
    return uid if uid.strip() else stable_id(body)


def _has_uid(content: bytes, uid: str) -> bool:
    """Whether the Struct `content` has the entry `uid` with that value, as its bytes are usually laid out.

    The id beside the content is the uid again. Where it is missing or another one, the content decides: events that
    differ there are different events.
    """
    data = uid.encode()
    size = len(data)
    if size > 120 or not uid.strip():  # the lengths below have one byte
        return False
    return b"\x0a\x03uid\x12" + bytes((size + 2, 0x1A, size)) + data in content


def dead_letter_key(letter: DeadLetter) -> bytes:
    """What is remembered of a letter for which there is no event, so that the same bytes read again make no second
    one.
    """
    return fingerprint(f"{letter.sink} dead letter {letter.id}")
