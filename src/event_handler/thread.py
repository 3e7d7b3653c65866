"""Runs what may block, one after the other, in a thread of its own that the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

R = TypeVar("R")


class InPlace:
    """Stands where a WorkerThread may, for what never blocks."""

    async def run(self, function: Callable[..., R], *arguments: Any) -> R:
        return function(*arguments)

    def stop(self, wait: float = 0.0) -> bool:
        return True


class WorkerThread:
    """A disk or a network file system may hang for ever: neither another sink nor the end may wait for it.

    The threads of `asyncio.to_thread` are shared by all, and Python waits for them when it ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[..., R], *arguments: Any) -> R:
        """The result of the function. Who is cancelled leaves it running; the next one waits for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()

        def job() -> None:
            try:
                answer: tuple[R | None, BaseException | None] = function(*arguments), None
            except BaseException as error:
                answer = None, error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, *answer)

        def settle(result: Any, error: BaseException | None) -> None:
            if done.done():  # cancelled
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return await done

    def stop(self, wait: float = 0.0) -> bool:
        """Let the thread end when it has done what it was given; return whether it has within `wait` seconds."""
        if self._thread is None:
            return True
        self._jobs.put(None)
        thread, self._thread = self._thread, None
        thread.join(wait)
        return not thread.is_alive()

    def _work(self) -> None:
        while job := self._jobs.get():
            job()
