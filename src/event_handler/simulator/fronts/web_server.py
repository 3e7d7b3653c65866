"""The Proxy's web server, as far as a client needs it to find its way: discovery and the connection upgrade."""

from __future__ import annotations

import asyncio

from aiohttp import web

from event_handler.simulator.fronts.discovery import Addresses, find, ping
from event_handler.simulator.fronts.upgrade import Handler, serve_upgrade


class WebServer:
    """Protocols for connections whose TLS has ended.

    `inside` serves upgraded connections, None = there are none here.
    """

    def __init__(self, cluster: str, *, inside: Handler | None, ping_every: float) -> None:
        self._cluster = cluster
        self._inside = inside
        self._ping_every = ping_every
        self.addresses = Addresses("", "")
        app = web.Application()
        app.router.add_get("/webapi/find", self._find)
        app.router.add_get("/webapi/ping", self._ping)
        if inside is not None:
            app.router.add_get("/webapi/connectionupgrade", self._upgrade)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)

    async def start(self) -> None:
        await self._runner.setup()

    async def close(self) -> None:
        await self._runner.cleanup()

    def protocol(self) -> asyncio.BaseProtocol:
        """A protocol for one accepted connection."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the web server is not started")
        return server()

    async def _find(self, request: web.Request) -> web.Response:
        return web.json_response(find(self._cluster, self.addresses))

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response(ping(self._cluster, self.addresses))

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        if self._inside is None:
            raise web.HTTPNotFound
        return await serve_upgrade(request, self._inside, self._ping_every)
