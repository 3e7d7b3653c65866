"""Where positions are kept: writable, with room, each state whole, and whose it is."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from time import time

from event_handler.config.model import StartSettings
from event_handler.errors import EventHandlerError
from event_handler.runtime.check.finding import Finding, fault, ok, warning
from event_handler.runtime.reporting import free_bytes
from event_handler.runtime.state_bucket import S3Bucket
from event_handler.state.bucket import is_bucket, object_of, read_only
from event_handler.state.directory import state_directory
from event_handler.state.keys import CLUSTER
from event_handler.state.lock import LOCK, holder_of
from event_handler.state.places import places_in
from event_handler.state.postgresql.replica import clock_of, replicas_of
from event_handler.state.postgresql.session import is_database, shown_place
from event_handler.state.sqlite import FILE, SqliteStore

STORAGE_AREA = "storage"
CLOCKS_APART = 5.0  # seconds
ROOM = 512 * 1024 * 1024  # bytes; dead letters of a bad day have room in it


async def check_storage(settings: StartSettings, cluster: str) -> AsyncIterator[Finding]:
    """`cluster` is whose state it is, "" where that is not known."""
    if is_database(settings.storage):
        async for finding in check_database(settings, cluster):
            yield finding
        return
    if is_bucket(settings.storage):
        for sink in settings.sinks:
            yield await _in_bucket(settings.storage, cluster, sink.name)
        return
    storage = Path(settings.storage).absolute()
    there = next((one for one in (storage, *storage.parents) if one.exists()), Path("/"))
    if not there.is_dir():
        yield fault(STORAGE_AREA, f"{there} is a file, and the storage is to be a directory", "Check storage.")
        return
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".check-"):
            pass
    except OSError as error:
        step = f"Let the user {os.getuid()} write there, or check storage."
        yield fault(STORAGE_AREA, f"{there} is not writable ({error.strerror})", step)
        return
    free = free_bytes(there)
    if free is not None and free < ROOM:
        yield warning(
            STORAGE_AREA,
            f"the disk of {there} has {free // 2**20} MiB free",
            "Make room: delivery stops when it is full.",
        )
    if there != storage:
        yield ok(STORAGE_AREA, f"{storage} is not there yet, and can be made")
        return
    yield ok(STORAGE_AREA, f"{storage} is writable")
    for sink in settings.sinks if cluster else ():
        file = state_directory(storage, cluster, sink.name) / FILE
        if file.exists():
            yield await _state(file, sink.name, cluster)
            yield _lock(file.parent / LOCK, sink.name)


async def check_database(settings: StartSettings, cluster: str) -> AsyncIterator[Finding]:
    where = shown_place(settings.storage)
    try:
        apart = await clock_of(settings.storage) - time()
        yield ok(STORAGE_AREA, f"{where} can be used")
        if abs(apart) > CLOCKS_APART:
            yield warning(
                STORAGE_AREA,
                f"the clock of the database and of this machine are {abs(apart):.0f} s apart",
                "Set both by NTP: replicas agree on when to ask for a recording again.",
            )
        replicas = await replicas_of(settings.storage, cluster) if cluster else []
        for one in replicas:
            owns = f"{one.units} units of work" + "".join(f", {turn}" for turn in one.turns)
            if one.alive:
                yield ok(STORAGE_AREA, f"the replica {one.name} (epoch {one.epoch}) works, with {owns}")
            else:
                yield warning(
                    STORAGE_AREA,
                    f"the replica {one.name} (epoch {one.epoch}) does not tell that it lives",
                    "Another one takes over from it; if none runs, start one.",
                )
        for place in await asyncio.to_thread(places_in, settings.storage, cluster) if cluster else ():
            store = await place.look()
            try:
                letters = await store.dead_letters()
                await store.progress()
            finally:
                store.close()
            if letters:
                yield warning(
                    STORAGE_AREA, f"{place.sink} has {letters} dead letters", "Look at them with `dead-letter list`."
                )
            else:
                yield ok(STORAGE_AREA, f"the state of {place.sink} is whole")
    except EventHandlerError as error:
        yield fault(STORAGE_AREA, error)


def _lock(path: Path, sink: str) -> Finding:
    """Whether an event handler works there, and could keep a second one out."""
    try:
        holder = holder_of(path)
    except EventHandlerError as error:
        return fault(STORAGE_AREA, error)
    if holder:
        return ok(STORAGE_AREA, f"the event handler with pid {holder} works on the state of {sink}")
    return ok(STORAGE_AREA, f"no event handler works on the state of {sink}")


async def _in_bucket(storage: str, cluster: str, sink: str) -> Finding:
    """Nothing is written, for somebody may be at work there."""
    try:
        store = await read_only(S3Bucket(storage), object_of(cluster, sink))
    except EventHandlerError as error:
        return fault(STORAGE_AREA, error)
    if store is None:
        return ok(STORAGE_AREA, f"the bucket answers, and has no state of {sink} yet")
    return await _told_of(store, sink, cluster)


async def _state(file: Path, sink: str, cluster: str) -> Finding:
    try:
        store = SqliteStore.to_read(file)
    except EventHandlerError as error:
        return fault(STORAGE_AREA, error)
    return await _told_of(store, sink, cluster)


async def _told_of(store: SqliteStore, sink: str, cluster: str) -> Finding:
    try:
        letters = await store.dead_letters()
        whose = await store.note(CLUSTER)
    except EventHandlerError as error:
        return fault(STORAGE_AREA, error)
    finally:
        store.close()
    if whose and whose != cluster:
        return fault(
            STORAGE_AREA, f"the state of {sink} is of the cluster {whose}, not of {cluster}", "Name another storage."
        )
    if letters:
        return warning(STORAGE_AREA, f"{sink} has {letters} dead letters", "Look at them with `dead-letter list`.")
    return ok(STORAGE_AREA, f"the state of {sink} is whole")
