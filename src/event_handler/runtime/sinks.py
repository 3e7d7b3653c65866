"""Makes the sinks that the settings ask for; their modules are loaded only then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from event_handler.config.components import ConfiguredSink
from event_handler.config.model import StartSettings
from event_handler.event import Event
from event_handler.pipeline.oversize import FittingSink
from event_handler.ports import Delivered, Limits, Sink, Transform, Verdict
from event_handler.sinks.registry import sink_type

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Filters:
    """Event types, patterns and codes to deliver (docs/filters.md); empty `types` means all."""

    types: tuple[str, ...]
    skip_types: tuple[str, ...]
    skip_session_types: tuple[str, ...]

    def lists(self) -> dict[str, tuple[str, ...]]:
        """The lists by the names of their options."""
        return {"types": self.types, "skip-event-types": self.skip_types, "skip-session-types": self.skip_session_types}


@dataclass(frozen=True, slots=True)
class PlannedSink:
    """A sink with what its events pass before. Its name is also the name of its state.

    `certificate` is the file of its client certificate, "" for none.
    """

    sink: Sink
    filters: Filters
    transforms: tuple[Transform, ...] = ()
    type: str = ""
    certificate: str = ""


class DryRunSink:
    """Stands in for a sink: tells what it would deliver, never its content, and sends nothing."""

    limits = Limits(500, 1_048_576, 1, 0.05)

    def __init__(self, name: str) -> None:
        self.name = name

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        for event in events:
            log.info(
                "would deliver", sink=self.name, type=event.type, id=event.id, time=event.time, bytes=len(event.body)
            )
        return Delivered()

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


def planned_sinks(settings: StartSettings) -> list[PlannedSink]:
    """The sinks to deliver to. Raises SinkError when one cannot be used as configured."""
    return [planned_sink(settings, configured) for configured in settings.sinks]


def planned_sink(settings: StartSettings, configured: ConfiguredSink) -> PlannedSink:
    """One of them. Raises SinkError when it cannot be used as configured."""
    name, chosen = configured.name, configured.chosen
    made: Sink = (
        DryRunSink(name)
        if settings.dry_run
        else sink_type(configured.type).make(configured.options, name, configured.section)
    )
    largest = chosen.max_event_bytes or made.limits.event_bytes
    if largest:
        made = FittingSink(made, largest, chosen.over_limit)
    filters = Filters(  # a sink's own lists, or those of all sinks where it has none
        settings.types if chosen.types is None else chosen.types,
        settings.skip_event_types if chosen.skip_event_types is None else chosen.skip_event_types,
        settings.skip_session_types if chosen.skip_session_types is None else chosen.skip_session_types,
    )
    certificate = getattr(configured.options, "cert", "")
    return PlannedSink(made, filters, configured.transforms, configured.type, certificate)
