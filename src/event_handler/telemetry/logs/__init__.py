"""Log lines: for people on a terminal, JSON otherwise; to stderr, in UTC, never a secret or an event's content."""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from event_handler.redact import without_secrets
from event_handler.telemetry.logs.repeats import Repeats
from event_handler.telemetry.logs.secrets import hide_secrets
from event_handler.telemetry.logs.writer import Writer

Format = Literal["auto", "console", "json"]
Level = Literal["debug", "info", "warning", "error"]


__all__ = ["Format", "Level", "configure", "on_terminal", "say", "show", "without_secrets"]
CLEAR_LINE = "\r\x1b[2K"  # to the begin of the terminal's line, which is empty then (ECMA-48)
LOST = "log lines are missing here: nobody read them, or they could not be written"
_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


class _Nowhere(io.TextIOBase):
    """What stands for a standard error that was closed before the process began."""

    def write(self, text: str) -> int:
        return len(text)


def on_terminal() -> bool:
    """Whether log lines are for a person at a terminal, as `configure` was told."""
    return _terminal


def show(text: str) -> None:
    """Write to the terminal's last line, which the next log line or text takes the place of."""
    if _terminal:
        _stream([]).write(f"{CLEAR_LINE}{text}")


_terminal = False
_writers: dict[int, Writer] = {}  # by descriptor


def configure(debug: bool, fmt: Format = "auto", level: Level = "info") -> None:
    """Set up logging for the process, also for libraries that use the standard one.

    `debug` is the same as level debug. Tracebacks are shown at that level only; otherwise an exception is one line.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    console = fmt == "console" or (fmt == "auto" and terminal)
    global _terminal
    _terminal = console and terminal
    lowest = logging.DEBUG if debug else logging.getLevelNamesMapping()[level.upper()]
    repeats = Repeats()
    before: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _stamp]
    last: list[Processor] = [
        structlog.processors.format_exc_info if lowest == logging.DEBUG else _one_line,
        hide_secrets,
    ]
    if console:
        colors = terminal and not os.environ.get("NO_COLOR")
        last += [
            _on_one_line,
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, pad_level=False
            ),
        ]
        if terminal:
            last.append(cast(Processor, _in_place_of_progress))
    else:
        last += [_in_order, structlog.processors.JSONRenderer()]
    stream = _stream(last)
    structlog.configure(
        processors=[*before, repeats, *last],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,  # a module's logger must follow when logging is set up again
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


def say(text: str) -> None:
    """Write lines to standard error for whoever called the program, behind all log lines; never wait for the reader."""
    _stream([]).write(f"{without_secrets(text)}\n")


def _stream(processors: Sequence[Processor]) -> TextIO:
    """Standard error as a stream that stops nobody.

    `processors` make the line that tells how many are missing; [] = as before.
    """
    if sys.stderr is None:
        return cast(TextIO, _Nowhere())
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # a stand-in for it, in memory
        return sys.stderr

    def line_about(lines: int) -> str:
        line: Any = _stamp(None, "", {"level": "warning", "event": LOST, "lines": lines})
        for process in processors:
            line = process(None, "warning", line)
        return f"{line}\n"

    writer = _writers.get(descriptor)
    if writer is None:
        writer = _writers[descriptor] = Writer(descriptor, line_about)
        atexit.register(writer.finish)
    elif processors:
        writer.line_about = line_about
    return cast(TextIO, writer)


def _in_place_of_progress(_: WrappedLogger, __: str, line: str) -> str:
    return f"{CLEAR_LINE}{line}"


def _in_order(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Time, level and event first: a line is read from its left, and some readers know it by its begin."""
    first = {name: line.pop(name) for name in ("timestamp", "level", "event") if name in line}
    return {**first, **_without_empty(line)}


def _on_one_line(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """A terminal shows the line breaks of a text as `\\n`; a traceback keeps its own."""
    return {
        name: _joined(value) if isinstance(value, str) and name not in ("exception", "stack") else value
        for name, value in _without_empty(line).items()
    }


def _joined(text: str) -> str:
    """Lines as parts of one sentence; where a line announces the next one, nothing is put between them."""
    if len(lines := [line.strip() for line in text.splitlines() if line.strip()]) < 2:
        return text.rstrip("\r\n")
    return "".join(f"{line} " if line.endswith((":", ".", ";")) else f"{line}; " for line in lines[:-1]) + lines[-1]


def _without_empty(line: EventDict) -> EventDict:
    return {name: value for name, value in line.items() if name != "next_step" or value}


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
