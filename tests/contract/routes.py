"""A simulated cluster with a front, a relay with faults where its client dials, and each way in as one line of a
table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import time

import pytest

from event_handler.simulator import credentials as issued
from event_handler.simulator.authorities import load_or_make
from event_handler.simulator.certificates import issue, name, write_secret
from event_handler.simulator.events import Generator
from event_handler.simulator.faults import FaultyRelay
from event_handler.simulator.fronts import Front
from event_handler.simulator.fronts.proxy import Fronts
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from event_handler.teleport.auth.credentials import Credentials, read_identity
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Choice, Dialer, Route, direct
from event_handler.teleport.transport.connector import Connector, always
from event_handler.teleport.transport.routes import routes
from event_handler.teleport.transport.ssh_tunnel import tunnel, tunnel_direct
from event_handler.teleport.transport.upgrade import upgrade

CLUSTER = "sim.test"
BEHIND_PROXY = "proxy.sim.test"  # a name of the cluster's Proxy that does not resolve on this machine
LARGE = (
    512 * 1024
)  # bytes of an event; eight are more than a client takes without reading, so an export can be cut in the middle


@dataclass(frozen=True, slots=True)
class RouteCase:
    """One way into a cluster.

    `door` names the listener that the relay with faults stands in front of: the front's `web`, `tunnel`,
    `load_balancer`, or Auth's `address`. A way that is `discovered` asks another listener, `asked`, where the tunnel
    is, and dials that relay as the tunnel. `ssh` tells that an SSH session is between.
    """

    name: str
    front: Front | None
    door: str
    dial: Callable[[str, Credentials], Dialer]
    asked: str = ""
    ssh: bool = False

    def __str__(self) -> str:
        return self.name


ROUTES = [
    RouteCase("auth", None, "address", lambda address, _: direct(address)),
    RouteCase("tls-routing", Front.TLS_ROUTING, "web", lambda address, _: direct(address)),
    RouteCase("upgrade", Front.LOAD_BALANCER, "load_balancer", lambda address, _: upgrade(address)),
    RouteCase("tunnel", Front.SEPARATE, "tunnel", tunnel, asked="web", ssh=True),
    RouteCase("tunnel-in-tls", Front.TLS_ROUTING, "web", tunnel, asked="web", ssh=True),
    RouteCase("tunnel-in-upgrade", Front.LOAD_BALANCER, "load_balancer", tunnel, asked="load_balancer", ssh=True),
    RouteCase("tunnel-direct", Front.SEPARATE, "tunnel", tunnel_direct, ssh=True),
]


@dataclass(slots=True)
class Cluster:
    """A running cluster. `address` is what the client is configured with, `door` the relay's as it is dialed.

    `began` is a time (epoch) of the day that its events are of.
    """

    directory: Path
    address: str
    door: str
    relay: FaultyRelay
    auth: AuthServer
    began: float

    def credentials(self) -> Credentials:
        return read_identity(str(self.directory / "identity"))


@asynccontextmanager
async def running(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    front: Front | None,
    door: str,
    asked: str = "",
    host: str = "localhost",
) -> AsyncIterator[Cluster]:
    """Start a cluster that is dialed by the name `host`, and let this process trust its public certificate."""
    monkeypatch.setattr(issued, "PUBLIC_NAMES", (*issued.PUBLIC_NAMES, BEHIND_PROXY))
    issued.write_cluster_files(directory, CLUSTER)
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "web-ca.pem"))
    async with AsyncExitStack() as stack:
        began = time()
        auth = AuthServer(large_log(began), cluster=CLUSTER, bulk=True, faults=Faults())
        server, port = await auth.start(directory, "127.0.0.1", 0)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        listeners = {"address": f"127.0.0.1:{port}"}
        if front is not None:
            fronts = Fronts(directory, CLUSTER, listeners["address"])
            stack.push_async_callback(fronts.close)
            await fronts.start(front)
            listeners |= fronts.addresses
        relay = FaultyRelay(listeners[door])
        stack.push_async_callback(relay.close)
        dialed = named(await relay.start(), host)
        if asked:
            monkeypatch.setenv("TELEPORT_TUNNEL_PUBLIC_ADDR", dialed)
        yield Cluster(directory, named(listeners[asked], host) if asked else dialed, dialed, relay, auth, began)


def named(address: str, host: str) -> str:
    return f"{host}:{address.rpartition(':')[2]}"


def large_log(began: float) -> AuditLog:
    log = AuditLog(seed=1)
    generator = Generator(CLUSTER, 1)
    log.events = [generator.large_event(began, LARGE) for _ in range(8)]
    log.cut_chunks(100, late=0, late_seconds=0.0, duplicates=0.0)
    return log


@contextmanager
def client_on(
    address: str, credentials: Credentials, *, dial: Dialer | None = None, choice: Choice = "auto"
) -> Iterator[Client]:
    """A client that goes one way by `dial`, or looks for its way by `choice`."""
    listed = [Route("tested", address, dial)] if dial else routes(address, credentials, choice=choice)
    client = Client(Connection(Connector(always(*listed)), client_context(credentials)))
    try:
        yield client
    finally:
        client.close()


def identity_of(directory: Path, cluster: str) -> Credentials:
    """A valid identity of a cluster that has been set up in `directory`: its authorities are its own."""
    issued.write_cluster_files(directory, cluster)
    return read_identity(str(directory / "identity"))


def certify_auth(cluster: Cluster, server_name: str, lifetime: timedelta = timedelta(days=1)) -> None:
    """Give Auth another certificate of the right authority, from its next connection on."""
    authority = load_or_make(cluster.directory, CLUSTER).host_signer
    key, certificate = issue(authority, name("server", CLUSTER), lifetime, (server_name,))
    write_secret(cluster.directory / "server.pem", certificate + key)
    cluster.auth.reload(cluster.directory)
