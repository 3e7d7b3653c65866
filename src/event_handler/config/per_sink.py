"""What can be chosen for each sink whatever its type: which events it gets, and what is done to them before."""

from __future__ import annotations

from typing import Annotated

from event_handler.setting import Options, Setting

SAME = "the same as for all sinks"


class Transformed(Options):
    """`transforms` names tables `[transforms.NAME]`, in the order in which they are applied."""

    transforms: Annotated[
        tuple[str, ...], Setting("list", "transforms of the events for this sink, by name (docs/transforms.md)")
    ] = ()


class PerSink(Transformed):
    """A sink's own lists of event types, None for those of all sinks."""

    types: Annotated[tuple[str, ...] | None, Setting("list", "event types to deliver here", unset=SAME)] = None
    skip_event_types: Annotated[
        tuple[str, ...] | None, Setting("list", "event types not to deliver here", unset=SAME)
    ] = None
    skip_session_types: Annotated[
        tuple[str, ...] | None, Setting("list", "recorded event types not to deliver here", unset=SAME)
    ] = None
