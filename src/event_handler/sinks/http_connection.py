"""One connection to a receiver: a request is one write on the socket, its answer is read as it comes, its end is said
politely.

The socket is used directly, TLS included: asyncio's TLS costs twice the CPU and a buffer of 256 KiB a connection, and
hides what a receiver said before it closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from event_handler.sinks.http_answer import Answer, AnswerReader, UnreadableAnswerError
from event_handler.sinks.http_dial import GOODBYE

READ = 64 * 1024  # bytes taken at once; TLS gives at most 16 KiB
PIECE = 64 * 1024  # bytes written at once
LARGE = (
    256 * 1024
)  # bytes; a body from here on is written in several turns, so that the event loop does other work between them

_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_NOTHING = memoryview(b"")
_NO_READER = AnswerReader(0)  # of a connection that waits for no answer


class NoAnswerError(Exception):
    """The request went out, or began to, and no answer came: `cause` is what ended it, None for a plain close."""

    def __init__(self, cause: Exception | None, *, first: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.first = first  # whether it was the first request of its connection


class Connection:
    """Sends one request after another. `gone` is called once when it is closed, by whomever."""

    def __init__(self, connected: socket.socket, gone: Callable[[Connection], None]) -> None:
        self._socket = connected
        self._secured = connected if isinstance(connected, ssl.SSLSocket) else None
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[Answer] | None = None
        self._reader = _NO_READER
        self._rest = _NOTHING  # of the request that has not been written
        self._body = b""  # that comes behind it
        self._writing = False  # whether the event loop tells when more can be written
        self._requests = 0
        self._leaving = False
        self.is_open = True
        self.is_reusable = True  # when it is not busy: whether another request may follow
        self.deadline = 0.0  # of the event loop's clock: for the answer, the idle connection, or the goodbye
        self._loop.add_reader(connected.fileno(), self._readable)

    @property
    def is_busy(self) -> bool:
        return self._waiting is not None

    def exchange(self, head: bytes, body: bytes, reader: AnswerReader, deadline: float) -> asyncio.Future[Answer]:
        """Send a request. The result is its answer, or NoAnswerError or UnreadableAnswerError."""
        waiting = self._waiting = self._loop.create_future()
        self._reader = reader
        self._requests += 1
        self.deadline = deadline
        if len(body) < PIECE:
            self._rest = memoryview(head + body)
        else:
            self._rest, self._body = memoryview(head), body
        self._write()
        return waiting

    def leave(self) -> None:
        """Close a connection that is not busy: tell the receiver, and give it a moment to close its side."""
        self._leaving = True
        self.is_reusable = False
        self.deadline = self._loop.time() + GOODBYE
        self._part()

    def close(self) -> None:
        """Close at once; with TLS the receiver is told."""
        if not self.is_open:
            return
        self.is_open = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(NoAnswerError(None, first=self._requests == 1))
        self._loop.remove_reader(self._socket.fileno())
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
        if self._secured is not None and not self._leaving:
            with contextlib.suppress(OSError, ValueError):
                self._secured.unwrap()
        self._socket.close()
        self._gone(self)

    def time_is_up(self) -> None:
        """What the receiver has said until now is its answer, where it has said enough."""
        if self._waiting is None:
            self.close()
        else:
            self._end(TimeoutError(), self._reader.ended(by_peer=False))

    def _write(self) -> None:
        for _ in range(LARGE // PIECE):
            try:
                self._rest = self._rest[self._socket.send(self._rest[:PIECE]) :]
            except _LATER:
                break
            except OSError as error:
                self._read_last_words(error)
                return
            if not self._rest:
                if not self._body:
                    break
                self._rest, self._body = memoryview(self._body), b""
        if not self._rest:
            self._rest = _NOTHING  # an empty view of the request would keep it in memory
        if bool(self._rest) != self._writing:
            self._writing = bool(self._rest)
            if self._writing:
                self._loop.add_writer(self._socket.fileno(), self._write)
            else:
                self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        if self._leaving:
            self._part()
            return
        try:
            while True:
                data = self._socket.recv(READ)
                if not data:
                    self._end(None, self._reader.ended(by_peer=True))
                    return
                # What TLS has unpacked already is not announced by the event loop again.
                if self._take(data) or self._secured is None or not self._secured.pending():
                    return
        except _LATER:
            return
        except OSError as error:
            self._end(error, self._reader.ended(by_peer=True))

    def _read_last_words(self, error: OSError) -> None:
        """The receiver takes no more of the request; it may have answered, or said in a TLS alert why."""
        try:
            while data := self._socket.recv(READ):
                if self._take(data):
                    return
        except _LATER:
            pass
        except ssl.SSLError as said:
            error = said
        except OSError:
            pass
        self._end(error, self._reader.ended(by_peer=True))

    def _take(self, data: bytes) -> bool:
        """Read on in the answer; True when nothing more of it is wanted."""
        waiting = self._waiting
        if waiting is None:  # nobody has asked
            self.close()
            return True
        try:
            if not self._reader.feed(data):
                return False
        except UnreadableAnswerError as error:
            if not waiting.done():
                waiting.set_exception(error)
            self.close()
            return True
        reader, self._reader, self._waiting = self._reader, _NO_READER, None
        answer = reader.answer()
        if not waiting.done():
            waiting.set_result(answer)
        self.is_reusable = reader.reusable and not (self._secured is not None and self._secured.pending())
        if self._rest or not answer.complete:
            self.close()
        return True

    def _end(self, error: Exception | None, answer: Answer | None) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            if answer is not None:
                waiting.set_result(answer)
            else:
                waiting.set_exception(NoAnswerError(error, first=self._requests == 1))
        self.close()

    def _part(self) -> None:
        """Say goodbye, or look whether the receiver has."""
        if self._secured is not None:
            try:
                self._secured.unwrap()
            except _LATER:
                return
            except (OSError, ValueError):
                pass
        self.close()
