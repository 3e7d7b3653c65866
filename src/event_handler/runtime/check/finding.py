"""What a check finds: that something works, that it deserves a look, or that it does not work."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from event_handler.errors import EventHandlerError
from event_handler.redact import credentials


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, and may not for long
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """`area` is what was looked at, `what` a sentence, `next_step` what to do, "" where nothing is to be done."""

    level: Level
    area: str
    what: str
    next_step: str = ""


def ok(area: str, what: str) -> Finding:
    return Finding(Level.OK, area, what)


def warning(area: str, what: str, next_step: str) -> Finding:
    return Finding(Level.WARNING, area, credentials(what), next_step)


def fault(area: str, error: EventHandlerError | str, next_step: str = "") -> Finding:
    """An error in the words of its own, without a secret."""
    if isinstance(error, EventHandlerError):
        return Finding(Level.FAULT, area, credentials(error.message), next_step or error.hint)
    return Finding(Level.FAULT, area, credentials(error), next_step)
