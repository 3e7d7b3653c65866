"""Log lines: for people on a terminal, JSON otherwise; to stderr, in UTC, never an event's content."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(debug: bool) -> None:
    """Set up logging for the process."""
    terminal = sys.stderr.isatty()
    render: structlog.typing.Processor = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
