"""Where our own metrics go: whether a Collector takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from event_handler.config.model import StartSettings
from event_handler.errors import ConfigurationError
from event_handler.runtime.check.finding import Finding, fault, ok
from event_handler.telemetry.otlp import ExportOptions, probe

TELEMETRY_AREA = "telemetry"


async def check_telemetry(settings: StartSettings) -> AsyncIterator[Finding]:
    """Nothing is found where nothing is exported."""
    if not settings.telemetry_endpoint:
        return
    try:
        reason = await probe(ExportOptions(settings.telemetry_endpoint, settings.telemetry_interval))
    except ConfigurationError as error:
        yield fault(TELEMETRY_AREA, error)
        return
    if reason:
        step = "Check telemetry-endpoint, and that the Collector runs. Delivery works without it."
        yield fault(TELEMETRY_AREA, f"{settings.telemetry_endpoint} takes no metrics: {reason}", step)
    else:
        yield ok(TELEMETRY_AREA, f"{settings.telemetry_endpoint} takes metrics")
