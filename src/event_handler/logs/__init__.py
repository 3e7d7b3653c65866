"""Log lines: for people on a terminal, JSON otherwise; to stderr, in UTC, never a secret or an event's content."""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
from contextlib import suppress
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from event_handler.logs.repeats import Repeats
from event_handler.logs.secrets import hide_secrets, without_secrets

Format = Literal["auto", "console", "json"]
Level = Literal["debug", "info", "warning", "error"]

__all__ = ["Format", "Level", "configure", "without_secrets"]


class _Lossy(io.TextIOBase):
    """A stream whose reader may end or whose disk may be full: what cannot be written is left out, and stops nobody who logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def let_go(self) -> None:
        """Python writes what is left when it ends, and would end with status 120 where that is impossible."""
        if self._stream.closed:
            return
        try:
            self._stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def configure(debug: bool, fmt: Format = "auto", level: Level = "info") -> None:
    """Set up logging for the process, also for libraries that use the standard one.

    `debug` is the same as level debug. Tracebacks are shown at that level only; otherwise an exception is one line.
    """
    terminal = sys.stderr.isatty()
    lossy = _Lossy(sys.stderr)
    atexit.register(lossy.let_go)
    stream = cast(TextIO, lossy)
    console = fmt == "console" or (fmt == "auto" and terminal)
    lowest = logging.DEBUG if debug else logging.getLevelNamesMapping()[level.upper()]
    repeats = Repeats()
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [structlog.processors.format_exc_info if lowest == logging.DEBUG else _one_line, hide_secrets]
    if console:
        colors = terminal and not os.environ.get("NO_COLOR")
        last.append(structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback))
    else:
        last.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=[*before, repeats, *last],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,  # a module's logger must follow when logging is set up anew
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(repeats)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, "_event_handler", False)]:
        root.removeHandler(old)
    handler._event_handler = True  # type: ignore[attr-defined]  # a mark of our own
    root.addHandler(handler)
    root.setLevel(
        max(logging.INFO if lowest == logging.DEBUG else logging.WARNING, lowest)
    )  # at debug they would print what they send


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
