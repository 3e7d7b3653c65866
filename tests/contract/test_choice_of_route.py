"""Left to choose, a client finds the way that works in front of every cluster.

Where none does, the real cause comes first.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from event_handler.errors import ConnectError
from event_handler.simulator import credentials as issued
from event_handler.simulator.fronts import Front
from event_handler.simulator.tls import server_context
from event_handler.teleport.auth.credentials import Credentials
from event_handler.teleport.transport import ssh_tunnel
from tests.contract.routes import CLUSTER, Cluster, client_on, identity_of, running

BOUND = 20.0  # seconds for anything here, on a busy machine too
PATIENCE = (
    1.0  # seconds for an SSH handshake: simulated TLS servers keep a connection that speaks SSH open, real ones end it
)
WAYS = ["direct", "tunnel", "tunnel-direct", "upgrade"]

pytestmark = pytest.mark.usefixtures("no_settings_from_outside", "nothing_left")

fronts = pytest.mark.parametrize(
    ("front", "door"),
    [
        (None, "address"),
        (Front.TLS_ROUTING, "web"),
        (Front.SEPARATE, "web"),
        (Front.SEPARATE, "tunnel"),
        (Front.LOAD_BALANCER, "load_balancer"),
    ],
    ids=["auth", "tls-routing", "separate", "tunnel-port", "load-balancer"],
)


@pytest.fixture
async def cluster(
    front: Front | None, door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(ssh_tunnel, "SSH_TIMEOUT", PATIENCE)
    async with running(tmp_path / "cluster", monkeypatch, front, door) as made:
        yield made


async def ping(address: str, credentials: Credentials) -> str:
    with client_on(address, credentials) as client:
        async with asyncio.timeout(BOUND):
            return (await client.ping()).name


async def refusal(address: str, credentials: Credentials) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await ping(address, credentials)
    return caught.value


def lines_of(error: ConnectError) -> list[tuple[str, str]]:
    """Way and cause of each part behind the heading."""
    assert error.message.startswith("no route into the cluster: ")
    assert str(error) == f"{error.message}. {error.hint}"
    parts = re.split(
        rf"(?:^no route into the cluster: |; )({'|'.join(sorted(WAYS, key=len, reverse=True))}): ", error.message
    )
    told = list(zip(parts[1::2], parts[2::2], strict=True))
    assert sorted(name for name, _ in told) == WAYS
    return told


@fronts
async def test_it_finds_the_way(cluster: Cluster) -> None:
    assert await ping(cluster.address, cluster.credentials()) == CLUSTER


@fronts
async def test_an_identity_of_another_cluster_is_the_first_line(
    cluster: Cluster, tmp_path: Path, front: Front | None, door: str
) -> None:
    error = await refusal(cluster.address, identity_of(tmp_path / "other", "other.test"))
    route, cause = lines_of(error)[0]
    if front is None:
        assert route == "direct"
        assert "is not trusted" in cause
        assert "another cluster than the identity" in error.hint
    elif door == "tunnel":
        assert route == "tunnel-direct"
        assert "is not trusted" in cause
        assert "the identity belongs to this cluster" in error.hint
    else:
        assert route == "tunnel"
        assert re.fullmatch(
            rf"{cluster.address} is the Proxy of the cluster {CLUSTER}, and .*/identity is of other\.test", cause
        )
        assert error.hint == "Correct teleport.addr, or make an identity in that cluster."


@fronts
async def test_an_expired_certificate_is_the_cause_that_is_told(cluster: Cluster, front: Front | None) -> None:
    issued.Credentials(cluster.directory, CLUSTER, lifetime=timedelta(seconds=-5)).renew()
    error = await refusal(cluster.address, cluster.credentials())
    if front is Front.SEPARATE:
        _, cause = lines_of(error)[0]
        assert "refused our SSH certificate" in cause
        assert "has not expired" in error.hint
    else:
        assert error.message.startswith(
            f"Teleport at {cluster.address} refused our certificate: it has expired ({cluster.directory}/identity"
        )
        assert "tbot" in error.hint
        assert "tctl auth sign" in error.hint


async def test_a_name_that_does_not_resolve_is_told_once(tmp_path: Path) -> None:
    error = await refusal("no-such-host.invalid:443", identity_of(tmp_path, CLUSTER))
    assert re.fullmatch(r"the name of no-such-host\.invalid:443 does not resolve \(.+\)", error.message)
    assert error.hint == "Check teleport.addr."


async def test_a_port_on_which_nothing_listens_is_told_once(tmp_path: Path) -> None:
    error = await refusal("127.0.0.1:1", identity_of(tmp_path, CLUSTER))
    assert error.message == "cannot connect to 127.0.0.1:1 (Connection refused)"
    assert error.hint == "Check teleport.addr and that Teleport runs."


@asynccontextmanager
async def web_server(certificate: Path) -> AsyncIterator[str]:
    """An ordinary web server with a certificate that is trusted; gives its address."""
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=server_context(certificate, ["http/1.1"])).start()
    yield f"localhost:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_web_server_that_is_no_teleport_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_tunnel, "SSH_TIMEOUT", PATIENCE)
    credentials = identity_of(tmp_path, CLUSTER)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web-ca.pem"))
    async with web_server(tmp_path / "web.pem") as address:
        error = await refusal(address, credentials)
    assert lines_of(error)[0] == (
        "tunnel",
        f"{address} answers /webapi/find with something other than a Proxy's description: it is not Teleport",
    )
    assert error.hint == "Check that teleport.addr is the web address of a Teleport Proxy."
