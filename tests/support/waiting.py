"""Waits for what happens in the background, as long as a slow machine needs and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

LONGEST = 20.0  # seconds, after which it is not slowness


async def until(look: Callable[[], Any], is_right: Callable[[Any], object] = bool, longest: float = LONGEST) -> None:
    """Wait until what `look` finds is right."""
    async with asyncio.timeout(longest):
        while True:
            found = look()
            if is_right(await found if isawaitable(found) else found):
                return
            await asyncio.sleep(0.005)
