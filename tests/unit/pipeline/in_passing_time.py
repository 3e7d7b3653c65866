"""Runs a test on a loop whose pauses take no real second."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from tests.unit.sources.passing_time import PassingLoop

Given = ParamSpec("Given")


def in_passing_time(test: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
    @functools.wraps(test)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        PassingLoop().run_to_its_end(test(*args, **kwargs))

    return run
