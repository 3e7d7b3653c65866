"""A TCP relay with faults, to be put in front of any address: cuts, silence, slowness."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass

from event_handler.simulator.listener import PIECE, Listener, copy_both_ways

TICKS = 20  # pieces a second that a slow connection gets
CUT_AFTER = 100  # bytes from the server: less than the first message of any TLS server


@dataclass(slots=True)
class Trouble:
    """What goes wrong with connections; may be changed while the relay runs, and counts for what happens from then on.

    `blackhole`: new connections are accepted and never answered. `bytes_per_second`: speed of each direction of new
    connections, 0 = no limit. `cut_handshakes`: so many new connections are aborted in the middle of the TLS handshake.
    """

    blackhole: bool = False
    bytes_per_second: int = 0
    cut_handshakes: int = 0


class FaultyRelay:
    """Passes connections on to `target` (host:port), with faults."""

    def __init__(self, target: str, trouble: Trouble | None = None, *, seed: int = 0) -> None:
        self._target = target
        self._listener = Listener(self._serve)
        self._established: list[asyncio.StreamWriter] = []
        self._dice = random.Random(seed)
        self.trouble = trouble or Trouble()
        self.cuts = 0

    @property
    def established(self) -> int:
        """Connections that are passed on at this moment."""
        return len(self._established)

    @property
    def accepted(self) -> int:
        """Connections that were made, also those that were cut."""
        return self._listener.accepted

    async def start(self, port: int = 0) -> str:
        """Listen on loopback and return host:port."""
        return await self._listener.start(port)

    async def close(self) -> None:
        await self._listener.close()

    def cut_one(self) -> bool:
        """Abort a random established connection; return whether there was one."""
        if not self._established:
            return False
        self._dice.choice(self._established).transport.abort()
        self.cuts += 1
        return True

    def cut_all(self) -> None:
        """Abort every established connection."""
        for writer in self._established:
            writer.transport.abort()
            self.cuts += 1

    async def cut_every(self, seconds: float) -> None:
        """Go on cutting one connection every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.cut_one()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.trouble.blackhole:
            await _swallow(reader)
            return
        host, _, port = self._target.rpartition(":")
        other_reader, other_writer = await asyncio.open_connection(host, int(port))
        try:
            if self.trouble.cut_handshakes > 0:
                self.trouble.cut_handshakes -= 1
                self.cuts += 1
                await _cut_handshake(reader, writer, other_reader, other_writer)
                return
            self._established.append(writer)
            rate = self.trouble.bytes_per_second
            if rate:
                await copy_both_ways(_Slow(reader, rate), writer, _Slow(other_reader, rate), other_writer)
            else:
                await copy_both_ways(reader, writer, other_reader, other_writer)
        finally:
            other_writer.close()
            with suppress(ValueError):
                self._established.remove(writer)


class _Slow:
    """Reads no faster than so many bytes a second."""

    def __init__(self, reader: asyncio.StreamReader, rate: int) -> None:
        self._reader = reader
        self._rate = rate

    async def read(self, n: int, /) -> bytes:
        piece = await self._reader.read(min(n, max(1, self._rate // TICKS)))
        await asyncio.sleep(len(piece) / self._rate)
        return piece


async def _swallow(reader: asyncio.StreamReader) -> None:
    while await reader.read(PIECE):
        pass


async def _cut_handshake(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Pass the client's first bytes on, the first of the server's answer back, and abort."""
    other_writer.write(await reader.read(PIECE))
    writer.write((await other_reader.read(CUT_AFTER))[:CUT_AFTER])
    await writer.drain()
    writer.transport.abort()
