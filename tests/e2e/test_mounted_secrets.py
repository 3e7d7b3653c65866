"""What Kubernetes has mounted is swapped while events flow: the identity, the receiver's certificates, a token."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from event_handler.simulator.certificates import issue, make_authority, name, write_secret
from event_handler.simulator.credentials import swap
from tests.e2e.processes import DAYS, Started, handler, simulated
from tests.e2e.test_access import LIFETIME, LIVE, REFRESH, logged

TOKENS = ("the-first-token", "the-second-token")
PATIENCE = 60  # seconds; a busy machine has them
SETTINGS = """
storage = "{directory}/storage"
start-time = "{start}"
window-size = "8760h"

[teleport]
addr = "{address}"
identity = "{identity}"

{refresh}
[sinks.siem]
type = "webhook"
body = "array"
url = "https://localhost:{port}/"
ca = "{mount}/ca.crt"
cert = "{mount}/tls.crt"
key = "{mount}/tls.key"
bearer-file = "{mount}/token"
"""


class Receiver:
    """Takes events from whoever has the certificate and the token that are good at the time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ids: Counter[str] = Counter()
        self.token, self.refused, self.more = "", 0, asyncio.Event()

    def mount(self, token: str) -> dict[str, bytes]:
        """The secret that a handler has to show from now on; it is signed by a new authority, as the receiver is."""
        authority = make_authority("receiver")
        server_key, server = issue(authority, name("server", "receiver"), timedelta(days=1), ("localhost",))
        key, certificate = issue(authority, name("client", "receiver"), timedelta(days=1))
        ca = authority.certificate.public_bytes(Encoding.PEM)
        (self.directory / "ca.pem").write_bytes(ca)
        write_secret(self.directory / "server.pem", server + server_key)
        self.token = token
        return {"ca.crt": ca, "tls.crt": certificate, "tls.key": key, "token": token.encode() + b"\n"}

    async def take(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != f"Bearer {self.token}":
            self.refused += 1
            return web.Response(status=401)
        self.ids.update(event["uid"] for event in json.loads(await request.read()))
        self.more.set()
        return web.Response()

    @asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[int]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.pem")
        context.load_verify_locations(self.directory / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_post("/", self.take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "localhost", port, ssl_context=context).start()
        yield int(runner.addresses[0][1])
        await runner.cleanup()

    async def until_more(self) -> None:
        self.more.clear()
        await asyncio.wait_for(self.more.wait(), PATIENCE)


async def test_all_that_is_mounted_may_be_swapped_while_events_flow(tmp_path: Path) -> None:
    mount, cluster = tmp_path / "mount", tmp_path / "sim"
    mount.mkdir()
    receiver = Receiver(tmp_path)
    swap(mount, receiver.mount(TOKENS[0]))
    options = (f"--lifetime={LIFETIME}", "--renew=1", "--renew-by=symlink", "--live=50", f"--live-seconds={LIVE}")
    async with simulated(cluster, *options, "--events=500", "--sessions=0") as ready:
        async with receiver.serving(0) as port:
            config = tmp_path / "teleport-event-handler.toml"
            config.write_text(
                SETTINGS.format(
                    directory=tmp_path,
                    start=f"{datetime.now(UTC) - timedelta(days=DAYS):%Y-%m-%dT%H:%M:%SZ}",
                    address=ready["address"],
                    identity=ready["identity"],
                    refresh=REFRESH,
                    port=port,
                    mount=mount,
                )
            )
            started = Started(await handler(config, "--poll-interval=300ms", "--log-format=json"))
            await started.until("connected to Teleport")
            await receiver.until_more()
        files = receiver.mount(TOKENS[1])
        async with receiver.serving(port):  # first the receiver changes, and a while later what is mounted
            await asyncio.sleep(1.0)
            before = len(receiver.ids)
            swap(mount, files)
            await receiver.until_more()
            assert len(receiver.ids) > before
            await asyncio.sleep(LIVE - LIFETIME)
            async with asyncio.timeout(PATIENCE):
                while set(logged(cluster)) - set(receiver.ids):
                    await asyncio.sleep(0.1)
            await started.stop()
    assert (cluster / "identity").readlink() == Path("..data/identity")
    assert (mount / "tls.key").readlink() == Path("..data/tls.key")
    assert started.process.returncode == 0
    assert started.told("credentials renewed") > 1
    assert started.told("connected to Teleport") == 1
    assert started.told("event kept as dead letter") == 0
    assert set(receiver.ids) == set(logged(cluster))
