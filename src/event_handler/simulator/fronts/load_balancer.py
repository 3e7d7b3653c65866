"""A load balancer of the kind that ends TLS: speaks HTTP only and selects no ALPN, so TLS routing does not get through
it.
"""

from __future__ import annotations

import asyncio
import ssl

from event_handler.simulator.listener import PIECE, Writer, copy_both_ways

METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class LoadBalancer:
    """Passes HTTP on to the Proxy at `target` (host:port) over TLS that trusts `authority`."""

    def __init__(self, target: str, authority: str) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=authority)
        self._context.set_alpn_protocols(["http/1.1"])

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """Serve a connection whose TLS has ended."""
        first = await reader.read(PIECE)
        if not first.startswith(METHODS):
            writer.write(BAD_REQUEST)
            await writer.drain()
            return
        host, _, port = self._target.rpartition(":")
        other_reader, other_writer = await asyncio.open_connection(host, int(port), ssl=self._context)
        other_writer.write(first)
        await copy_both_ways(reader, writer, other_reader, other_writer)
