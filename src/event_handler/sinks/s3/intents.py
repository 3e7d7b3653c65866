"""Remembers which events are about to be in which object, so that none is in two after a crash.

An intent is written before its object is sent. What is in an object that the bucket has, or may have, is not sent in
another one; what became of an object whose answer never came is asked of the bucket.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from event_handler.ports import Commit, Notes
from event_handler.sinks.s3.objects import DIGEST_BYTES

# Batches, each in a note of its own. One may be forgotten when its events are remembered as delivered. The state writes
# in the order in which it is asked, so those of a batch that was answered are when some more were begun; of what
# another process began, the state knows. What it knows by another id (events of recordings without a uid) stays until
# there is no room.
FORGOTTEN_AFTER = 32  # batches that were begun since one was answered; twice as many as are ever on their way together
SLOTS = 128


@dataclass(slots=True, eq=False)
class Intent:
    """An object and the digests of its events, as far as they may come again.

    `stored` when the bucket was asked and has it. `unknown_since` is the clock's time from which on nobody sends it and
    nobody knows whether the bucket has it; None while it is on its way, and when it was answered. `doubtful` when it
    may be there from an earlier try, whatever is said about a later one. `kept` from when this process sends it until
    it is settled.
    """

    name: str
    digests: frozenset[bytes]
    stored: bool = False
    unknown_since: float | None = None
    doubtful: bool = False
    kept: bool = True

    def begin(self) -> None:
        """It is sent, perhaps once more."""
        self.unknown_since, self.kept = None, True

    def lost(self, now: float) -> None:
        """It may have arrived, and nobody knows."""
        self.unknown_since, self.doubtful = now, True

    def refused(self, now: float) -> None:
        """This try has surely not stored it; one before may have."""
        if self.doubtful:
            self.lost(now)
        else:
            self.settle()

    def found(self) -> None:
        """The bucket says that it has it."""
        self.stored, self.unknown_since, self.kept = True, None, False

    def settle(self) -> None:
        """Nothing is to be asked of it any more in this process: the bucket has taken it, or surely has not."""
        self.name, self.digests, self.unknown_since, self.kept = "", frozenset(), None, False


@dataclass(slots=True)
class Slot:
    """The intents of one batch; `number` counts the batches of a sink. `settled_at` is the number of the first batch
    that was begun when nothing of this one was open, 0 before.
    """

    number: int = 0
    intents: tuple[Intent, ...] = ()
    settled_at: int = 0

    @property
    def settled(self) -> bool:
        return not any(intent.digests for intent in self.intents)

    def just_settled(self, number: int) -> bool:
        """Whether its events may not be remembered as delivered yet, now that the batch of that number is begun."""
        return self.settled_at > number - FORGOTTEN_AFTER

    @property
    def kept(self) -> bool:
        return any(intent.kept for intent in self.intents)


class Intents:
    """The intents of a sink; until `load` was called, of this process only."""

    def __init__(self) -> None:
        self._notes: Notes | None = None
        self._slots = [Slot() for _ in range(SLOTS)]

    async def load(self, notes: Notes, now: float) -> None:
        """Take up what another process left. Raises StateError."""
        self._notes = notes
        self._slots = [read(await notes.note(_note_name(place)), now) for place in range(SLOTS)]
        if wanted := {digest for intent in self._all() for digest in intent.digests}:
            self.delivered(_among(wanted, await notes.delivered_ids()))
            self._slots = [Slot() if slot.settled else slot for slot in self._slots]

    async def begin(self, objects: Mapping[str, Sequence[bytes]]) -> list[Intent]:
        """Say which objects of one batch will be sent, with the digests of each.

        Raises StateError when that cannot be remembered, and then they must not be sent.
        """
        known = {intent.name: intent for intent in self._all()}
        new = tuple(Intent(name, frozenset(digests)) for name, digests in objects.items() if name not in known)
        if new:
            await self._write(new)
        begun = [known.get(name) or next(one for one in new if one.name == name) for name in objects]
        for intent in begun:
            intent.begin()
        return begun

    async def _write(self, intents: tuple[Intent, ...]) -> None:
        number = 1 + max(slot.number for slot in self._slots)
        for slot in self._slots:
            if slot.settled and not slot.settled_at:
                slot.settled_at = number
        place = min(range(SLOTS), key=lambda one: self._rank(self._slots[one], number))
        slot = self._slots[place] = Slot(number, intents)
        if self._notes is not None:
            try:
                await self._notes.commit(Commit(notes={_note_name(place): written(slot)}))
            except BaseException:
                self._slots[place] = Slot()
                raise

    def _rank(self, slot: Slot, number: int) -> tuple[int, int]:
        """What a new batch takes the place of first: one that may be forgotten, then none, then the oldest, at last one
        that this process sends.
        """
        if slot.number and slot.settled and not slot.just_settled(number):
            return 0, slot.number
        return (2 + slot.kept, slot.number) if slot.number else (1, 0)

    def delivered(self, digests: Iterable[bytes]) -> None:
        """These events come no more: nobody needs to know where they may be."""
        gone = frozenset(digests)
        for intent in self._all():
            if not intent.kept and not gone.isdisjoint(intent.digests):
                intent.digests -= gone
                if not intent.digests:
                    intent.settle()

    def stored(self) -> frozenset[bytes]:
        """The digests of events in objects of which the bucket was asked."""
        return frozenset().union(*(intent.digests for intent in self._all() if intent.stored))

    def unknown(self, digests: Iterable[bytes]) -> list[Intent]:
        """The intents with any of these of which nobody knows whether the bucket has the object."""
        open_ones = [intent for intent in self._all() if intent.unknown_since is not None]
        wanted = frozenset(digests) if open_ones else frozenset()
        return [intent for intent in open_ones if not wanted.isdisjoint(intent.digests)]

    def _all(self) -> Iterator[Intent]:
        return (intent for slot in self._slots for intent in slot.intents)


def _among(wanted: set[bytes], groups: Iterable[bytes]) -> Iterator[bytes]:
    for group in groups:
        for at in range(0, len(group), DIGEST_BYTES):
            if group[at : at + DIGEST_BYTES] in wanted:
                yield group[at : at + DIGEST_BYTES]


def _note_name(place: int) -> str:
    return f"s3-intent-{place}"


def written(slot: Slot) -> str:
    """A line with the number, then two for each object."""
    lines = [str(slot.number)]
    for intent in slot.intents:
        lines += [intent.name, base64.b64encode(b"".join(sorted(intent.digests))).decode()]
    return "\n".join(lines)


def read(text: str, now: float) -> Slot:
    """What a note holds; an empty slot for none, and for what is none."""
    number, *lines = text.split("\n")
    try:
        joined = [base64.b64decode(line, validate=True) for line in lines[1::2]]
    except ValueError:
        return Slot()
    whole = len(lines) == 2 * len(joined) > 0 and all(one and len(one) % DIGEST_BYTES == 0 for one in joined)
    if not (whole and number.isdecimal() and number.isascii()):
        return Slot()
    intents = [
        Intent(
            name,
            frozenset(one[place : place + DIGEST_BYTES] for place in range(0, len(one), DIGEST_BYTES)),
            unknown_since=now,
            doubtful=True,
            kept=False,
        )
        for name, one in zip(lines[::2], joined, strict=True)
    ]
    return Slot(int(number), tuple(intents))
