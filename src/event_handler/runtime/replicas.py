"""This process as one of several that share the work of a cluster, or do it in turn; or as the only one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from event_handler.backoff import backoff
from event_handler.config.model import StartSettings
from event_handler.errors import StateError, StorageError
from event_handler.kubernetes.api import LeaseApi, lease_name
from event_handler.ports import Membership, StateStore
from event_handler.report import ReplicaReport, Report
from event_handler.runtime.merged_state import ASK_FOR_TURN_EVERY

LONGEST_STORAGE_WAIT = 15.0  # seconds between tries to reach a database

log = structlog.get_logger()


class Alone:
    """The Membership of a process that shares its work with nobody."""

    name = ""
    epoch = 0
    counter = ""
    standing_by = False
    seen: tuple[ReplicaReport, ...] = ()

    def __init__(self, place: str) -> None:
        self.place = place
        self.seen: tuple[ReplicaReport, ...] = ()
        self.lost = asyncio.Event()

    async def join(self) -> None:
        """Once; raises StorageError when another process was found to work on the same state."""
        if self.lost.is_set():
            raise StorageError(
                f"another event handler works on the state in {self.place}",
                "Stop one of them, or give this one its own storage.",
            )

    async def run(self, _: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """There is nobody to tell."""

    async def leave(self) -> None:
        """There is nobody to tell."""


def lease_api(settings: StartSettings, cluster: str) -> LeaseApi:
    """Where the lease of that cluster is. Raises ConfigurationError or StateError."""
    name = settings.lease_name or lease_name(cluster)
    return LeaseApi(Path(settings.lease_account), settings.lease_namespace, name, os.environ)


async def join(membership: Membership) -> None:
    """Wait until this process may work. Raises StorageError where only a person can help."""
    attempt = 0
    while True:
        try:
            await membership.join()
            break
        except StorageError:
            raise
        except StateError as error:
            attempt += 1
            log.warning("cannot reach the storage, will try again", error=str(error))
            await asyncio.sleep(backoff(attempt, LONGEST_STORAGE_WAIT))
    if membership.epoch:
        log.info(
            "joined the replicas of the cluster",
            replica=membership.name,
            epoch=membership.epoch,
            place=membership.place,
        )


async def wait_for_turn(store: StateStore, name: str) -> None:
    """Until no other replica has that turn; it is ours then."""
    while not await store.take_turn(name):
        await asyncio.sleep(ASK_FOR_TURN_EVERY)


async def in_turn(store: StateStore, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do what only one replica may do, until it ends or this process does."""
    await wait_for_turn(store, name)
    await work()


class Telling:
    """What the other replicas, and whoever asks them, are told of this one: nothing before it is at work."""

    def __init__(self) -> None:
        self.report: Callable[[], Awaitable[Report]] | None = None

    async def __call__(self) -> dict[str, Any]:
        return {} if self.report is None else told(await self.report())


def told(report: Report) -> dict[str, Any]:
    return {
        "lag": report.lag,
        "sinks": {sink.name: {"lag": sink.lag, "failing": sink.failing} for sink in report.sinks},
        "connected": all(reading.connected for reading in report.readings),
        "delivered": sum(sink.audit.delivered + sink.recordings.delivered for sink in report.sinks),
    }
