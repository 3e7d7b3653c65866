"""A collector that demands a client certificate, for every test that delivers over the network."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from event_handler.simulator.certificates import issue, make_authority, name, write_secret
from event_handler.sinks.fluentd import FluentdOptions


class Collector:
    """Keeps every event by path, with the request that brought it, and can be told to fail."""

    def __init__(self) -> None:
        self.events: dict[str, list[dict[str, object]]] = {}
        self.fail_every = 0
        self.quotes = False  # a failure repeats what was sent, as some receivers do
        self.refused: frozenset[str] = frozenset()  # ids of events that it does not want
        self.stall_once = 0.0
        self.slow = 0.0  # seconds that every request takes
        self.requests = 0
        self.settings = FluentdOptions(url="", session_url="")
        self.last_request = monotonic()

    async def handle(self, request: web.Request) -> web.Response:
        data = await request.read()
        body = json.loads(data)
        self.requests += 1
        self.last_request = monotonic()
        stall, self.stall_once = self.stall_once, 0.0
        await asyncio.sleep(stall + self.slow)
        if self.fail_every and self.requests % self.fail_every == 0:
            return web.Response(status=503, body=b"cannot take " + data if self.quotes else b"scripted failure")
        events = body if isinstance(body, list) else [body]
        if any(event["uid"] in self.refused for event in events):
            return web.Response(status=400, text="scripted refusal")
        self.events.setdefault(request.path, []).extend(events)
        return web.Response(text="ok")

    def ids(self, path: str = "/test.log") -> Counter[str]:
        return Counter(str(event["uid"]) for event in self.events.get(path, []))


@asynccontextmanager
async def serving(made: Collector, context: ssl.SSLContext, port: int = 0) -> AsyncIterator[int]:
    """Let the collector answer on that port of localhost, 0 for a free one; yields the port it got."""
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "localhost", port, ssl_context=context).start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Collector]:
    async with a_collector(tmp_path / "collector") as made:
        yield made


@asynccontextmanager
async def a_collector(directory: Path) -> AsyncIterator[Collector]:
    """A collector with its certificates in that directory."""
    directory.mkdir()
    authority = make_authority("collector")
    server_key, server_cert = issue(authority, name("server", "collector"), timedelta(days=1), ("localhost",))
    key, cert = issue(authority, name("client", "collector"), timedelta(days=1))
    write_secret(directory / "ca.crt", authority.certificate.public_bytes(Encoding.PEM))
    write_secret(directory / "server.pem", server_cert + server_key)
    write_secret(directory / "client.crt", cert)
    write_secret(directory / "client.key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    context.load_verify_locations(directory / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    made = Collector()
    async with serving(made, context) as port:
        url = f"https://localhost:{port}"
        ca_file, cert_file, key_file = (str(directory / file) for file in ("ca.crt", "client.crt", "client.key"))
        made.settings = FluentdOptions(
            url=f"{url}/test.log",
            session_url=f"{url}/session",
            ca=ca_file,
            cert=cert_file,
            key=key_file,
            format="array",
        )
        yield made
