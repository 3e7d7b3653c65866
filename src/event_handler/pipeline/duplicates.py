"""Remembers the ids of the newest delivered events in a few megabytes, so that an event read again is not sent again."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

GENERATION = 125_000  # ids; two generations are kept, so the window is between one and two of them
BUCKETS = 4096  # of the older generation; some thirty fingerprints in each are found as quickly as one


def fingerprint(event_id: str) -> bytes:
    """8 bytes of an id; a new id is taken for one of a quarter of a million others with a chance of about 1 in 10^13."""
    return blake2b(event_id.encode(), digest_size=8).digest()


class DuplicateWindow:
    """A bounded set of fingerprints: the newest `generation` to 2 x `generation` ones.

    The newer generation is a set. The older one takes a tenth of its memory: fingerprints one after the other in byte strings, in
    the one that their first twelve bits name.
    """

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._new: set[bytes] = set()
        self._old = [b""] * BUCKETS

    def __contains__(self, mark: bytes) -> bool:
        # A match across two neighbours is as unlikely as one of two ids.
        return mark in self._new or mark in self._old[_bucket(mark)]

    def add(self, mark: bytes) -> None:
        self._new.add(mark)
        if len(self._new) >= self._generation:
            old = [b""] * BUCKETS
            for kept in self._new:
                old[_bucket(kept)] += kept
            self._old, self._new = old, set()

    def discard(self, mark: bytes) -> None:
        """Forget an id whose event was not delivered after all."""
        self._new.discard(mark)
        place = _bucket(mark)
        self._old[place] = self._old[place].replace(mark, b"")

    def load(self, groups: Iterable[bytes]) -> None:
        """Fill the window from packed groups, oldest first."""
        for group in groups:
            for at in range(0, len(group) - 7, 8):
                self.add(group[at : at + 8])


def _bucket(mark: bytes) -> int:
    return mark[0] << 4 | mark[1] >> 4
