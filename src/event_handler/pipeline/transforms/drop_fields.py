"""`drop-fields`: takes fields out of every event, by name or by path."""

from __future__ import annotations

from typing import Annotated, Any

import orjson

from event_handler.event import Event
from event_handler.pipeline.transforms.registry import TransformType
from event_handler.setting import Options, Setting


class DropFieldsOptions(Options):
    """`fields` are names; `a.b` is also `b` within `a`, and within each entry of a list `a`."""

    fields: Annotated[tuple[str, ...], Setting("list", "names or paths of the fields to drop", required=True)] = ()


class DropFields:
    """Drops the fields that the event has; Teleport's own names may hold dots, as `addr.remote`."""

    def __init__(self, options: DropFieldsOptions, name: str) -> None:
        self.name = name
        self._paths = options.fields

    def apply(self, event: Event) -> Event | None:
        content = orjson.loads(event.body)
        if not max([_drop(content, path) for path in self._paths]):
            return event
        body = orjson.dumps(content)
        return Event(event.type, event.id, event.time, event.index, body, event.session_id)


def _drop(content: Any, path: str) -> bool:
    """Return whether there was something at the path."""
    if isinstance(content, list):
        return max([_drop(item, path) for item in content], default=False)
    if not isinstance(content, dict):
        return False
    found = path in content
    content.pop(path, None)
    dot = path.find(".")
    while dot >= 0:
        if path[:dot] in content:
            found = _drop(content[path[:dot]], path[dot + 1 :]) or found
        dot = path.find(".", dot + 1)
    return found


TRANSFORM = TransformType("takes fields out of every event", DropFieldsOptions, DropFields)
