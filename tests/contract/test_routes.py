"""Every way into a cluster keeps the same promises: it gets in, or says in bounded time what failed, where, and what to
do.

The cluster is simulated; client, TLS, SSH and sockets are real. What is slow or broken stands where the client dials.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest

from event_handler.errors import ConnectError, RpcError
from event_handler.simulator import credentials as issued
from event_handler.simulator.certificates import KeyKind
from event_handler.simulator.forward_proxy import ForwardProxy, Kind
from event_handler.teleport.auth.credentials import Credentials
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.transport import base, connector, discovery, ssh_tunnel, tls_stream
from event_handler.teleport.transport import upgrade as upgrading
from tests.contract.routes import (
    BEHIND_PROXY,
    CLUSTER,
    ROUTES,
    Cluster,
    RouteCase,
    certify_auth,
    client_on,
    identity_of,
    running,
)

# seconds in which any answer must be there, on a busy machine too; without limits of its own a black hole takes for
# ever
BOUND = 20.0
PATIENCE = 1.0  # seconds, in place of each limit of a step, where nothing ever answers
SLOW = 40_000  # bytes a second of each direction
EVENTS = 8  # in the log of the cluster

every_route = pytest.mark.parametrize("route", ROUTES, ids=str)
pytestmark = pytest.mark.usefixtures("no_settings_from_outside", "nothing_left")


@asynccontextmanager
async def cluster_of(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str = "localhost"
) -> AsyncIterator[Cluster]:
    async with running(tmp_path / "cluster", monkeypatch, route.front, route.door, route.asked, host) as cluster:
        yield cluster


async def ping(route: RouteCase, cluster: Cluster, credentials: Credentials | None = None) -> str:
    """The name of the cluster that answers a call on this way."""
    credentials = credentials or cluster.credentials()
    with client_on(cluster.address, credentials, dial=route.dial(cluster.address, credentials)) as client:
        async with asyncio.timeout(BOUND):
            return (await client.ping()).name


async def refusal(route: RouteCase, cluster: Cluster, credentials: Credentials | None = None) -> ConnectError:
    """Why this way does not lead in; the message names the address that was dialed, and the hint is there."""
    with pytest.raises(ConnectError) as caught:
        await ping(route, cluster, credentials)
    assert {cluster.address, cluster.door} & set(re.findall(r"[\w.]+:\d+", caught.value.message)), caught.value.message
    assert caught.value.hint
    return caught.value


@every_route
async def test_it_leads_in(route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        assert await ping(route, cluster) == CLUSTER


@pytest.mark.parametrize("kind", [Kind.CONNECT, Kind.SOCKS5], ids=str)
@every_route
async def test_it_leads_in_through_a_proxy_that_alone_knows_the_name(
    route: RouteCase, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = ForwardProxy(kind, "user", "p:ss", hosts={BEHIND_PROXY: "127.0.0.1"})
    scheme = "http" if kind is Kind.CONNECT else "socks5"
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://user:p%3Ass@{await proxy.start()}")
    async with cluster_of(route, tmp_path, monkeypatch, BEHIND_PROXY) as cluster:
        assert await ping(route, cluster) == CLUSTER
        assert set(proxy.targets) == {cluster.address, cluster.door}
    await proxy.close()


@every_route
async def test_it_leads_in_on_a_slow_line(route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "HEAD_START", 0.01)
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        cluster.relay.trouble.bytes_per_second = SLOW
        assert await ping(route, cluster) == CLUSTER


@pytest.mark.parametrize("kind", KeyKind, ids=str)
@every_route
async def test_it_leads_in_with_keys_of_every_kind(
    route: RouteCase, kind: KeyKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        issued.Credentials(cluster.directory, CLUSTER, key_kind=kind).renew()
        assert await ping(route, cluster) == CLUSTER


@every_route
async def test_an_identity_of_another_cluster_is_told_as_that(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        error = await refusal(route, cluster, identity_of(tmp_path / "other", "other.test"))
    if route.asked:
        assert f"{cluster.address} is the Proxy of the cluster {CLUSTER}, and " in error.message
        assert error.message.endswith("is of other.test")
        assert error.conclusive
    elif route.name == "auth":
        assert "the certificate of the server at" in error.message
        assert "another cluster than the identity" in error.hint
    else:
        assert "not trusted" in error.message or "closed the connection in the TLS handshake" in error.message
        assert "the identity belongs to this cluster" in error.hint


@every_route
async def test_a_cluster_of_the_same_name_with_other_authorities_is_not_trusted(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        error = await refusal(route, cluster, identity_of(tmp_path / "other", CLUSTER))
    assert re.search(r"certificate of .* is not trusted \(", error.message)
    assert "authority was rotated" in error.hint


@every_route
async def test_an_expired_certificate_is_told_with_the_way_to_renew_it(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        issued.Credentials(cluster.directory, CLUSTER, lifetime=timedelta(seconds=-5)).renew()
        error = await refusal(route, cluster)
    assert error.conclusive
    assert "expired" in str(error)
    assert "SSH certificate" in error.message if route.ssh else "tctl auth sign" in error.hint


@every_route
async def test_a_server_of_the_cluster_that_is_not_auth_is_not_taken_for_it(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        certify_auth(cluster, "elsewhere.sim.test")
        error = await refusal(route, cluster)
    assert "not Auth: its certificate is not for teleport.cluster.local" in error.message
    assert "teleport.addr" in error.hint


async def test_a_server_certificate_out_of_its_time_is_told_as_a_matter_of_clocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(ROUTES[0], tmp_path, monkeypatch) as cluster:
        certify_auth(cluster, "teleport.cluster.local", timedelta(seconds=-5))
        error = await refusal(ROUTES[0], cluster)
    assert "is not valid at this time (certificate has expired)" in error.message
    assert "clocks" in error.hint


@every_route
async def test_a_connection_cut_in_the_handshake_is_told_and_the_next_call_gets_in(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        cluster.relay.trouble.cut_handshakes = 9
        error = await refusal(route, cluster)
        assert re.search(
            r"closed the connection in the TLS handshake|TLS with .* failed|SSH connection to .* broke", error.message
        )
        cluster.relay.trouble.cut_handshakes = 0
        assert await ping(route, cluster) == CLUSTER


async def export(client: Client, moment: float) -> AsyncIterator[int]:
    """Export the first chunk of a day; yields the number of events of each piece."""
    chunks = [name async for name in client.chunks(moment)]
    async for events, _ in client.export(moment, chunks[0], ""):
        yield len(events)


@every_route
async def test_a_connection_cut_in_mid_stream_ends_the_stream_with_an_error_and_the_next_call_reconnects(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of(route, tmp_path, monkeypatch) as cluster, asyncio.timeout(BOUND):
        credentials = cluster.credentials()
        with client_on(cluster.address, credentials, dial=route.dial(cluster.address, credentials)) as client:
            pieces = export(client, cluster.began)
            assert await anext(pieces) < EVENTS
            cluster.relay.cut_all()
            with pytest.raises((ConnectError, RpcError), match="ExportUnstructuredEvents"):
                await sum_of(pieces)
            assert await sum_of(export(client, cluster.began)) == EVENTS


async def sum_of(pieces: AsyncIterator[int]) -> int:
    return sum([count async for count in pieces])


@every_route
async def test_silence_is_told_in_bounded_time(
    route: RouteCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {
        base: "TCP_TIMEOUT",
        connector: "TLS_TIMEOUT",
        tls_stream: "TLS_TIMEOUT",
        discovery: "FIND_TIMEOUT",
        ssh_tunnel: "SSH_TIMEOUT",
    }
    for module, limit in limits.items():
        monkeypatch.setattr(module, limit, PATIENCE)
    monkeypatch.setattr(upgrading, "TEST_TIMEOUT", PATIENCE)
    async with cluster_of(route, tmp_path, monkeypatch) as cluster:
        cluster.relay.trouble.blackhole = True
        began = monotonic()
        error = await refusal(route, cluster)
        assert PATIENCE <= monotonic() - began < BOUND
    assert "within 1 s" in error.message
