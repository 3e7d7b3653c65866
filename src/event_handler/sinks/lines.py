"""Appends whole lines to a file or stream so that a line is there completely and for good, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
from pathlib import Path
from time import monotonic, time

import orjson

from event_handler.sinks.packing import Compression
from event_handler.sinks.rotated import RotatedFiles

OWNER_ONLY = 0o600  # of new files: audit events are for their owner only
BLOCK = 1024 * 1024  # bytes read at once when looking for the last line break
LONGEST_READ = 16 * 1024 * 1024  # bytes of a last line that is read whole; the largest events have some MiB
PIPE_SLICE = 4096  # bytes that a pipe which is ready takes without blocking (PIPE_BUF of Linux, pipe(7))
STOP_CHECK = 0.1  # seconds between looks whether to stop waiting for a reader


class LineFile:
    """One file that only this process appends to. Its methods block and may be called from any thread; all raise
    OSError.

    It is renamed to `<path>.1` (and `.1` to `.2`, up to `keep`) when it would grow beyond `max_bytes`, or when it was
    last written in an earlier period of `max_age` seconds, counted from midnight UTC for a day; 0 means never. Renamed
    files are packed by `compression`. New files get `mode`.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int = 0,
        max_age: float = 0.0,
        keep: int = 0,
        mode: int = OWNER_ONLY,
        compression: Compression = "none",
    ) -> None:
        self._path = path
        self._rotated = RotatedFiles(path, keep, compression)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._mode = mode
        self._descriptor = -1
        # seconds since the epoch: by the file system's clock when it is opened, by ours from the first write on
        self._written = 0.0
        self._lock = threading.Lock()  # a cancelled delivery goes on in its thread while the next one starts

    def append(self, lines: bytes) -> None:
        """Write the lines and wait until the disk has them; on OSError none of them is left in the file."""
        with self._lock:
            self._open()
            if self._is_due(len(lines)):
                self._rotate()
            status = os.fstat(self._descriptor)
            try:
                _write(self._descriptor, lines)
                _sync(self._descriptor, status)
            except OSError:
                self._cut(status)
                raise
            self._written = time()

    def check(self) -> None:
        """Open the file, to find out whether that is possible."""
        with self._lock:
            self._open()

    def close(self) -> None:
        with self._lock:
            self._close()

    def finish(self) -> None:
        """Wait until what is being packed is packed."""
        self._rotated.finish()

    def _open(self) -> None:
        """Open the file by its name, again when it was moved away, and repair what a crash has left."""
        if self._descriptor >= 0 and self._is_current():
            return
        self._close()
        if self._path.is_fifo():  # opened for reading too, a pipe would take lines that nobody reads
            raise OSError(errno.ESPIPE, "it is a pipe; write to standard output instead")
        self._descriptor = _open_or_create(self._path, self._mode)
        status = os.fstat(self._descriptor)
        self._written = status.st_mtime
        if stat.S_ISREG(status.st_mode):
            try:
                _repair(self._descriptor, status.st_size)
                _sync_directory(self._path.parent)
            except OSError:
                self._close()
                raise

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _is_due(self, more: int) -> bool:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        if self._max_bytes and status.st_size + more > self._max_bytes:
            return True
        return bool(self._max_age) and self._written // self._max_age < time() // self._max_age

    def _rotate(self) -> None:
        self._rotated.rotate()
        self._open()

    def _cut(self, before: os.stat_result) -> None:
        """Take back what a failed write has left. Where even that fails, the next open repairs it."""
        if stat.S_ISREG(before.st_mode):
            try:
                os.ftruncate(self._descriptor, before.st_size)
            except OSError:
                self._close()


class LineStream:
    """Standard output, or another descriptor that cannot be cut: a line that was begun is ended before anything else is
    written.

    Its methods block and may be called from any thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def append(self, lines: bytes, patience: float) -> None:
        """Write the lines. Raises OSError, and TimeoutError when the reader takes nothing for `patience` seconds."""
        with self._lock:
            data = memoryview(self._rest + lines)
            done = 0
            try:
                while done < len(data):
                    self._wait(patience)
                    with contextlib.suppress(BlockingIOError):
                        done += os.write(self._descriptor, data[done : done + PIPE_SLICE])
                _sync(self._descriptor, os.fstat(self._descriptor))
            finally:
                self._rest = _rest_of_line(bytes(data), done)

    def stop(self) -> None:
        """Let a write that waits for the reader end with TimeoutError."""
        self._stopped.set()

    def _wait(self, patience: float) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        end = monotonic() + patience
        while not poll.poll(STOP_CHECK * 1000):
            if monotonic() > end or self._stopped.is_set():
                raise TimeoutError(errno.ETIMEDOUT, "the reader takes nothing")


def _open_or_create(path: Path, mode: int) -> int:
    """A file that exists keeps its mode; a new one gets `mode` even where the umask of the process is narrower."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_CREAT, mode)
    if os.fstat(descriptor).st_mode & mode != mode:
        os.fchmod(descriptor, mode)
    return descriptor


def _rest_of_line(data: bytes, done: int) -> bytes:
    """What is missing of the line that was begun, "" when the last byte written ends one."""
    if done in (0, len(data)) or data[done - 1 : done] == b"\n":
        return b""
    return data[done : data.index(b"\n", done) + 1]


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(descriptor: int, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    """Make the name of a new file last over a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _repair(descriptor: int, size: int) -> None:
    """Cut the torn line that a crash has left, for its event is sent again; end any other last line that has no line
    break.

    After a power cut a torn line may also be blocks of zeros that were never filled.
    """
    begin = _last_line(descriptor, size)
    if begin == size:
        return
    if os.pread(descriptor, 1, begin) in (b"{", b"\0") and not _is_whole(descriptor, begin, size):
        os.ftruncate(descriptor, begin)
    else:
        _write(descriptor, b"\n")


def _last_line(descriptor: int, size: int) -> int:
    """Where the last line begins, `size` when the file ends with a line break.

    Reads no more than one block at a time.
    """
    end = size
    while end:
        start = max(0, end - BLOCK)
        place = os.pread(descriptor, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def _is_whole(descriptor: int, begin: int, end: int) -> bool:
    """Whether what is there is one JSON object: by its last byte where it is too long to be read."""
    if os.pread(descriptor, 1, end - 1) != b"}":
        return False
    if end - begin > LONGEST_READ:
        return True
    return _is_json(os.pread(descriptor, end - begin, begin))


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
