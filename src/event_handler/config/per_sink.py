"""What can be chosen for each sink whatever its type: which events it gets, and what is done to them before."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from event_handler.setting import Options, Setting

SAME = "the same as for all sinks"


class Prepared(Options):
    """What is done to events on their way to a sink; `transforms` names tables in the order of their use."""

    transforms: Annotated[
        tuple[str, ...], Setting("list", "transforms of the events for this sink, by name (docs/transforms.md)")
    ] = ()
    over_limit: Annotated[
        Literal["dead-letter", "truncate", "split"],
        Setting("choice", "what becomes of an event that is larger than the receiver takes (docs/sinks.md)"),
    ] = "dead-letter"
    max_event_bytes: Annotated[
        int,
        Setting("number", "bytes of the largest event that is sent as it is", unset="the receiver's limit"),
        Field(ge=0),
    ] = 0


class PerSink(Prepared):
    """A sink's own lists of event types, None for those of all sinks."""

    types: Annotated[tuple[str, ...] | None, Setting("list", "event types to deliver here", unset=SAME)] = None
    skip_event_types: Annotated[
        tuple[str, ...] | None, Setting("list", "event types not to deliver here", unset=SAME)
    ] = None
    skip_session_types: Annotated[
        tuple[str, ...] | None, Setting("list", "recorded event types not to deliver here", unset=SAME)
    ] = None
