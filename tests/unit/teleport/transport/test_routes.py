"""The list of ways is in order and complete, and a simulated cluster answers a call on each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from event_handler.errors import ConfigurationError, ConnectError
from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from event_handler.teleport.auth.credentials import Credentials, read_identity
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Choice, Dialer, Route, routes
from event_handler.teleport.transport.connector import Connector, always
from tests.unit.teleport.transport.proxy_server import UpgradingProxy
from tests.unit.teleport.transport.servers import HttpProxy, PublicAuthority, SocksProxy, listening
from tests.unit.teleport.transport.ssh_server import TunnelServer, make_cluster


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    write_cluster_files(tmp_path / "files", "example.test")
    return read_identity(str(tmp_path / "files" / "identity"))


@pytest.fixture
async def auth(credentials: Credentials, tmp_path: Path) -> AsyncIterator[int]:
    """The port of a simulated Auth server."""
    server = AuthServer(AuditLog(seed=1), cluster="example.test", bulk=True, faults=Faults())
    listener, port = await server.start(tmp_path / "files", "127.0.0.1", 0)
    yield port
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("auto", ["direct", "upgrade", "tunnel", "tunnel-direct"]),
        ("direct", ["direct"]),
        ("tls-routing", ["direct"]),
        ("upgrade", ["upgrade"]),
        ("tunnel", ["tunnel", "tunnel-direct"]),
    ],
)
def test_the_ways_are_in_order(credentials: Credentials, choice: Choice, names: list[str]) -> None:
    assert [route.name for route in routes("teleport.example.com:443", credentials, choice=choice)] == names


@pytest.mark.parametrize("missing", [{"ssh_certificate": ""}, {"ssh_authorities": ()}])
def test_without_a_part_of_the_ssh_material_there_is_no_tunnel(
    credentials: Credentials, missing: dict[str, object]
) -> None:
    without = replace(credentials, **missing)  # type: ignore[arg-type]
    assert [route.name for route in routes("teleport.example.com:443", without)] == ["direct", "upgrade"]
    with pytest.raises(ConfigurationError, match="needs an SSH certificate"):
        routes("teleport.example.com:443", without, choice="tunnel")


def test_what_is_no_address_is_refused_at_once(credentials: Credentials) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        routes("teleport.example.com", credentials)


async def ping(dial: Dialer, credentials: Credentials) -> str:
    client = Client(Connection(Connector(always(Route("tested", "", dial))), client_context(credentials)))
    try:
        return (await client.ping()).name
    finally:
        client.close()


async def test_auth_answers_on_its_own_port_and_through_proxies(
    credentials: Credentials, auth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    [route] = routes(f"127.0.0.1:{auth}", credentials, choice="direct")
    assert await ping(route.dial, credentials) == "example.test"
    [route] = routes("auth.example.com:3025", credentials, choice="tls-routing")
    async with listening(HttpProxy(auth)) as http, listening(SocksProxy(auth)) as socks:
        for url in (f"http://127.0.0.1:{http}", f"socks5://127.0.0.1:{socks}"):
            monkeypatch.setenv("HTTPS_PROXY", url)
            assert await ping(route.dial, credentials) == "example.test"


async def test_auth_answers_behind_a_load_balancer(
    credentials: Credentials, auth: int, public: PublicAuthority
) -> None:
    async with UpgradingProxy(auth, pings=True).listening(public.context()) as port:
        for choice in ("auto", "upgrade"):
            route = next(
                route for route in routes(f"localhost:{port}", credentials, choice=choice) if route.name == "upgrade"
            )
            assert await ping(route.dial, credentials) == "example.test"


async def test_auth_answers_through_both_tunnels(
    credentials: Credentials, auth: int, public: PublicAuthority, tmp_path: Path
) -> None:
    cluster = make_cluster(tmp_path)
    server = TunnelServer(cluster, auth)
    mixed = replace(cluster.credentials, authorities_pem=credentials.authorities_pem)
    own = replace(credentials, ssh_authorities=cluster.credentials.ssh_authorities)
    async with server.listening(cluster.host_certificate("localhost")) as ssh:
        find = {"proxy": {"ssh": {"ssh_tunnel_public_addr": f"localhost:{ssh}"}}}
        async with UpgradingProxy(1, find=find).listening(public.context()) as web:
            discovered, _ = routes(f"localhost:{web}", mixed, choice="tunnel")
            assert await ping(discovered.dial, credentials) == "example.test"
        _, straight = routes(f"localhost:{ssh}", mixed, choice="tunnel")
        assert await ping(straight.dial, credentials) == "example.test"
        _, refused = routes(f"localhost:{ssh}", own, choice="tunnel")
        with pytest.raises(ConnectError, match="refused our SSH certificate"):
            await ping(refused.dial, credentials)
