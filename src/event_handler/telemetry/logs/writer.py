"""Writes log lines in a thread of its own, so that a reader that stands still, or a file system that hangs, stops
nobody who logs.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

MOST_BYTES = 4 * 1024 * 1024  # of lines that wait to be written: some 10,000 of them
FILE_PATIENCE = (
    1.0  # seconds that a line waits for room while a file or a terminal takes nothing; a pipe is never waited for
)
FLUSH = 1.0  # seconds that the end of the process waits for the lines that are left
LINE_END = ord("\n")
SLICE = 4096  # bytes that a pipe which is ready takes without blocking (PIPE_BUF of Linux, pipe(7))

LineAbout = Callable[[int], str]


class Writer:
    """A text stream over a descriptor. `write` takes whole lines and returns at once; those that find no room are left
    out.

    How many were left out is said by the line that `line_about` makes of their number, where they are missing. Lines
    are kept in order.
    """

    def __init__(self, descriptor: int, line_about: LineAbout, most_bytes: int = MOST_BYTES) -> None:
        self.line_about = line_about
        self._descriptor = descriptor
        self._most = most_bytes
        self._waits = stat.S_ISREG(os.fstat(descriptor).st_mode) or os.isatty(descriptor)  # these go on by themselves
        self._lines: deque[tuple[bytes, int]] = deque()  # each with the number of lines that are lost with it
        self._bytes = 0
        self._lost = 0
        self._failed = False  # the last write was: nothing is said before another line comes
        self._torn = False  # the last line that was begun has no end
        self._moved = monotonic()  # when something was written last, or there was nothing to write
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            while self._waits and not self._has_room(data) and monotonic() - self._moved < FILE_PATIENCE:
                self._changed.wait(FILE_PATIENCE / 10)
            if self._has_room(data):
                self._log_lost()
                self._add(data, 1)
            else:
                self._lost += 1
        return len(text)

    def flush(self) -> None:
        """What is logged is on its way already."""

    def finish(self, seconds: float = FLUSH) -> None:
        """Wait until all lines are written, but not longer than that."""
        end = monotonic() + seconds
        with self._changed:
            while (self._lines or (self._lost and not self._failed)) and (left := end - monotonic()) > 0:
                self._changed.wait(left)

    def _has_room(self, data: bytes) -> bool:
        return not self._lines or self._bytes + len(data) <= self._most

    def _add(self, data: bytes, lines: int) -> None:
        if not self._lines:
            self._moved = monotonic()
        self._lines.append((data, lines))
        self._bytes += len(data)
        self._changed.notify_all()

    def _log_lost(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._add(self.line_about(lost).encode("utf-8", "backslashreplace"), lost)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    if self._lost and not self._failed:
                        self._log_lost()
                    else:
                        self._changed.wait()
                data, lines = self._lines[0]  # stays in the queue until it is written, so that `finish` waits for it
            written = self._put(data)
            with self._changed:
                self._lines.popleft()
                self._bytes -= len(data)
                self._failed = not written
                self._lost += 0 if written else lines
                self._changed.notify_all()

    def _put(self, data: bytes) -> bool:
        """Write a line whole; return whether that was possible."""
        rest = memoryview(b"\n" + data if self._torn else data)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        try:
            while rest:
                poll.poll()
                with suppress(BlockingIOError):  # whoever shares the descriptor may have made it non-blocking
                    done = os.write(self._descriptor, rest[:SLICE])
                    self._torn = rest[done - 1] != LINE_END
                    rest = rest[done:]
                    self._moved = monotonic()
        except OSError:
            return False
        return True
