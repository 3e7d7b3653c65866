"""Which way gets in: the first that works, without waiting for one that hangs, and a clear reason when none does."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from event_handler.errors import ConnectError
from event_handler.simulator.credentials import write_cluster_files
from event_handler.teleport.auth.credentials import read_identity, read_key_pair
from event_handler.teleport.auth.tls import ClientContext, client_context
from event_handler.teleport.transport import Route, connector, direct
from event_handler.teleport.transport.connector import Connector, always, explain_tls


@dataclass
class Auth:
    """A TLS server with the certificate of an Auth server, and what a client of its cluster needs."""

    address: str
    context: ClientContext
    accepted: int = 0


@pytest.fixture
async def auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Auth]:
    monkeypatch.setattr(connector, "HEAD_START", 0.05)
    write_cluster_files(tmp_path, "sim.test")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "server.pem")
    made = Auth("", client_context(read_identity(str(tmp_path / "identity"))))

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.accepted += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server_side)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    await server.wait_closed()


class Protocol(asyncio.Protocol):
    transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


def failing(message: str, *, conclusive: bool = False) -> Callable[[], Awaitable[socket.socket]]:
    async def dial() -> socket.socket:
        raise ConnectError(message, "A hint.", conclusive=conclusive)

    return dial


class Hanging:
    """A dialer that never comes back, and knows whether it was cancelled."""

    cancelled = False

    async def __call__(self) -> socket.socket:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError


def connector_of(routes: list[Route]) -> Connector:
    return Connector(always(*routes))


async def test_a_way_that_hangs_does_not_hold_up_the_one_that_works_and_is_cancelled(auth: Auth) -> None:
    hanging = Hanging()
    protocol = await connector_of(
        [Route("hangs", "", hanging), Route("works", auth.address, direct(auth.address))]
    ).enter(Protocol, auth.context)
    assert hanging.cancelled
    protocol.transport.close()


async def test_the_way_that_worked_is_tried_first_the_next_time(auth: Auth) -> None:
    tried: list[str] = []

    def noted(name: str, dial: Callable[[], Awaitable[socket.socket]]) -> Route:
        async def dialer() -> socket.socket:
            tried.append(name)
            return await dial()

        return Route(name, "", dialer)

    routes = connector_of([noted("fails", failing("no")), noted("works", direct(auth.address))])
    for _ in range(2):
        (await routes.enter(Protocol, auth.context)).transport.close()
    assert tried == ["fails", "works", "works"]


async def test_when_all_fail_each_way_has_its_line_and_the_clusters_own_answer_comes_first(auth: Auth) -> None:
    routes = [
        Route("direct", "", failing("refused")),
        Route("tunnel", "", failing("it has expired", conclusive=True)),
        Route("upgrade", "", failing("slow")),
    ]
    with pytest.raises(ConnectError) as caught:
        await connector_of(routes).enter(Protocol, auth.context)
    assert caught.value.message == "no route into the cluster: tunnel: it has expired; direct: refused; upgrade: slow"
    assert caught.value.hint == "A hint."


async def test_one_cause_for_all_ways_is_told_once(auth: Auth) -> None:
    with pytest.raises(ConnectError) as caught:
        await connector_of([Route("a", "", failing("no such host")), Route("b", "", failing("no such host"))]).enter(
            Protocol, auth.context
        )
    assert caught.value.message == "no such host"


async def test_a_server_that_the_cluster_has_not_signed_is_refused_on_every_way(auth: Auth, tmp_path: Path) -> None:
    write_cluster_files(tmp_path / "other", "other.test")
    context = client_context(read_identity(str(tmp_path / "other" / "identity")))
    with pytest.raises(ConnectError, match="not trusted"):
        await connector_of([Route("direct", auth.address, direct(auth.address))]).enter(Protocol, context)


@pytest.mark.parametrize(
    ("alert", "message", "conclusive"),
    [
        (40, "the TLS handshake with {} failed (", False),  # handshake_failure
        (112, "the TLS handshake with {} failed (", False),  # unrecognized_name
        (120, "the TLS handshake with {} failed (", False),  # no_application_protocol
        (42, "Teleport at {} refused our certificate (", True),  # bad_certificate
        (45, "Teleport at {} refused our certificate: it has expired", True),
        (48, "Teleport at {} refused our certificate (", True),  # unknown_ca
    ],
)
async def test_only_an_alert_about_our_certificate_is_told_as_its_refusal(
    auth: Auth, alert: int, message: str, conclusive: bool
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(bytes([21, 3, 3, 0, 2, 2, alert]))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectError) as caught:
            await connector_of([Route("direct", address, direct(address))]).enter(Protocol, auth.context)
    assert caught.value.message.startswith(message.format(address))
    assert caught.value.conclusive is conclusive


async def test_what_nobody_expects_of_one_way_leaves_the_others_to_be_tried(auth: Auth) -> None:
    async def odd() -> socket.socket:
        raise KeyError("a fault of ours")

    connector = connector_of([Route("odd", "one:1", odd), Route("direct", auth.address, direct(auth.address))])
    protocol = await connector.enter(Protocol, auth.context)
    protocol.transport.close()
    with pytest.raises(ConnectError, match=r"one:1 cannot be reached by the route odd \(KeyError: 'a fault of ours'\)"):
        await connector_of([Route("odd", "one:1", odd)]).enter(Protocol, auth.context)


async def test_each_way_is_told_once_before_it_is_tried(auth: Auth) -> None:
    hanging = Hanging()
    connector = connector_of(
        [Route("tunnel", "silent:443", hanging), Route("direct", auth.address, direct(auth.address))]
    )
    for expected in ([("tunnel", "silent:443"), ("direct", auth.address)], []):
        with capture_logs() as lines:
            protocol = await connector.enter(Protocol, auth.context)
            protocol.transport.close()
        told = [(line["route"], line["address"]) for line in lines if line["event"] == "connecting to Teleport"]
        assert told == expected


@pytest.mark.parametrize(
    ("begin", "end", "message", "hint"),
    [
        (-2, -1, r"it has expired \(.*identity, at 20", "Renew it with tbot"),
        (
            -1,
            1,
            "has expired or is not valid yet by the cluster's clock, though by this machine's it is valid from 20",
            "clocks",
        ),
    ],
)
async def test_a_certificate_that_is_refused_as_expired_is_told_by_both_clocks(
    auth: Auth, begin: int, end: int, message: str, hint: str
) -> None:
    now = datetime.now(UTC)
    ours = replace(
        auth.context.credentials, not_before=now + timedelta(days=begin), not_after=now + timedelta(days=end)
    )
    error = explain_tls(
        ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired"), "auth:3025", ours
    )
    assert re.search(message, error.message)
    assert hint in error.hint
    assert error.conclusive


async def test_an_authority_that_is_not_the_servers_is_named_with_address_and_file(auth: Auth, tmp_path: Path) -> None:
    write_cluster_files(tmp_path / "other", "other.test")
    paths = [str(tmp_path / "other" / name) for name in ("tls.crt", "tls.key", "tls.cas")]
    with pytest.raises(ConnectError) as caught:
        await connector_of([Route("direct", auth.address, direct(auth.address))]).enter(
            Protocol, client_context(read_key_pair(*paths))
        )
    assert auth.address in caught.value.message
    assert paths[2] in caught.value.message
