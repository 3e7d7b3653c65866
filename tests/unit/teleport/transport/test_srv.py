"""A service name leads to the hosts and ports that DNS names for it; a real resolver asks a name server on loopback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partialmethod
from pathlib import Path
from time import monotonic
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.asyncresolver import Resolver

from event_handler.config.model import StartSettings
from event_handler.errors import ConfigurationError, ConnectError
from event_handler.runtime.access import Access, keep_credentials
from event_handler.simulator.credentials import write_cluster_files
from event_handler.teleport.transport import srv
from tests.contract.routes import CLUSTER, running

NAME = "_teleport._tcp.example.com"


class NameServer(asyncio.DatagramProtocol):
    """Answers each question for SRV with `records` ("priority weight port target"), None = no such name."""

    def __init__(self) -> None:
        self.records: list[str] | None = []
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.silent:
            return
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        if self.records is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif self.records:
            answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "SRV", *self.records))
        self.transport.sendto(answer.to_wire(), addr)


@pytest.fixture
async def name_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )

    def asking_it() -> Resolver:
        resolver = Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = transport.get_extra_info("sockname")[1]
        return resolver

    monkeypatch.setattr(srv, "resolver", asking_it)
    yield server
    transport.close()


@pytest.mark.parametrize("address", [NAME, "_auth-service._tcp.a.b.c."])
def test_a_name_that_begins_with_service_and_protocol_is_a_service(address: str) -> None:
    assert srv.is_service(address)


@pytest.mark.parametrize(
    "address",
    ["teleport.example.com:443", f"{NAME}:443", "_teleport._udp.example.com", "_tcp.example.com", "10.0.0.1:1"],
)
def test_whatever_else_is_none(address: str) -> None:
    assert not srv.is_service(address)


async def test_targets_come_in_the_order_of_their_priority_and_stand_where_the_name_stood(
    name_server: NameServer,
) -> None:
    name_server.records = ["20 0 3025 c.example.com.", "10 0 443 a.example.com.", "15 9 3080 b.example.com."]
    found, failed = await srv.resolve(["first:1", NAME, "last:2"])
    assert found == ["first:1", "a.example.com:443", "b.example.com:3080", "c.example.com:3025", "last:2"]
    assert failed == []


async def test_targets_of_one_priority_are_tried_in_changing_order(name_server: NameServer) -> None:
    name_server.records = [f"1 10 443 {host}.example.com." for host in "abcdef"]
    orders = {tuple((await srv.resolve([NAME]))[0]) for _ in range(20)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(f"{host}.example.com:443" for host in "abcdef")}


async def test_a_service_with_very_many_targets_is_cut(name_server: NameServer) -> None:
    name_server.records = [f"{n} 0 443 h{n}.example.com." for n in range(40)]
    assert len((await srv.resolve([NAME]))[0]) == srv.MAX_TARGETS


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (None, "does not resolve (The DNS query name does not exist"),
        ([], "does not resolve (The DNS response does not contain an answer"),
        (["0 0 0 ."], "is nowhere"),
    ],
)
async def test_a_name_that_leads_nowhere_fails_alone(
    name_server: NameServer, records: list[str] | None, reason: str
) -> None:
    name_server.records = records
    found, (route,) = await srv.resolve([NAME, "auth.example.com:3025"])
    assert found == ["auth.example.com:3025"]
    assert (route.name, route.address) == ("srv", NAME)
    with pytest.raises(ConnectError) as caught:
        await route.dial()
    assert reason in caught.value.message
    assert "dig SRV" in caught.value.hint


async def test_a_name_server_that_is_silent_is_given_up_in_bounded_time(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(srv, "LOOKUP_TIMEOUT", 0.5)
    name_server.silent = True
    begun = monotonic()
    found, failed = await srv.resolve(
        [NAME, NAME.replace("_tele", "_other-tele"), "auth.example.com:3025", NAME.replace("_tele", "_third-tele")]
    )
    assert monotonic() - begun < 3 * srv.LOOKUP_TIMEOUT
    assert found == ["auth.example.com:3025"]
    assert [route.address for route in failed] == [
        NAME,
        NAME.replace("_tele", "_other-tele"),
        NAME.replace("_tele", "_third-tele"),
    ]
    with pytest.raises(ConnectError, match="does not resolve"):
        await failed[0].dial()


def access_by(addr: str, directory: Path) -> Access:
    settings = StartSettings(teleport_addr=(addr,), teleport_identity=str(directory / "identity"))
    return Access(settings, keep_credentials(settings))


async def test_the_handler_gets_in_by_a_service_name_and_follows_it_when_the_cluster_moves(
    name_server: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    access = access_by(NAME, tmp_path)
    for _ in range(2):
        async with running(tmp_path, monkeypatch, None, "address") as cluster:
            name_server.records = [f"1 0 {cluster.address.rpartition(':')[2]} localhost."]
            client = access.connect()
            assert (await client.ping()).name == CLUSTER
            client.close()


async def test_a_service_name_that_does_not_resolve_is_told_at_the_first_call(
    name_server: NameServer, tmp_path: Path
) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    name_server.records = None
    client = access_by(NAME, tmp_path).connect()
    with pytest.raises(ConnectError, match=f"the service {NAME} does not resolve"):
        await client.ping()


def test_without_dns_on_the_machine_the_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    empty = tmp_path / "resolv.conf"
    empty.write_text("# no name server\n")
    monkeypatch.setattr(Resolver, "__init__", partialmethod(Resolver.__init__, filename=str(empty)))
    with pytest.raises(ConfigurationError, match="needs DNS, which is not set up on this machine") as caught:
        access_by(NAME, tmp_path)
    assert "/etc/resolv.conf" in caught.value.hint


def test_without_the_library_the_start_tells_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)
    with pytest.raises(ConfigurationError) as caught:
        access_by(NAME, tmp_path)
    assert "pip install 'teleport-event-handler[srv]'" in caught.value.hint
