"""Keeps background work alive: an error that ends it is logged, and it is begun again after a pause, longer with each
error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from event_handler.errors import EventHandlerError

FIRST_PAUSE = 1.0  # seconds before the first restart, doubled with each error that follows soon
LONGEST_PAUSE = 60.0  # seconds; what a person repairs meanwhile is noticed within a minute
STEADY = 300.0  # seconds of work after which an error counts as the first one again

log = structlog.get_logger()


async def supervise(
    name: str,
    work: Callable[[], Awaitable[None]],
    *,
    most: int = 0,
    final: tuple[type[Exception], ...] = (),
    **facts: str,
) -> None:
    """Run `work` until it returns or is cancelled. `name` and `facts` say in the log what it is.

    An error of one of the types `final`, and the last one of `most` in a row (0 = no limit), is raised instead of begun
    again.
    """
    failures = 0
    while True:
        began = monotonic()
        try:
            await work()
            return
        except Exception as error:
            cause = cause_of(error)
            failures = failures + 1 if monotonic() - began < STEADY else 1
            if (task := asyncio.current_task()) and task.cancelling():
                raise cause from None  # a task group drops a wish to stop that comes while it is failing
            if isinstance(cause, final) or failures == most:
                raise cause from None
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
            log_error(f"{name} failed and is started again", cause, pause_s=pause, **facts)
        await asyncio.sleep(pause)


def log_error(event: str, error: Exception, **facts: object) -> None:
    """Log an error that was caught; a fault of our own code with its type, and at level debug with its traceback."""
    if isinstance(error, EventHandlerError):
        log.error(event, error=str(error), **facts)
    else:
        log.error(event, error=f"{type(error).__name__}: {error}", exc_info=error, **facts)


def cause_of(error: Exception) -> Exception:
    """The error that made task groups fail; of several, a fault of our own code before what comes from outside."""
    if not isinstance(error, ExceptionGroup):
        return error
    causes = [cause_of(inner) for inner in error.exceptions]
    return next((cause for cause in causes if not isinstance(cause, EventHandlerError)), causes[0])
