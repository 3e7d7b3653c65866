"""Checkpoints in short: `{"bulk/2026-01-01/c": "a1:3"}`, `{"search": "5.0"}`, `{"recording/s": "7"}`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from event_handler.checkpoint import (
    Checkpoint,
    Chunk,
    ChunkCheckpoint,
    Recording,
    RecordingCheckpoint,
    SearchCheckpoint,
)
from event_handler.ports import Commit, StateStore


def stream_of(text: str) -> Chunk | Recording | None:
    """What a stream is of: a chunk, a recording, or a search."""
    kind, _, rest = text.partition("/")
    if kind == "bulk":
        day, _, name = rest.partition("/")
        return Chunk(date.fromisoformat(day), name)
    return Recording(rest) if kind == "recording" else None


def checkpoint(stream: str, position: str) -> Checkpoint:
    of = stream_of(stream)
    if isinstance(of, Chunk):
        return ChunkCheckpoint(of, position)
    return SearchCheckpoint(float(position)) if of is None else RecordingCheckpoint(of, int(position))


def places(positions: Mapping[str, str]) -> list[Checkpoint]:
    return [checkpoint(stream, position) for stream, position in positions.items()]


async def positions(store: StateStore, prefix: str = "") -> dict[str, str]:
    """The positions of the chunks and of the search that a state has, of streams that begin with `prefix`."""
    progress = await store.progress()
    found = {f"bulk/{chunk.day}/{chunk.name}": cursor for chunk, cursor in progress.chunks.items()}
    if progress.searched is not None:
        found["search"] = repr(progress.searched)
    return {stream: position for stream, position in found.items() if stream.startswith(prefix)}


async def remember(store: StateStore, name: str, value: str) -> None:
    await store.commit(Commit(notes={name: value}))


CHUNK = "bulk/2026-01-01/c"


def mark(position: str) -> Checkpoint:
    """A place in some chunk."""
    return checkpoint(CHUNK, position)


async def read_position(store: StateStore) -> float | None:
    """The time up to which a search has delivered everything."""
    return (await store.progress()).searched
