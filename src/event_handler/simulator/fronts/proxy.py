"""Puts the fronts of a cluster together and starts them in front of its Auth server."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from event_handler.simulator.fronts import Front
from event_handler.simulator.fronts.discovery import Addresses
from event_handler.simulator.fronts.load_balancer import LoadBalancer
from event_handler.simulator.fronts.router import Ending, Router
from event_handler.simulator.fronts.tunnel import Tunnel
from event_handler.simulator.fronts.upgrade import PING_EVERY
from event_handler.simulator.fronts.web_server import WebServer
from event_handler.simulator.listener import Listener
from event_handler.simulator.tls import server_context


class Fronts:
    """The running fronts; `addresses` has host:port by name.

    `web`, and `tunnel` or `load_balancer` where there is one.
    """

    def __init__(self, directory: Path, cluster: str, auth: str, *, ping_every: float = PING_EVERY) -> None:
        self._directory = directory
        self._cluster = cluster
        self._auth = auth
        self._ping_every = ping_every
        self._stack = AsyncExitStack()
        self.addresses: dict[str, str] = {}

    async def start(self, front: Front, port: int = 0) -> None:
        """Start the fronts of that kind on loopback: on `port` (0 = a free one) what clients dial, on free ports the
        others.
        """
        if front is Front.SEPARATE:
            await self._start_separate(port)
            return
        server = await self._start_tls_routing(0 if front is Front.LOAD_BALANCER else port)
        if front is Front.LOAD_BALANCER:
            balancer = LoadBalancer(self.addresses["web"], str(self._directory / "web-ca.pem"))
            listener = Listener(balancer.serve)
            self._stack.push_async_callback(listener.close)
            self.addresses["load_balancer"] = await listener.start(
                port, server_context(self._directory / "web.pem", [])
            )
        web = self.addresses["web"]
        server.addresses = Addresses(web, _public(self.addresses.get("load_balancer", web)))

    async def close(self) -> None:
        await self._stack.aclose()

    async def _start_tls_routing(self, port: int) -> WebServer:
        tunnel = Tunnel(self._directory, self._auth)
        proxy = partial(server_context, self._directory / "proxy.pem", ["teleport-reversetunnel"])
        public = partial(server_context, self._directory / "web.pem", ["teleport-reversetunnel"])
        web = partial(server_context, self._directory / "web.pem", ["http/1.1"])
        # Upgraded connections are routed again; the tunnel's certificate is the cluster's own there, as the public one
        # was outside.
        server = WebServer(self._cluster, inside=lambda r, w: inside.serve(r, w), ping_every=self._ping_every)
        inside = Router(self._cluster, self._auth, Ending(proxy, tunnel.protocol), Ending(web, server.protocol))
        outside = Router(self._cluster, self._auth, Ending(public, tunnel.protocol), Ending(web, server.protocol))
        await self._start_web(server, outside, port)
        return server

    async def _start_separate(self, port: int) -> None:
        tunnel = Tunnel(self._directory, self._auth)
        server = WebServer(self._cluster, inside=None, ping_every=self._ping_every)
        web = Ending(partial(server_context, self._directory / "web.pem", ["http/1.1"]), server.protocol)
        await self._start_web(server, Router(self._cluster, "", None, web), port)
        listener = Listener(tunnel.serve)
        self._stack.push_async_callback(listener.close)
        self.addresses["tunnel"] = await listener.start()
        server.addresses = Addresses(
            self.addresses["web"], _public(self.addresses["web"]), _public(self.addresses["tunnel"])
        )

    async def _start_web(self, server: WebServer, router: Router, port: int) -> None:
        await server.start()
        self._stack.push_async_callback(server.close)
        listener = Listener(router.serve)
        self._stack.push_async_callback(listener.close)
        self.addresses["web"] = await listener.start(port)


def _public(address: str) -> str:
    """The address by the name in the public certificate."""
    return f"localhost:{address.rpartition(':')[2]}"
