"""A collector for the demo: HTTPS that demands a client certificate, counts what arrives and when."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from datetime import datetime
from pathlib import Path
from time import time

from aiohttp import web

LARGEST_BODY = 32 * 1024 * 1024  # bytes, Fluentd's own default


class Collector:
    """Counts deliveries by event id, and events by session; keeps how late the newest events were, in seconds."""

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()
        self.sessions: Counter[str] = Counter()
        self.lags: list[float] = []
        self._runner: web.AppRunner | None = None

    async def start(self, certificate: Path, key: Path, passphrase: str, authority: Path) -> str:
        """Listen on a free port of localhost and return the URL."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key, passphrase)
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "localhost", 0, ssl_context=context).start()
        return f"https://localhost:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        events = body if isinstance(body, list) else [body]
        if request.path.startswith("/session."):
            self.sessions[request.path.removeprefix("/session.").removesuffix(".log")] += len(events)
        else:
            self.ids.update(event["uid"] for event in events)
            now = time()
            self.lags += [now - datetime.fromisoformat(event["time"]).timestamp() for event in events]
        return web.Response()
