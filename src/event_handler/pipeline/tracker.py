"""Keeps the order of what was read, so that a checkpoint is remembered only when everything before it has been
delivered.

One tracker per stream: a chunk, a search, a recording. The source cuts what it reads into spans, in order; batches are
acknowledged in any order; the tracker moves over the contiguous acknowledged prefix to the newest checkpoint in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from event_handler.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class PendingRecording:
    """A session whose recording is to be fetched. `uploaded` tells a `session.upload` from the end of a session."""

    session_id: str
    time: float
    uploaded: bool


@dataclass(slots=True, eq=False)
class Span:
    """A contiguous run of one stream. `pending` counts the events of it that are not yet delivered.

    `checkpoint` is remembered when the span and all before it are done; None keeps the older one (in the middle of a
    page). `recordings` are those that its events announce. Once it is `fixed` it is being remembered.
    """

    tracker: CheckpointTracker
    checkpoint: Checkpoint | None
    pending: int = 0
    recordings: list[PendingRecording] = field(default_factory=list)
    fixed: bool = False

    def finish(self, events: int) -> None:
        """So many of its events are delivered, are dead letters, or go to nobody."""
        self.pending -= events


class CheckpointTracker:
    """The spans of one stream in the order they were read.

    A stream may be read at several places side by side: each has a part of its own, made by `split`, and together they
    are one tracker in the order of the parts. The checkpoint moves into a part only when all parts before it are closed
    and delivered.
    """

    def __init__(self) -> None:
        self._open: dict[Span, None] = {}
        self._closed = False
        self._parts = [self]  # shared by all parts
        self.root = self  # the first part, which stands for all

    def split(self) -> CheckpointTracker:
        """A new part right behind this one."""
        part = CheckpointTracker()
        part._parts, part.root = self._parts, self.root
        self._parts.insert(self._parts.index(self) + 1, part)
        return part

    def close(self) -> None:
        """Nothing more belongs into this part. What is added all the same comes behind all parts."""
        self._closed = True

    def add(self, span: Span) -> None:
        """Add the next span. While a sink is down, what brings nothing but a checkpoint takes no more memory."""
        part = self._parts[-1] if self._closed else self
        last = next(reversed(part._open), None)
        if last is None or last.fixed or last.pending or span.pending or last.recordings or span.recordings:
            part._open[span] = None
        elif span.checkpoint is not None:
            last.checkpoint = span.checkpoint

    @property
    def drained(self) -> bool:
        return not any(part._open for part in self._parts)

    def finished(self) -> tuple[Checkpoint | None, list[Span]]:
        """The finished prefix, to be remembered: the newest checkpoint in it (None: unchanged) and its spans, which
        change no more.
        """
        checkpoint: Checkpoint | None = None
        finished: list[Span] = []
        for part in self._parts:
            for span in part._open:
                if span.pending:
                    return checkpoint, finished
                span.fixed = True
                finished.append(span)
                if span.checkpoint is not None:
                    checkpoint = span.checkpoint
            if not part._closed:
                break
        return checkpoint, finished

    def advance(self, finished: list[Span]) -> None:
        """Take a prefix off, once it has been remembered."""
        for span in finished:
            while span not in self._parts[0]._open:
                del self._parts[0]  # closed, and nothing of it is left
            del self._parts[0]._open[span]
