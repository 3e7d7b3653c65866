"""Writes events as lines of JSON to a file that rotates, or to standard output: the disk has them before they count as
delivered.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Retry, Verdict
from event_handler.setting import Options, Seconds, Setting
from event_handler.sinks.fields import session_field, with_fields
from event_handler.sinks.lines import LineFile, LineStream
from event_handler.sinks.packing import Compression
from event_handler.sinks.registry import SinkType
from event_handler.thread import WorkerThread

STANDARD_OUTPUT = "-"
SESSION_PLACE = "{session_id}"
BATCH_EVENTS = 1000  # lines of a batch, so that the disk is asked to sync once for many
BATCH_BYTES = 1024 * 1024  # bytes of a batch; more makes no disk faster
BATCH_AGE = 0.1  # seconds an incomplete batch waits for more events
ROTATE_BYTES = 100 * 1024 * 1024  # bytes of a file before it is renamed
ROTATE_AGE = 86400.0  # seconds; a file a day, from midnight UTC
KEPT_FILES = 10  # renamed files; older ones are deleted, so an agent must have read them by then
READER_PATIENCE = 30.0  # seconds to wait for whoever reads standard output
CLOSE_PATIENCE = 1.0  # seconds that closing waits for a write; one that hangs is left alone
PASSING_ERRORS = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR}
)  # anything else, only a person can correct
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileOptions(Options):
    """Where to write: `path` is a file or `-` for standard output.

    Events of recordings go to the same place with `teleport_session_id` before their own fields, or, where
    `session_path` is set, to a file for each session; its file name holds `{session_id}`, and it does not rotate.
    """

    path: Annotated[str, Setting("text", "file that events are appended to, - for standard output", required=True)] = ""
    session_path: Annotated[
        str, Setting("text", "file of each recording, with {session_id} in its name", unset="the same file")
    ] = ""
    max_bytes: Annotated[int, Setting("number", "size at which the file is renamed, 0 = never"), Field(ge=0)] = (
        ROTATE_BYTES
    )
    max_age: Annotated[Seconds, Setting("duration", "age at which the file is renamed, 0 = never")] = ROTATE_AGE
    keep: Annotated[int, Setting("number", "renamed files that stay"), Field(ge=1, le=10_000)] = KEPT_FILES
    compression: Annotated[Compression, Setting("choice", "how renamed files are packed")] = "none"
    mode: Annotated[
        Literal["0600", "0640", "0644", "0660", "0664"], Setting("choice", "mode of new files, as octal text")
    ] = "0600"


class FileSink:
    """A `file` sink. Raises SinkError when the options contradict one another or the file cannot be opened.

    `standard_output` is the descriptor that `-` means, None when it is closed.
    """

    limits = Limits(BATCH_EVENTS, BATCH_BYTES, 1, BATCH_AGE)  # one at a time keeps the lines in the order of the events

    def __init__(
        self,
        options: FileOptions,
        name: str = "file",
        section: str = "forward.file",
        *,
        standard_output: int | None = 1,
        patience: float = READER_PATIENCE,
    ) -> None:
        self.name = name
        self._where = options.path
        self._patience = patience
        self._session_path = options.session_path
        self._mode = int(options.mode, 8)
        self._file: LineFile | None = None
        self._stream: LineStream | None = None
        self._worker = WorkerThread(f"sink {name}")
        _check(options, section)
        try:
            if options.path != STANDARD_OUTPUT:
                self._file = LineFile(
                    Path(options.path),
                    options.max_bytes,
                    options.max_age,
                    options.keep,
                    self._mode,
                    options.compression,
                )
                self._file.check()
                return
            if standard_output is None:
                hint = f"Leave it open, or name a file in {section}.path."
                raise SinkError("events are to go to standard output, which is closed", hint)
            self._where = "standard output"
            os.fstat(standard_output)
            self._stream = LineStream(standard_output)
        except OSError as error:
            hint = "Its directory must exist and be writable."
            raise SinkError(f"{section}.path {options.path} cannot be opened ({error.strerror})", hint) from None

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        session_id = events[0].session_id
        bodies = [event.body for event in events]
        if session_id and not self._session_path:
            bodies = [with_fields(body, session_field(session_id)) for body in bodies]
        return await self._worker.run(self._append, session_id, b"\n".join(bodies) + b"\n")

    def _append(self, session_id: str, lines: bytes) -> Verdict:
        where = self._where
        try:
            if session_id and self._session_path:
                path = session_file(self._session_path, session_id)
                where = str(path)
                _append_once(path, lines, self._mode)
            elif self._file is not None:
                self._file.append(lines)
            elif self._stream is not None:
                self._stream.append(lines, self._patience)
        except OSError as error:
            return _failed(where, error)
        return Delivered()

    async def reopen(self) -> None:
        """Let go of the file, for logrotate.

        The next batch opens it by its name. A file that was moved away is noticed anyway.
        """
        if self._file is not None:
            with suppress(TimeoutError):  # by wait_for, for at the end this runs while it is being cancelled
                await asyncio.wait_for(self._worker.run(self._file.close), CLOSE_PATIENCE)

    async def close(self) -> None:
        if self._stream is not None:
            self._stream.stop()
        await self.reopen()
        self._worker.stop()


def _failed(where: str, error: OSError) -> Retry:
    if error.errno == errno.EPIPE:
        return Retry(
            f"{where} is closed: its reader has ended; start it again together with this program", misconfigured=True
        )
    hint = "; make room" if error.errno in FULL else ""
    return Retry(f"{where} cannot be written: {error.strerror}{hint}", misconfigured=error.errno not in PASSING_ERRORS)


def _append_once(path: Path, lines: bytes, mode: int) -> None:
    file = LineFile(path, mode=mode)
    try:
        file.append(lines)
    finally:
        file.close()


def session_file(pattern: str, session_id: str) -> Path:
    """The file of a session; an odd session id cannot lead out of the directory."""
    return Path(pattern.replace(SESSION_PLACE, quote(session_id, safe="").replace(".", "%2E")))


def _check(options: FileOptions, section: str) -> None:
    if not options.path:
        raise SinkError(f"{section}.path is empty", "Name a file, or - for standard output.")
    if not options.session_path:
        return
    path = Path(options.session_path)
    if SESSION_PLACE not in path.name or SESSION_PLACE in str(path.parent):
        raise SinkError(
            f"{section}.session-path {path} has no {SESSION_PLACE} in its file name",
            f"Write session.{SESSION_PLACE}.ndjson.",
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise SinkError(f"the directory {path.parent} of {section}.session-path cannot be written", "It must exist.")


def _make(options: FileOptions, name: str, section: str) -> FileSink:
    # When the process was started with it closed, Python knows, and its number may be another file by now.
    return FileSink(options, name, section, standard_output=1 if sys.stdout is not None else None)


SINK = SinkType("lines of JSON in a file that rotates, or on standard output", FileOptions, _make)
