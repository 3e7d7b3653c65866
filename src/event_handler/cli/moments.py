"""Times on the command line: `2026-11-27T10:00:00Z`, a day (`2026-11-27`), or how long ago (`90m`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from time import time

import click

from event_handler.config.durations import parse
from event_handler.config.values import convert

A_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Moment(click.ParamType[float]):
    """Seconds since the epoch."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        try:
            return time() - parse(text)
        except ValueError:
            pass
        if A_DAY.fullmatch(text):
            text += "T00:00:00Z"
        try:
            found: datetime = convert("time", text)
        except ValueError:
            self.fail(f"expected a time as 2026-11-27T10:00:00Z, or how long ago as 90m, got {text!r}", param, ctx)
        return found.timestamp()


def shown(moment: float) -> str:
    """As `2026-11-27 10:00:00`, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
