"""Remembers the ids of the newest delivered events in a few megabytes, so that an event read again is not sent again."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

GENERATION = 125_000  # ids; two generations are kept, so the window is between one and two of them


def fingerprint(event_id: str) -> bytes:
    """8 bytes of an id; a new id is taken for one of a quarter of a million others with a chance of about 1 in 10^13."""
    return blake2b(event_id.encode(), digest_size=8).digest()


class DuplicateWindow:
    """A bounded set of fingerprints: the newest `generation` to 2 x `generation` ones.

    The newer generation is a set; the older one a sorted array, which takes a tenth of the memory.
    """

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._new: set[int] = set()
        self._old = array("Q")

    def __contains__(self, mark: bytes) -> bool:
        number = int.from_bytes(mark)
        if number in self._new:
            return True
        place = bisect_left(self._old, number)
        return place < len(self._old) and self._old[place] == number

    def add(self, mark: bytes) -> None:
        self._new.add(int.from_bytes(mark))
        if len(self._new) >= self._generation:
            self._old, self._new = array("Q", sorted(self._new)), set()

    def discard(self, mark: bytes) -> None:
        """Forget an id whose event was not delivered after all."""
        number = int.from_bytes(mark)
        self._new.discard(number)
        place = bisect_left(self._old, number)
        if place < len(self._old) and self._old[place] == number:
            del self._old[place]

    def load(self, groups: Iterable[bytes]) -> None:
        """Fill the window from packed groups, oldest first."""
        for group in groups:
            for at in range(0, len(group) - 7, 8):
                self.add(group[at : at + 8])
