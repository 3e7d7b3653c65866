"""The connection upgrade: a WebSocket at the Proxy that carries another TLS connection, for load balancers that end
TLS.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from event_handler.simulator.listener import PIECE

PLAIN, WITH_PINGS = "alpn", "alpn-ping"
PING_EVERY = 30.0  # seconds, as a real Proxy
PING = b"teleport"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve_upgrade(request: web.Request, handler: Handler, ping_every: float) -> web.StreamResponse:
    """Answer the request with 101 and let `handler` have the bytes that come in binary messages."""
    offered = {kind.strip() for kind in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
    if not offered & {PLAIN, WITH_PINGS}:
        raise web.HTTPBadRequest(text="Sec-WebSocket-Protocol must be alpn or alpn-ping")
    frames = web.WebSocketResponse(protocols=(WITH_PINGS, PLAIN), compress=False)
    await frames.prepare(request)
    outer, inner = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=outer)
    tasks = [asyncio.create_task(_inside(inner, handler)), asyncio.create_task(_send(reader, frames))]
    if frames.ws_protocol == WITH_PINGS:
        tasks.append(asyncio.create_task(_ping(frames, ping_every)))
    try:
        async for message in frames:
            if message.type is not WSMsgType.BINARY:
                break
            writer.write(message.data)
            await writer.drain()
    except OSError:
        await frames.close()  # the inner side is gone
    finally:
        writer.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return frames


async def _inside(end: socket.socket, handler: Handler) -> None:
    reader, writer = await asyncio.open_connection(sock=end)
    try:
        await handler(reader, writer)
    finally:
        writer.close()


async def _send(reader: asyncio.StreamReader, frames: web.WebSocketResponse) -> None:
    while piece := await reader.read(PIECE):
        await frames.send_bytes(piece)
    await frames.close()


async def _ping(frames: web.WebSocketResponse, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await frames.ping(PING)
