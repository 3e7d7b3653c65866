"""Makes the sinks that the settings ask for; their modules are loaded only then."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from event_handler.config.model import StartSettings
from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.runtime.worker import Filters
from event_handler.sinks.base import Delivered, Limits, Sink, Verdict

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PlannedSink:
    """A sink with its filters. Its name is also the name of its state."""

    sink: Sink
    filters: Filters


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
    """The sinks to deliver to, at least one. Raises SinkError when one cannot be used as configured."""
    planned = []
    if settings.fluentd_url:
        filters = _filters(settings, None, None, None)
        planned.append(PlannedSink(DryRunSink("fluentd") if settings.dry_run else _fluentd(settings), filters))
    if settings.file_path:
        filters = _filters(
            settings, settings.file_types, settings.file_skip_event_types, settings.file_skip_session_types
        )
        planned.append(PlannedSink(DryRunSink("file") if settings.dry_run else _file(settings), filters))
    if settings.elasticsearch_url:
        filters = _filters(
            settings,
            settings.elasticsearch_types,
            settings.elasticsearch_skip_event_types,
            settings.elasticsearch_skip_session_types,
        )
        planned.append(
            PlannedSink(DryRunSink("elasticsearch") if settings.dry_run else _elasticsearch(settings), filters)
        )
    return planned


def _filters(
    settings: StartSettings,
    types: tuple[str, ...] | None,
    skip: tuple[str, ...] | None,
    skip_session: tuple[str, ...] | None,
) -> Filters:
    """A sink's own lists, or those of all sinks where it has none."""
    return Filters(
        settings.types if types is None else types,
        settings.skip_event_types if skip is None else skip,
        settings.skip_session_types if skip_session is None else skip_session,
    )


def _fluentd(settings: StartSettings) -> Sink:
    from event_handler.sinks.fluentd import MAX_CONNECTIONS, FluentdSettings, FluentdSink

    return FluentdSink(
        FluentdSettings(
            settings.fluentd_url,
            settings.fluentd_session_url,
            settings.fluentd_ca,
            settings.fluentd_cert,
            settings.fluentd_key,
            settings.fluentd_format,
            settings.fluentd_max_connections or max(MAX_CONNECTIONS, settings.concurrency * 2),
            timeout=settings.fluentd_timeout,
            compression=settings.fluentd_compression,
            ordered=settings.fluentd_ordered,
        )
    )


def _file(settings: StartSettings) -> Sink:
    from event_handler.sinks.file import STANDARD_OUTPUT, FileSettings, FileSink

    if settings.file_path == STANDARD_OUTPUT and sys.stdout is None:  # its number leads nowhere then
        raise SinkError(
            "events are to go to standard output, which is closed",
            "Leave it open, or name a file in forward.file.path.",
        )
    return FileSink(
        FileSettings(
            settings.file_path,
            settings.file_session_path,
            settings.file_max_bytes,
            settings.file_max_age,
            settings.file_keep,
            int(settings.file_mode, 8),
        )
    )


def _elasticsearch(settings: StartSettings) -> Sink:
    from event_handler.sinks.elasticsearch import ElasticsearchSettings, ElasticsearchSink

    return ElasticsearchSink(
        ElasticsearchSettings(
            settings.elasticsearch_url,
            target=settings.elasticsearch_target,
            session_target=settings.elasticsearch_session_target,
            document=settings.elasticsearch_document,
            template=settings.elasticsearch_template,
            api_key=settings.elasticsearch_api_key,
            username=settings.elasticsearch_username,
            password=settings.elasticsearch_password,
            bearer=settings.elasticsearch_bearer,
            ca=settings.elasticsearch_ca,
            cert=settings.elasticsearch_cert,
            key=settings.elasticsearch_key,
            compression=settings.elasticsearch_compression,
            max_connections=settings.elasticsearch_max_connections,
            timeout=settings.elasticsearch_timeout,
        )
    )
