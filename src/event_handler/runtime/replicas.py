"""This process as one of several that share the work of a cluster, where the state is in a database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from event_handler.backoff import backoff
from event_handler.errors import StateError, StorageError
from event_handler.ports import StateStore
from event_handler.report import Report
from event_handler.runtime.merged_state import ASK_FOR_TURN_EVERY
from event_handler.state.postgresql.replica import Replica

LONGEST_STORAGE_WAIT = 15.0  # seconds between tries to reach a database

log = structlog.get_logger()


async def join(storage: str, cluster: str) -> Replica:
    """Wait for the database, and be a replica of the cluster. Raises StorageError where only a person can help."""
    replica = Replica(storage, cluster)
    attempt = 0
    while True:
        try:
            await replica.join()
            break
        except StorageError:
            raise
        except StateError as error:
            attempt += 1
            log.warning("cannot reach the storage, will try again", error=str(error))
            await asyncio.sleep(backoff(attempt, LONGEST_STORAGE_WAIT))
    log.info("joined the replicas of the cluster", replica=replica.name, epoch=replica.epoch, storage=replica.shown)
    return replica


async def wait_for_turn(store: StateStore, name: str) -> None:
    """Until no other replica has that turn; it is ours then."""
    while not await store.take_turn(name):
        await asyncio.sleep(ASK_FOR_TURN_EVERY)


async def in_turn(store: StateStore, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do what only one replica may do, until it ends or this process does."""
    await wait_for_turn(store, name)
    await work()


def told(report: Report) -> dict[str, Any]:
    """What the other replicas, and whoever asks them, are told of this one."""
    return {
        "lag": report.lag,
        "sinks": {sink.name: {"lag": sink.lag, "failing": sink.failing} for sink in report.sinks},
        "connected": all(reading.connected for reading in report.readings),
        "delivered": sum(sink.audit.delivered + sink.recordings.delivered for sink in report.sinks),
    }
