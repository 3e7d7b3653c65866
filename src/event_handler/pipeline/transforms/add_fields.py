"""`add-fields`: constant fields for every event, for example the environment that a cluster belongs to."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import Field

from event_handler.event import Event
from event_handler.pipeline.transforms.registry import TransformType
from event_handler.setting import Options, Setting


class AddFieldsOptions(Options):
    """`fields` by name; values may be lists and tables."""

    fields: Annotated[dict[str, Any], Setting("table", "fields to add, name and value", required=True)] = Field(
        default_factory=dict
    )


class AddFields:
    """Adds each field that the event has not; what Teleport wrote is never replaced."""

    def __init__(self, options: AddFieldsOptions, name: str) -> None:
        self.name = name
        self._fields = options.fields

    def apply(self, event: Event) -> Event | None:
        content = {**self._fields, **orjson.loads(event.body)}
        body = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        return Event(event.type, event.id, event.time, event.index, body, event.session_id)


TRANSFORM = TransformType("adds constant fields to every event", AddFieldsOptions, AddFields)
