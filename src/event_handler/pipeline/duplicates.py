"""Remembers the ids of the newest delivered events in a few megabytes, so that an event read again is not sent again."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

GENERATION = 125_000  # ids; two generations are kept, so the window is between one and two of them


def fingerprint(event_id: str) -> bytes:
    """8 bytes of an id; a new id is taken for one of a quarter of a million others with a chance of about 1 in 10^13."""
    return blake2b(event_id.encode(), digest_size=8).digest()


class DuplicateWindow:
    """A bounded set of fingerprints: the newest `generation` to 2 x `generation` ones."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, mark: bytes) -> bool:
        return mark in self._new or mark in self._old

    def add(self, mark: bytes) -> None:
        self._new.add(mark)
        if len(self._new) >= self._generation:
            self._old, self._new = self._new, set()

    def discard(self, mark: bytes) -> None:
        """Forget an id whose event was not delivered after all."""
        self._new.discard(mark)
        self._old.discard(mark)

    def load(self, groups: Iterable[bytes]) -> None:
        """Fill the window from packed groups, oldest first."""
        for group in groups:
            for at in range(0, len(group) - 7, 8):
                self.add(group[at : at + 8])
