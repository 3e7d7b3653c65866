"""The bytes that a pipeline may have in flight: taken before an event is batched, given back once it is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Budget:
    """`used` bytes of `limit`. What is larger than all of it has room when nothing else is in flight."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._changed = asyncio.Condition()
        # To wait for room, one after the other: small events would overtake a large one for ever.
        self._turn = asyncio.Lock()

    def try_take(self, size: int) -> bool:
        """Take so many bytes if there is room for them now, and nobody has waited for longer."""
        if self._turn.locked() or not self._has_room(size):
            return False
        self.used += size
        return True

    async def take(self, size: int) -> None:
        """Take so many bytes as soon as there is room for them."""
        async with self._turn, self._changed:
            await self._changed.wait_for(lambda: self._has_room(size))
            self.used += size

    async def give_back(self, size: int) -> None:
        async with self._changed:
            self.used -= size
            self._changed.notify_all()

    async def wait_for(self, true: Callable[[], bool]) -> None:
        """Wait for what is so, at the latest, once everything in flight was given back."""
        async with self._changed:
            await self._changed.wait_for(true)

    def _has_room(self, size: int) -> bool:
        return not self.used or self.used + size <= self.limit
