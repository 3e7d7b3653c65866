"""One connection for all batches: what was written counts as delivered when the other side's kernel has it, and the
connection has then stood for a while.

TCP has no answer. A server that goes closes its connections, and what it had not read is then sent again: the
unconfirmed tail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from event_handler.sinks.send_queue import unacknowledged
from event_handler.sinks.stream import close_stream

LOOK_AT_QUEUE_EVERY = 0.005  # seconds between looks at the kernel's queue

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class ConfirmedLine:
    """`confirm_after` is in seconds: how long a connection must stand after everything has arrived."""

    def __init__(self, dial: Dial, confirm_after: float) -> None:
        self._dial = dial
        self._confirm_after = confirm_after
        self._writing = asyncio.Lock()  # batches go out one after the other, whole
        self._current: _Connected | None = None

    async def send(self, data: bytes) -> None:
        """Return when the data counts as delivered. Raises OSError when the connection ends before."""
        async with self._writing:
            line = self._current
            if line is None or line.ended.done():
                line = self._current = _Connected(*await self._dial())
            written = await line.write(data)
        del data  # who calls has let go of it too, so that it takes no memory while it is confirmed
        await line.confirmed(written, self._confirm_after)

    def drop(self) -> None:
        """Let the connection go: the next batch makes another one."""
        if self._current is not None:
            self._current.end()
            self._current = None

    async def close(self) -> None:
        if self._current is not None:
            await self._current.close()
            self._current = None


class _Connected:
    """`ended` is done when the other side has closed, whatever it said before."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._written = 0  # bytes since the beginning, without what TLS adds
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while await reader.read(4096):
                pass
        except OSError:
            pass
        finally:
            if not self.ended.done():
                self.ended.set_result(None)

    async def write(self, data: bytes) -> int:
        """Write all of it, and return how many bytes were written since the beginning. Raises OSError."""
        self._writer.write(data)
        self._written += len(data)
        written = self._written
        try:
            await self._writer.drain()
        except asyncio.CancelledError:
            self.end()  # perhaps half a message is on its way
            raise
        return written

    async def confirmed(self, written: int, confirm_after: float) -> None:
        """Wait until the first `written` bytes have arrived, and a little longer. Raises OSError.

        What TLS adds makes the queue longer than what was written, so that what is later in it hides nothing.
        """
        while not self.ended.done() and self._waiting() > self._written - written:
            await asyncio.sleep(LOOK_AT_QUEUE_EVERY)
        if confirm_after and not self.ended.done():
            await asyncio.wait([self.ended], timeout=confirm_after)
        if self.ended.done():
            raise ConnectionResetError("the other side closed the connection")

    def _waiting(self) -> int:
        """Bytes that have not arrived."""
        transport = self._writer.transport
        return transport.get_write_buffer_size() + unacknowledged(self._writer.get_extra_info("socket"))

    def end(self) -> None:
        self._writer.transport.abort()
        self._listening.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    async def close(self) -> None:
        await close_stream(self._writer)
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
