"""How far a cluster has been read and delivered: places in its log as types, whoever remembers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from typing import Final
from uuid import UUID

DONE: Final = "done"  # the cursor of a chunk that was read whole; Athena's own cursors are `a1:<number>`


class Mode(Enum):
    """How the log of a cluster is read."""

    BULK = "bulk"
    SEARCH = "search"


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """A chunk of bulk export: the UTC day that it belongs to, and its name."""

    day: date
    name: str

    @property
    def made(self) -> float | None:
        """When it was made, in seconds since the epoch; None when its name does not tell (a UUIDv7 does)."""
        try:
            return (UUID(self.name).int >> 80) / 1000
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Recording:
    """The recording of a session."""

    session_id: str


@dataclass(frozen=True, slots=True)
class ChunkCheckpoint:
    """Everything of the chunk before `cursor` is delivered; DONE: all of it."""

    chunk: Chunk
    cursor: str


@dataclass(frozen=True, slots=True)
class SearchCheckpoint:
    """Every event before `time` (seconds since the epoch) is delivered."""

    time: float


@dataclass(frozen=True, slots=True)
class RecordingCheckpoint:
    """Every event of the recording with an index below `index` is delivered."""

    recording: Recording
    index: int


Checkpoint = ChunkCheckpoint | SearchCheckpoint | RecordingCheckpoint


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the log was read for one sink. Times are seconds since the epoch.

    `mode` is None before the first reading. By search, every event before `searched` is delivered, nothing before
    `floor` is looked for, and `last_id` is the last event that the Go plugin has delivered. By bulk export, `first_day`
    is the first day that is still polled (None: that of the start), `closed_days` are later ones that need not be, and
    `chunks` has the cursor, or DONE, of every chunk of a polled day that was begun.
    """

    mode: Mode | None = None
    searched: float | None = None
    floor: float | None = None
    last_id: str = ""
    first_day: date | None = None
    closed_days: frozenset[date] = frozenset()
    chunks: Mapping[Chunk, str] = field(default_factory=dict)

    @property
    def polled_since(self) -> float | None:
        """The start of the first day that is still polled, before which everything is delivered.

        None while that is the start time.
        """
        return None if self.first_day is None else begin_of(self.first_day)

    @property
    def newest_day(self) -> date | None:
        """The last day of which a chunk was begun."""
        return max((chunk.day for chunk in self.chunks), default=None)

    def cursor(self, chunk: Chunk) -> str:
        """Where the reading of a chunk goes on, "" at its start; DONE also for chunks of days that are closed."""
        if chunk.day in self.closed_days or (self.first_day is not None and chunk.day < self.first_day):
            return DONE
        return self.chunks.get(chunk, "")


def day_of(seconds: float) -> date:
    """The UTC day of a time in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).date()


def begin_of(day: date) -> float:
    """When a UTC day begins, in seconds since the epoch."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
