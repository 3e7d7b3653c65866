"""Remembers the ids of the newest delivered events in a few megabytes, so that an event read again is not sent
again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from event_handler.event import MARK

BUCKETS: Final = 65_536  # a power of two; a fingerprint is looked for among the fifty or so that share its bucket
KEPT: Final = 56  # fingerprints of a bucket, which are the newest 2,000,000 of all, for they fall evenly on the buckets


class DuplicateWindow:
    """A bounded set of fingerprints: a bucket knows the newest `kept` of those that fall on it, and up to a quarter
    more.

    They lie one after the other in a byte string, which takes a tenth of the memory of a set. What the tail of a search
    reads again, and what it looks back at when it starts, must fit in: two million ids are six minutes of 5,000
    events/s.
    """

    def __init__(self, buckets: int = BUCKETS, kept: int = KEPT) -> None:
        self._buckets = [bytearray() for _ in range(buckets)]
        self._last = buckets - 1
        self._kept = MARK * kept
        self._full = MARK * (kept + kept // 4 + 1)

    def __contains__(self, dedup_key: bytes) -> bool:
        # A match across two neighbours is as unlikely as one of two ids.
        return dedup_key in self._bucket(dedup_key)

    def add(self, dedup_key: bytes) -> None:
        bucket = self._bucket(dedup_key)
        bucket += dedup_key
        if len(bucket) >= self._full:
            del bucket[: -self._kept]

    def discard(self, dedup_key: bytes) -> None:
        """Forget an id whose event was not delivered after all."""
        bucket = self._bucket(dedup_key)
        bucket[:] = bucket.replace(dedup_key, b"")

    def load(self, groups: Iterable[bytes]) -> None:
        """Fill the window from packed groups, oldest first."""
        for group in groups:
            for at in range(0, len(group) - MARK + 1, MARK):
                self.add(group[at : at + MARK])

    def _bucket(self, dedup_key: bytes) -> bytearray:
        return self._buckets[(dedup_key[0] << 8 | dedup_key[1]) & self._last]
