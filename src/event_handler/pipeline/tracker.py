"""Keeps the order of what was read, so that a position is remembered only when everything before it has been delivered.

One ledger per stream: a chunk, a search, a recording. The source cuts what it reads into segments, in order; batches
are acknowledged in any order; the ledger moves over the contiguous acknowledged prefix and tells the newest position
reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PendingRecording:
    """A session whose recording is to be fetched. `uploaded` tells a `session.upload` from the end of a session."""

    session_id: str
    time: float
    uploaded: bool


@dataclass(slots=True, eq=False)
class Span:
    """A contiguous run of one stream. `pending` counts the events of it that are not yet delivered.

    `position` is remembered when the segment and all before it are done; None keeps the older one (in the middle of a
    page).
    `announcements` are the recordings that its events announce.
    """

    tracker: CheckpointTracker
    position: str | None
    pending: int = 0
    recordings: list[PendingRecording] = field(default_factory=list)


class CheckpointTracker:
    """The segments of one stream in the order they were read. `stream` is the key under which the position is stored.

    A stream may be read at several places side by side: each has a part of its own, made by `split`, and together they
    are one ledger in the order of the parts. The position moves into a part only when all parts before it are closed
    and delivered.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._open: dict[Span, None] = {}
        self._closed = False
        self._parts = [self]  # shared by all parts

    def split(self) -> CheckpointTracker:
        """A new part right behind this one."""
        part = CheckpointTracker(self.stream)
        part._parts = self._parts
        self._parts.insert(self._parts.index(self) + 1, part)
        return part

    def close(self) -> None:
        """Nothing more belongs into this part. What is added all the same comes behind all parts."""
        self._closed = True

    def add(self, span: Span) -> None:
        """Add the next span. While a sink is down, what brings nothing but a position takes no more memory."""
        part = self._parts[-1] if self._closed else self
        last = next(reversed(part._open), None)
        if last is None or last.pending or span.pending or last.recordings or span.recordings:
            part._open[span] = None
        elif span.position is not None:
            last.position = span.position

    @property
    def drained(self) -> bool:
        return not any(part._open for part in self._parts)

    def peek(self) -> tuple[str | None, list[Span]]:
        """The finished prefix: the newest position in it (None: unchanged) and its segments."""
        position: str | None = None
        finished: list[Span] = []
        for part in self._parts:
            for span in part._open:
                if span.pending:
                    return position, finished
                finished.append(span)
                if span.position is not None:
                    position = span.position
            if not part._closed:
                break
        return position, finished

    def advance(self) -> None:
        """Take the finished prefix off, once it has been remembered."""
        for span in self.peek()[1]:
            while span not in self._parts[0]._open:
                del self._parts[0]  # closed, and nothing of it is left
            del self._parts[0]._open[span]
