"""An event on its way through a pipeline: compiled, for every event that is delivered becomes one."""

from __future__ import annotations

from typing import Final

from event_handler.event import Event
from event_handler.pipeline.tracker import CheckpointTracker, Span

EVENT_OVERHEAD: Final = 400  # bytes that an event costs in memory beside its body
COPIES: Final = 2  # of the body: the event's own, and the one in the request


class Entry:
    """An event on its way, with the fingerprint of its id and the span that waits for it.

    `original` is the event as it was read, where transforms have made another one of it. `size` are the bytes that it
    takes while it is in flight, `length` those of its body.
    """

    def __init__(self, event: Event, dedup_key: bytes, span: Span, original: Event | None = None) -> None:
        self.event = event
        self.dedup_key = dedup_key
        self.span = span
        self.original = original
        self.length = len(event.body)
        size = COPIES * self.length + EVENT_OVERHEAD
        self.size = size if original is None else size + len(original.body)

    @property
    def as_read(self) -> Event:
        return self.original or self.event


def total_size(entries: list[Entry]) -> int:
    """Bytes that these take together while they are in flight."""
    size = 0
    for entry in entries:
        size += entry.size
    return size


def total_length(entries: list[Entry]) -> int:
    """Bytes of their bodies."""
    length = 0
    for entry in entries:
        length += entry.length
    return length


def how_many_fit(entries: list[Entry], most: int, most_bytes: int) -> int:
    """How many of the first entries have together at most so many bytes of bodies, and are at most so many; one at
    least.
    """
    for number, entry in enumerate(entries):
        most_bytes -= entry.length
        if number and (most_bytes < 0 or number >= most):
            return number
    return len(entries)


def dedup_keys(entries: list[Entry]) -> list[bytes]:
    return [entry.dedup_key for entry in entries]


def newest(entries: list[Entry]) -> float:
    """The time of the newest event, in seconds since the epoch."""
    time = 0.0
    for entry in entries:
        if entry.event.time > time:
            time = entry.event.time
    return time


def finish(entries: list[Entry]) -> dict[CheckpointTracker, None]:
    """Count these down in their spans; return the trackers that this may move."""
    touched: dict[CheckpointTracker, None] = {}
    for entry in entries:
        span = entry.span
        span.finish(1)
        touched[span.tracker.root] = None
    return touched
