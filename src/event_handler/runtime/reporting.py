"""Puts together what the process tells of itself, for whoever asks: not more often than once a second, however many."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, time

from event_handler.report import Reading, ReplicaReport, Report
from event_handler.runtime.certificate_file import CertificateFile
from event_handler.runtime.shared_reading import SharedReading
from event_handler.runtime.worker import KeptWorker
from event_handler.teleport.auth.renewal import CredentialsKeeper

FRESH = 0.9  # seconds that a report is good for; viewers ask once a second


class Reporter:
    """Reports on these workers. `start` is the time from which on the cluster is read, `storage` a directory,
    `listener_certificate` a file, "" for none; `replicas` tells of the processes that share the work,
    `standing_by` whether this one rightly does nothing.
    """

    def __init__(
        self,
        workers: Sequence[KeptWorker],
        shared: SharedReading | None,
        keeper: CredentialsKeeper,
        *,
        start: float,
        storage: str,
        listener_certificate: str = "",
        replicas: Callable[[], tuple[ReplicaReport, ...]] = tuple,
        standing_by: Callable[[], bool] = lambda: False,
    ) -> None:
        self._workers = workers
        self._shared = shared
        self._keeper = keeper
        self._start = start
        self._storage = storage
        self._standing_by = standing_by
        self._listener_certificate = CertificateFile(listener_certificate)
        self._replicas = replicas
        self._started = time()
        self._last: Report | None = None
        self._made = 0.0
        self._making = asyncio.Lock()

    async def report(self) -> Report:
        """The newest report."""
        async with self._making:
            if self._last is None or monotonic() - self._made > FRESH:
                self._last = await self._make()
                self._made = monotonic()
            return self._last

    async def _make(self) -> Report:
        now = time()
        shared = self._shared.reading if self._shared else None
        sinks = [await worker.report(now, shared) for worker in self._workers]
        own = [worker.reading for worker in self._workers]
        readings: list[Reading] = [reading for reading in (shared, *own) if reading is not None]
        return Report(
            cluster=self._keeper.current.cluster,
            started=self._started,
            now=now,
            start=self._start,
            credentials_expire=self._keeper.current.not_after.timestamp(),
            renewals=self._keeper.renewals,
            free_bytes=free_bytes(self._storage),
            listener_certificate_expires=self._listener_certificate.expires(),
            readings=tuple(readings),
            sinks=tuple(sinks),
            replicas=self._replicas(),
            standing_by=self._standing_by(),
        )


def free_bytes(directory: str | Path) -> int | None:
    """Of the disk of that directory, as far as we may fill it; None where that is not known."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize
