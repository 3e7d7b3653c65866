"""An event loop whose time passes at once whenever nothing else is to be done: hours of pauses take no real second."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

BEGIN = 1_795_212_000.0  # seconds since the epoch, 2026-11-20T22:00Z: two hours before a UTC day ends


class _PassingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "every task waits for another one"
        self.passed += max(timeout, 0.0)
        return super().select(0)


class PassingLoop(asyncio.SelectorEventLoop):
    """`time` is in seconds from 0 on, `wall` in seconds since the epoch from BEGIN on."""

    def __init__(self) -> None:
        self._passing = _PassingSelector()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.passed

    def wall(self) -> float:
        return BEGIN + self.time()

    def run_to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` and close the loop. Raises what `work` raises."""
        try:
            self.run_until_complete(work)
        finally:
            self.run_until_complete(self.shutdown_asyncgens())
            self.close()


Given = ParamSpec("Given")


def in_passing_time(test: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
    """Run a test on a loop whose pauses take no real second."""

    @functools.wraps(test)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        PassingLoop().run_to_its_end(test(*args, **kwargs))

    return run
