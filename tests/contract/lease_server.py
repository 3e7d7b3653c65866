"""Kubernetes' API of Leases by hand: versions, conflicts, rights; it can be cut off, be slow, and lose answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web

from tests.contract.pki import Pki

NAMESPACE = "security"
TOKEN = "the-token-of-the-pod"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


@dataclass
class LeaseServer:
    """`leases` by name. While it is `away` for a token, its requests are not answered; the next `lost` answers get
    lost after the request was done.
    """

    account: Path
    port: int = 0
    leases: dict[str, dict[str, Any]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    lost: int = 0
    allowed: bool = True
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    asked: list[tuple[str, str]] = field(default_factory=list)
    changes: int = 0

    @property
    def environment(self) -> Mapping[str, str]:
        return {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def account_of(self, name: str) -> Path:
        """A service account with a token of its own."""
        directory = self.account.with_name(name)
        directory.mkdir(exist_ok=True)
        for file in ("ca.crt", "namespace"):
            (directory / file).write_bytes((self.account / file).read_bytes())
        (directory / "token").write_text(name)
        self.tokens.add(name)
        return directory

    async def handle(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        while token in self.away:
            await asyncio.sleep(0.02)
        if token not in self.tokens:
            return _refused(401, "Unauthorized")
        if not self.allowed or request.match_info["namespace"] != NAMESPACE:
            return _refused(403, "leases.coordination.k8s.io is forbidden")
        self.asked.append((request.method, token))
        try:
            body = await request.json() if request.can_read_body else None
        except ConnectionError:  # it has given up meanwhile
            return _refused(400, "the client has gone")
        answer = self._done(request.method, request.match_info.get("name", ""), body)
        if self.lost and request.method != "GET":
            self.lost -= 1
            await asyncio.sleep(3600)
        return answer

    def _done(self, method: str, name: str, body: dict[str, Any] | None) -> web.Response:
        if method == "POST" and body is not None:
            name = body["metadata"]["name"]
            if name in self.leases:
                return _refused(409, f'leases "{name}" already exists')
            body["metadata"] |= {"uid": str(uuid4()), "resourceVersion": self._next()}
            self.leases[name] = body
            return web.json_response(body, status=201)
        found = self.leases.get(name)
        if found is None:
            return _refused(404, f'leases "{name}" not found')
        if method == "PUT" and body is not None:
            if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
                return _refused(409, "the object has been modified")
            body["metadata"]["resourceVersion"] = self._next()
            self.leases[name] = found = body
        return web.json_response(found)

    def _next(self) -> str:
        self.changes += 1
        return str(self.changes)


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": message, "code": status}, status=status)


def write_account(directory: Path, authority: bytes, token: str, namespace: str) -> Path:
    """The files that a pod finds."""
    directory.mkdir()
    (directory / "ca.crt").write_bytes(authority)
    (directory / "token").write_text(f"{token}\n")
    (directory / "namespace").write_text(namespace)
    return directory


@asynccontextmanager
async def lease_server(directory: Path, pki: Pki) -> AsyncIterator[LeaseServer]:
    account = write_account(directory / "account", pki.path("ca.crt").read_bytes(), TOKEN, NAMESPACE)
    server = LeaseServer(account)
    app = web.Application()
    app.router.add_post(LEASES, server.handle)
    app.router.add_route("GET", f"{LEASES}/{{name}}", server.handle)
    app.router.add_put(f"{LEASES}/{{name}}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = pki.server_context("localhost")
    context.verify_mode = ssl.CERT_NONE  # a pod has no certificate
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.away.clear()
        await runner.cleanup()
