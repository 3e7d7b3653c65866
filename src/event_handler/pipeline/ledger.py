"""Keeps the order of what was read, so that a position is remembered only when everything before it has been delivered.

One ledger per stream: a chunk, a search, a recording. The source cuts what it reads into segments, in order; batches are
acknowledged in any order; the ledger moves over the contiguous acknowledged prefix and tells the newest position reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Announcement:
    """A session whose recording is to be fetched. `uploaded` tells a `session.upload` from the end of a session."""

    session_id: str
    time: float
    uploaded: bool


@dataclass(slots=True, eq=False)
class Segment:
    """A contiguous run of one stream. `pending` counts the events of it that are not yet delivered.

    `position` is remembered when the segment and all before it are done; None keeps the older one (in the middle of a page).
    `announcements` are the recordings that its events announce.
    """

    ledger: Ledger
    position: str | None
    pending: int = 0
    announcements: list[Announcement] = field(default_factory=list)


class Ledger:
    """The segments of one stream in the order they were read. `stream` is the key under which the position is stored."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._open: dict[Segment, None] = {}

    def add(self, segment: Segment) -> None:
        self._open[segment] = None

    @property
    def drained(self) -> bool:
        return not self._open

    def peek(self) -> tuple[str | None, list[Segment]]:
        """The finished prefix: the newest position in it (None: unchanged) and its segments."""
        position: str | None = None
        finished: list[Segment] = []
        for segment in self._open:
            if segment.pending:
                break
            finished.append(segment)
            if segment.position is not None:
                position = segment.position
        return position, finished

    def advance(self) -> None:
        """Take the finished prefix off, once it has been remembered."""
        for segment in self.peek()[1]:
            del self._open[segment]
