"""Log lines: for people on a terminal, JSON otherwise; to stderr, in UTC, never an event's content."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "console", "json"]


def configure(debug: bool, fmt: Format = "auto") -> None:
    """Set up logging for the process, also for libraries that use the standard one.

    Tracebacks are shown with `debug` only; otherwise an exception is one line.
    """
    terminal = sys.stderr.isatty()
    console = fmt == "console" or (fmt == "auto" and terminal)
    level = logging.DEBUG if debug else logging.INFO
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = []
    if not debug:
        last.append(_one_line)
    elif not console:
        last.append(structlog.processors.format_exc_info)
    if console:
        colors = terminal and not os.environ.get("NO_COLOR")
        last.append(structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback))
    else:
        last.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=[*before, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, "_event_handler", False)]:
        root.removeHandler(old)
    handler._event_handler = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(logging.INFO if debug else logging.WARNING)  # libraries at debug would print what they send


def _one_line(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """An exception as `error`, without its traceback."""
    found = line.pop("exc_info", None)
    line.pop("stack_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        line.setdefault("error", f"{type(error).__name__}: {error}")
    return line
