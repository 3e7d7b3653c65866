"""Goes through everything that `start` needs, one concern after the other, and finds what is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator

from event_handler.config.model import StartSettings
from event_handler.errors import EventHandlerError
from event_handler.runtime.check.cluster import CLUSTER_AREA, check_cluster
from event_handler.runtime.check.finding import Finding, fault
from event_handler.runtime.check.identity import check_identity
from event_handler.runtime.check.lease import check_lease
from event_handler.runtime.check.sinks import check_sinks
from event_handler.runtime.check.storage import check_storage
from event_handler.runtime.check.telemetry import check_telemetry

__all__ = ["Finding", "check"]


async def check(settings: StartSettings, *, send: bool) -> AsyncIterator[Finding]:
    """Every finding, as it is made. No position moves, and nothing stays behind; with `send` each sink gets an event.

    A fault ends what builds on it and nothing else: without credentials the cluster is not asked, but every sink is.
    """
    credentials = None
    for finding, found in check_identity(settings):
        credentials = found or credentials
        yield finding
    if credentials is not None:
        try:
            async for finding in check_cluster(settings, credentials):
                yield finding
        except EventHandlerError as error:
            yield fault(CLUSTER_AREA, error)
    if credentials is not None and settings.lease != "none":
        async for finding in check_lease(settings, credentials.cluster):
            yield finding
    async for finding in check_storage(settings, credentials.cluster if credentials else ""):
        yield finding
    async for finding in check_sinks(settings, send=send):
        yield finding
    async for finding in check_telemetry(settings):
        yield finding
