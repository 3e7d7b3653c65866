"""The transforms of one sink, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from event_handler.errors import TransformError
from event_handler.event import Event
from event_handler.ports import Transform


class Chain:
    """Without transforms it is false, and costs nothing."""

    def __init__(self, transforms: Sequence[Transform] = ()) -> None:
        self._transforms = tuple(transforms)

    def __bool__(self) -> bool:
        return bool(self._transforms)

    def apply(self, event: Event) -> Event | None:
        """The event that goes to the sink, None when none does. Raises TransformError."""
        for transform in self._transforms:
            try:
                changed = transform.apply(event)
            except Exception as error:  # of that one event: what it raises must not stop the others
                reason = f"{type(error).__name__}: {error}"
                raise TransformError(f"the transform {transform.name} failed ({reason})") from None
            if changed is None:
                return None
            event = changed
        return event
