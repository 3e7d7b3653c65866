"""Whether the lease can be asked for, and who holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from event_handler.config.model import StartSettings
from event_handler.errors import EventHandlerError
from event_handler.runtime.check.finding import Finding, fault, ok
from event_handler.runtime.replicas import lease_api

LEASE_AREA = "lease"
LEASE_ANSWERS_WITHIN = 10.0  # seconds


async def check_lease(settings: StartSettings, cluster: str) -> AsyncIterator[Finding]:
    """It is only looked at. `cluster` is whose it is."""
    try:
        api = lease_api(settings, cluster)
        try:
            async with asyncio.timeout(LEASE_ANSWERS_WITHIN):
                found = await api.read()
        finally:
            await api.close()
    except TimeoutError:
        yield fault(LEASE_AREA, "the API server of Kubernetes does not answer", "Check network policies.")
    except EventHandlerError as error:
        yield fault(LEASE_AREA, error)
    else:
        holder = (found or {}).get("spec", {}).get("holderIdentity")
        yield ok(LEASE_AREA, f"the lease {api.namespace}/{api.name} is {f'held by {holder}' if holder else 'free'}")
