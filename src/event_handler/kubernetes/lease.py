"""One process at work and others that stand by, by a Lease of Kubernetes, without a database.

Who holds the Lease renews it every two seconds, and stops working when that has not worked for five. Others take it
when it has not changed for eight, so the old holder has stopped before. Each measures by its own clock, which only runs
forward, how long ago it saw a change: clocks of machines are not compared. Two that take it at once, or one that slept,
are told apart by the Lease's version: the API server refuses what is based on an older one. The number of its
transitions is the epoch, by which the state knows the newer process.

Facts: client-go's package `tools/leaderelection` (what the fields mean, and how they are used).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import uuid4

import structlog

from event_handler.errors import StateError, StorageError
from event_handler.kubernetes.api import ConflictError, Lease, LeaseApi
from event_handler.report import ReplicaReport

HOLDS = 8  # seconds for which a renewed lease is respected by the others; whole ones, as the field wants
RENEWED_EVERY = 2.0  # seconds
AGAIN_AFTER_FAILURE = 0.25  # seconds until a renewal that failed is tried again
GIVEN_UP_AFTER = 5.0  # seconds since the last renewal began, after which we stop; three are left to do so
ANSWERED_WITHIN = 1.5  # seconds for one look or renewal; a second try has as long
LOOK_AT_LEASE_EVERY = 1.0  # seconds between two looks of one that stands by
REMIND_EVERY = 60.0  # seconds between lines that say the same

log = structlog.get_logger()


class LeaseMembership:
    """A Membership. From `join` on the lease is renewed, until `leave`; `lost` is set when it is not ours any more."""

    def __init__(self, api: LeaseApi) -> None:
        self._api = api
        self.name = f"{socket.gethostname()}_{uuid4().hex[:8]}"  # a container that is started again has the same host
        self.place = f"the lease {api.namespace}/{api.name}"
        self.epoch = 0
        self.counter = ""
        self.lost = asyncio.Event()
        self.standing_by = False
        self.seen: tuple[ReplicaReport, ...] = ()  # a Lease tells of its holder only
        self._lease: Lease | None = None  # as it was when it was ours last
        self._renewed = 0.0  # by our clock, when the request began that renewed it last
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self._keeping: asyncio.Task[None] | None = None
        self._told: tuple[object, float] = None, 0.0

    async def join(self) -> None:
        await self._stop_keeping()
        self._lease, self._seen = None, ()
        while not await self._took():
            left = self._seen_at + self._holds() - monotonic() if self.standing_by else LOOK_AT_LEASE_EVERY
            await asyncio.sleep(min(LOOK_AT_LEASE_EVERY, max(0.0, left)))
        self.standing_by = False
        self.lost.clear()
        self._keeping = asyncio.create_task(self._keep())

    async def run(self, _: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """The lease is renewed since `join`, and has no room for a report."""
        await asyncio.Event().wait()

    async def leave(self) -> None:
        await self._stop_keeping()
        try:
            if self._lease is not None and not self.lost.is_set():
                async with asyncio.timeout(ANSWERED_WITHIN):
                    await self._write("")
                log.info("the lease is free for others", place=self.place, epoch=self.epoch)
        except (StateError, ConflictError, TimeoutError) as error:
            log.warning("the lease could not be given back", error=str(error) or "no answer", after_s=HOLDS)
        finally:
            self._lease = None
            await self._api.close()

    # Standing by

    async def _took(self) -> bool:
        """Look at the lease, and take it where nobody holds it; return whether it is ours."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                found = await self._api.read()
                self.standing_by = found is not None and self._is_held(found)
                if self.standing_by:
                    return False
                self._renewed = monotonic()
                self._lease = await (
                    self._api.create(self._new()) if found is None else self._api.replace(self._taken(found))
                )
        except ConflictError:
            self._seen = ()
            return False
        except StorageError:
            raise
        except (StateError, TimeoutError) as error:
            self.standing_by = False
            self._tell("warning", "cannot look at the lease, will try again", error=str(error) or "no answer")
            return False
        self.epoch = int(self._lease["spec"]["leaseTransitions"])
        self.counter = str(self._lease["metadata"]["uid"])
        return True

    def _is_held(self, found: Lease) -> bool:
        spec = found["spec"]
        seen = found["metadata"]["uid"], found["metadata"]["resourceVersion"], spec.get("leaseDurationSeconds")
        if seen != self._seen:
            self._seen, self._seen_at = seen, monotonic()
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self.name):  # ours is one whose answer was lost
            return False
        self._tell("info", "standing by: another replica holds the lease", replica=holder)
        return monotonic() < self._seen_at + self._holds()

    def _holds(self) -> float:
        """For how long its holder wants the lease to be respected."""
        return float((self._seen[2] if self._seen else 0) or HOLDS)

    def _new(self) -> Lease:
        now = _now()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._api.name, "namespace": self._api.namespace},
            "spec": {**self._spec(self.name), "acquireTime": now, "renewTime": now, "leaseTransitions": 1},
        }

    def _taken(self, found: Lease) -> Lease:
        now, transitions = _now(), int(found["spec"].get("leaseTransitions") or 0) + 1
        ours = {**self._spec(self.name), "acquireTime": now, "renewTime": now, "leaseTransitions": transitions}
        return {**found, "spec": {**found["spec"], **ours}}

    def _spec(self, holder: str) -> dict[str, Any]:
        return {"holderIdentity": holder, "leaseDurationSeconds": HOLDS}

    # Holding it

    async def _keep(self) -> None:
        try:
            await self._renew()
        except Exception as error:  # a fault of our own code: what is not renewed must not be used
            log.error("the lease is given up", place=self.place, error=f"{type(error).__name__}: {error}")
        self.lost.set()

    async def _renew(self) -> None:
        """Again and again, until the lease is lost."""
        pause, error = RENEWED_EVERY, ""
        while True:
            end = self._renewed + GIVEN_UP_AFTER
            await asyncio.sleep(min(pause, max(0.0, end - monotonic())))
            began = monotonic()
            if began >= end:
                log.error("the lease could not be renewed and is given up", place=self.place, error=error)
                return
            try:
                async with asyncio.timeout(min(ANSWERED_WITHIN, end - began)):
                    await self._write(self.name)
                self._renewed, pause = began, RENEWED_EVERY
            except ConflictError:
                log.error("another replica has taken the lease", place=self.place, epoch=self.epoch)
                return
            except (StateError, TimeoutError) as failure:
                error, pause = str(failure) or "no answer", AGAIN_AFTER_FAILURE
                self._tell("warning", "the lease cannot be renewed, will try again", error=error)

    async def _write(self, holder: str) -> None:
        """Renew the lease that is ours, or give it back. Raises ConflictError when it is another's, and StateError."""
        assert self._lease is not None  # noqa: S101 - for mypy
        try:
            self._lease = await self._api.replace(self._renewal(self._lease, holder))
        except ConflictError:  # somebody has changed it, or our last request arrived and its answer did not
            found = await self._api.read()
            if found is None or (self.name, self.epoch, self.counter) != _whose(found):
                raise
            self._lease = await self._api.replace(self._renewal(found, holder))

    def _renewal(self, lease: Lease, holder: str) -> Lease:
        return {**lease, "spec": {**lease["spec"], **self._spec(holder), "renewTime": _now()}}

    async def _stop_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None

    def _tell(self, level: str, event: str, **facts: str) -> None:
        """Once, and again after a while."""
        told, at = self._told
        if told != (event, facts) or monotonic() - at >= REMIND_EVERY:
            self._told = (event, facts), monotonic()
            getattr(log, level)(event, place=self.place, **facts)


def _whose(lease: Lease) -> tuple[str, int, str]:
    spec = lease["spec"]
    return spec.get("holderIdentity") or "", int(spec.get("leaseTransitions") or 0), str(lease["metadata"]["uid"])


def _now() -> str:
    """For people who look at the lease; nobody here compares it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
