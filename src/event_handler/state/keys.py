"""What checkpoints are called in the tables of a state file: the only place that knows these texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date

from event_handler.checkpoint import (
    Checkpoint,
    Chunk,
    Mode,
    Progress,
    RecordingCheckpoint,
    SearchCheckpoint,
)

CLUSTER, START_TIME, MODE = "cluster", "start_time", "mode"  # facts
FIRST_DAY, CLOSED_DAYS = "bulk_from", "bulk_closed"  # facts
FLOOR, LAST_ID = "search_floor", "search_last_id"  # facts
SEARCH = "search"  # stream; chunks are `bulk/<day>/<name>`
_BULK = "bulk/"


def position_of(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """Stream and position, None for a recording, which has them in its own table."""
    if isinstance(checkpoint, RecordingCheckpoint):
        return None
    if isinstance(checkpoint, SearchCheckpoint):
        return SEARCH, repr(checkpoint.time)
    return stream_of(checkpoint.chunk), checkpoint.cursor


def chunks_before(day: date) -> tuple[str, str]:
    """The range of streams that the chunks of earlier days are in: from the first on, before the second."""
    return _BULK, f"{_BULK}{day}"


def chunk_of(stream: str) -> Chunk:
    """Raises ValueError when the text names no chunk."""
    kind, day, name = stream.split("/", 2)
    if f"{kind}/" != _BULK:
        raise ValueError(stream)
    return Chunk(date.fromisoformat(day), name)


def progress(facts: Mapping[str, str], positions: Iterable[tuple[str, str]]) -> Progress:
    """What a state file says. Raises ValueError where that makes no sense, which is looked for when it is opened."""
    by_stream = dict(positions)
    searched = by_stream.pop(SEARCH, "")
    return Progress(
        Mode(facts[MODE]) if facts.get(MODE) else None,
        float(searched) if searched else None,
        float(facts[FLOOR]) if facts.get(FLOOR) else None,
        facts.get(LAST_ID, ""),
        date.fromisoformat(facts[FIRST_DAY]) if facts.get(FIRST_DAY) else None,
        frozenset(date.fromisoformat(day) for day in facts.get(CLOSED_DAYS, "").split()),
        {chunk_of(stream): cursor for stream, cursor in by_stream.items() if stream.startswith(_BULK)},
    )


def facts_of(progress: Progress) -> dict[str, str]:
    return {
        MODE: progress.mode.value if progress.mode else "",
        FIRST_DAY: str(progress.first_day or ""),
        CLOSED_DAYS: " ".join(str(day) for day in sorted(progress.closed_days)),
        FLOOR: "" if progress.floor is None else repr(progress.floor),
        LAST_ID: progress.last_id,
    }


def positions_of(progress: Progress) -> Iterator[tuple[str, str]]:
    """Stream and position of all that has one."""
    if progress.searched is not None:
        yield SEARCH, repr(progress.searched)
    for chunk, cursor in progress.chunks.items():
        yield stream_of(chunk), cursor


def stream_of(chunk: Chunk) -> str:
    """What the position of a chunk is called."""
    return f"{_BULK}{chunk.day}/{chunk.name}"
