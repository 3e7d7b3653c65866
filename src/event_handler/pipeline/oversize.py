"""Makes events fit that are larger than a receiver takes: by the one policy that the user has chosen for the sink."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import orjson

from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Notes, Partial, Reject, Remembering, Retry, Sink, Split, Verdict

OverLimit = Literal["dead-letter", "truncate", "split"]
TRUNCATED, PART, PARTS = "teleport_truncated", "teleport_part", "teleport_parts"  # no fields of Teleport's
SHORTEST_CUT = 64  # characters that a string keeps at least when it is cut; what has only shorter ones is not cut
CUT_MARK = "…[{:,} characters cut]"
PART_FIELDS = 80  # bytes that the number of a part takes at most in its body
ROOM_FOR_PIECES = 0.25  # of the limit that must be left for a part's piece of the string, or there are too many parts


class FittingSink:
    """A sink before which events of more than `largest` bytes are cut, split, or refused with the reason."""

    def __init__(self, sink: Sink, largest: int, policy: OverLimit) -> None:
        self.name = sink.name
        self.limits: Limits = sink.limits
        self._sink = sink
        self._largest = largest
        self._policy = policy

    async def remember_in(self, notes: Notes) -> None:
        if isinstance(self._sink, Remembering):
            await self._sink.remember_in(notes)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        large = [place for place, event in enumerate(events) if len(event.body) > self._largest]
        if not large:
            return await self._sink.deliver(events)
        answers = _Answers()
        small: dict[int, Event] = {place: event for place, event in enumerate(events) if place not in large}
        for place in large:
            parts = self._fitted(events[place])
            if not parts:
                answers.rejected[place] = self._reason(events[place])
            elif len(parts) == 1:
                small[place] = parts[0]
            else:
                await self._send_parts(place, parts, answers)
        if small:
            places = sorted(small)
            verdict = await self._sink.deliver([small[place] for place in places])
            if isinstance(verdict, Reject | Split) and len(events) > 1:  # they come again in halves
                return verdict
            answers.add(places, verdict)
        return answers.verdict(len(events))

    def _fitted(self, event: Event) -> list[Event]:
        if self._policy == "truncate":
            return truncated(event, self._largest)
        return split(event, self._largest) if self._policy == "split" else []

    async def _send_parts(self, place: int, parts: list[Event], answers: _Answers) -> None:
        for group in _groups(parts, self.limits):
            verdict = await self._sink.deliver(group)
            if not isinstance(verdict, Delivered):
                answers.add_of_parts(place, verdict)
                return

    def _reason(self, event: Event) -> str:
        why = "" if self._policy == "dead-letter" else f", and it cannot be made smaller by over-limit={self._policy}"
        return f"the event has {len(event.body):,} bytes, more than the {self._largest:,} that are taken{why}"

    async def reopen(self) -> None:
        await self._sink.reopen()

    async def close(self) -> None:
        await self._sink.close()


class _Answers:
    """What several calls of the sink have said, as one verdict."""

    def __init__(self) -> None:
        self.rejected: dict[int, str] = {}
        self._retry: set[int] = set()
        self._why = Retry("")

    def add(self, places: list[int], verdict: Verdict) -> None:
        if isinstance(verdict, Partial):
            self._retry |= {places[place] for place in verdict.retry}
            self.rejected |= {places[place]: reason for place, reason in verdict.rejected.items()}
            if verdict.retry:
                self._why = Retry(verdict.reason, verdict.after, verdict.misconfigured)
        elif isinstance(verdict, Retry):
            self._retry |= set(places)
            self._why = verdict
        elif isinstance(verdict, Reject | Split):
            self.rejected[places[0]] = verdict.reason

    def add_of_parts(self, place: int, verdict: Verdict) -> None:
        """A part of an event was not taken, so that the event is not."""
        if isinstance(verdict, Partial) and verdict.rejected:
            verdict = Reject(next(iter(verdict.rejected.values())))
        elif isinstance(verdict, Partial):
            verdict = Retry(verdict.reason, verdict.after, verdict.misconfigured)
        self.add([place], verdict)

    def verdict(self, count: int) -> Verdict:
        if not self._retry and not self.rejected:
            return Delivered()
        if len(self._retry) == count:
            return self._why
        return Partial(
            frozenset(self._retry), self.rejected, self._why.reason, self._why.after, self._why.misconfigured
        )


def _groups(parts: list[Event], limits: Limits) -> Iterator[list[Event]]:
    group: list[Event] = []
    for part in parts:
        if group and (len(group) >= limits.events or sum(len(p.body) for p in [*group, part]) > limits.bytes):
            yield group
            group = []
        group.append(part)
    yield group


def truncated(event: Event, largest: int) -> list[Event]:
    """The event with its longest strings cut to the same length, each with a mark; [] where that is not enough."""
    content = orjson.loads(event.body)
    content[TRUNCATED] = True
    low, high = SHORTEST_CUT, len(event.body)
    body = b""
    while low <= high:
        middle = (low + high) // 2
        tried = orjson.dumps(_cut(content, middle))
        if len(tried) <= largest:
            body, low = tried, middle + 1
        else:
            high = middle - 1
    return [_with_body(event, event.id, body)] if body else []


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str) and len(value) > longest:
        return value[:longest] + CUT_MARK.format(len(value) - longest)
    if isinstance(value, dict):
        return {key: _cut(one, longest) for key, one in value.items()}
    if isinstance(value, list):
        return [_cut(one, longest) for one in value]
    return value


def split(event: Event, largest: int) -> list[Event]:
    """The event several times, each with a piece of its longest string and the number of the part; [] where that does
    not make it small enough.
    """
    content = orjson.loads(event.body)
    found = max(_strings(content), key=lambda one: len(one[2]), default=None)
    if found is None:
        return []
    holder, key, text = found
    holder[key] = ""
    room = largest - len(orjson.dumps(content)) - PART_FIELDS
    if room < ROOM_FOR_PIECES * largest:
        return []
    pieces = list(_pieces(text, room))
    parts = []
    for number, piece in enumerate(pieces, 1):
        holder[key] = piece
        body = orjson.dumps({PART: number, PARTS: len(pieces), **content})
        parts.append(_with_body(event, f"{event.id}#{number}", body))
    return parts


def _strings(value: Any) -> Iterator[tuple[Any, Any, str]]:
    """Every string below a value: what holds it, by which key, and the string."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        if isinstance(one, str):
            yield value, key, one
        else:
            yield from _strings(one)


def _pieces(text: str, room: int) -> Iterator[str]:
    """The text in pieces, each of which takes at most so many bytes in JSON."""
    while text:
        length = min(len(text), room)
        while len(orjson.dumps(text[:length])) > room:
            length = length * 2 // 3
        yield text[:length]
        text = text[length:]


def _with_body(event: Event, id: str, body: bytes) -> Event:
    return Event(event.type, id, event.time, event.index, body, event.session_id)
