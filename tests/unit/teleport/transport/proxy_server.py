"""A Proxy behind a load balancer that ends TLS, played by another implementation of HTTP and WebSocket (aiohttp)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.unit.teleport.transport.servers import take_what_waits


@dataclass
class UpgradingProxy:
    """Leads upgraded connections to a local port.

    `kinds` are the protocol names it knows; the rest tells what came in.
    """

    port: int
    kinds: tuple[str, ...] = ("alpn", "alpn-ping")
    find: dict[str, Any] = field(default_factory=dict)
    pings: bool = False
    asked: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    endings: list[tuple[WSMsgType, Any]] = field(default_factory=list)

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext) -> AsyncIterator[int]:
        app = web.Application()
        app.router.add_get("/webapi/find", self._find)
        app.router.add_get("/webapi/connectionupgrade", self._upgrade)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await take_what_waits()
            await runner.cleanup()

    async def _find(self, _: web.Request) -> web.Response:
        return web.json_response(self.find)

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        kind = request.headers.get("Sec-WebSocket-Protocol", "")
        self.asked.append(kind)
        self.hosts.append(request.host)
        if kind not in self.kinds:
            return web.Response(status=400)
        socket = web.WebSocketResponse(
            protocols=self.kinds, autoping=False, autoclose=False, compress=False, max_msg_size=0
        )
        await socket.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        down = asyncio.create_task(self._down(reader, socket))
        try:
            while (message := await socket.receive()).type in (WSMsgType.BINARY, WSMsgType.PONG):
                if message.type is WSMsgType.BINARY:
                    writer.write(message.data)
                    await writer.drain()
                else:
                    self.pongs.append(message.data)
            self.endings.append((message.type, message.data))
        finally:
            writer.transport.abort()
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)
        return socket

    async def _down(self, reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.pings:
                    await socket.ping(b"teleport")
                await socket.send_bytes(data)
            await socket.close()
