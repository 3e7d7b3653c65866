"""The relay with faults, in front of a real Auth server or an echo."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.faults import FaultyRelay, Trouble
from event_handler.simulator.listener import Listener, copy
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from tests.unit.simulator.clients import CLUSTER, auth_answers, connect, user_context


@asynccontextmanager
async def echo_behind(trouble: Trouble) -> AsyncIterator[tuple[FaultyRelay, str]]:
    echo = Listener(copy)
    relay = FaultyRelay(await echo.start(), trouble)
    yield relay, await relay.start()
    await relay.close()
    await echo.close()


async def test_without_trouble_everything_passes() -> None:
    async with echo_behind(Trouble()) as (relay, address):
        reader, writer = await connect(address)
        writer.write(b"x" * 1_000_000)
        assert await reader.readexactly(1_000_000)
        assert relay.established == 1
        writer.close()


async def test_a_blackhole_takes_and_never_answers_and_may_end() -> None:
    async with echo_behind(Trouble(blackhole=True)) as (relay, address):
        silent, writer = await connect(address)
        writer.write(b"x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(silent.read(1), 0.2)
        relay.trouble.blackhole = False
        reader, other = await connect(address)
        other.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        other.close()


async def test_a_slow_connection_keeps_to_its_speed() -> None:
    async with echo_behind(Trouble(bytes_per_second=10_000)) as (_, address):
        reader, writer = await connect(address)
        begun = monotonic()
        writer.write(b"x" * 4000)
        await reader.readexactly(4000)
        assert monotonic() - begun >= 0.4
        writer.close()


async def test_one_of_the_established_connections_is_cut_and_the_others_live() -> None:
    async with echo_behind(Trouble()) as (relay, address):
        streams = [await connect(address) for _ in range(3)]
        for reader, writer in streams:
            writer.write(b"x")
            await reader.readexactly(1)
        assert relay.cut_one()
        cut = 0
        for reader, writer in streams:
            writer.write(b"y")
            try:
                cut += await reader.read(1) != b"y"
            except ConnectionError:
                cut += 1
            writer.close()
        assert (cut, relay.cuts) == (1, 1)


async def test_with_nothing_established_nothing_is_cut() -> None:
    async with echo_behind(Trouble()) as (relay, _):
        assert not relay.cut_one()


async def test_the_next_handshakes_are_cut_and_then_it_works(tmp_path: Path) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    server, port = await AuthServer(AuditLog(), cluster=CLUSTER, bulk=True, faults=Faults()).start(
        tmp_path, "127.0.0.1", 0
    )
    relay = FaultyRelay(f"127.0.0.1:{port}", Trouble(cut_handshakes=2))
    address = await relay.start()
    for _ in range(2):
        with pytest.raises((ConnectionError, ssl.SSLEOFError)):
            await connect(address, user_context(tmp_path))
    stream = await connect(address, user_context(tmp_path))
    assert await auth_answers(stream)
    stream[1].close()
    assert relay.cuts == 2
    await relay.close()
    server.close()
    await server.wait_closed()
