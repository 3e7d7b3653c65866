"""The simulated cluster as a process: its fronts, the life of its credentials, and faults of connections, by
options.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest
from cryptography import x509

from event_handler.simulator.options import render
from tests.support.waiting import until
from tests.unit.simulator.clients import (
    AUTH_PROTOCOL,
    TUNNEL_PROTOCOL,
    Stream,
    auth_answers,
    connect,
    open_tunnel,
    selected,
    user_context,
    web_context,
)

pytestmark = pytest.mark.proof

PAGE = Path(__file__).parents[3] / "docs" / "simulator.md"
SMALL = ("--events=10", "--sessions=0")
PATIENCE = 30.0  # seconds, for a loaded machine


@asynccontextmanager
async def cluster(directory: Path, *options: str) -> AsyncIterator[dict[str, str]]:
    command = (sys.executable, "-m", "event_handler.simulator", f"--directory={directory}", *SMALL, *options)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        assert await process.wait() == 0


def test_the_page_is_that_of_the_options() -> None:
    assert PAGE.read_text() == render(), "run: python -m event_handler.simulator.options > docs/simulator.md"


async def test_without_a_front_only_auth_is_told(tmp_path: Path) -> None:
    async with cluster(tmp_path) as ready:
        assert ready.keys() == {"address", "identity", "cluster", "events", "recordings"}
        stream = await connect(ready["address"], user_context(tmp_path))
        assert await auth_answers(stream)
        stream[1].close()


async def test_tls_routing_on_a_given_port_stays_there_after_a_restart(tmp_path: Path) -> None:
    port = ""
    for _ in range(2):
        async with cluster(tmp_path, "--front=tls-routing", *([f"--web-port={port}"] if port else [])) as ready:
            assert port in ("", ready["web"].rpartition(":")[2])
            port = ready["web"].rpartition(":")[2]
            stream = await connect(ready["web"], user_context(tmp_path, AUTH_PROTOCOL, "h2"))
            assert await auth_answers(stream)
            stream[1].close()


async def test_separate_ports(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path, "--front=separate", "--key-kind=rsa") as ready,
        await open_tunnel(tmp_path, ready["tunnel"]),
    ):
        _, writer = await connect(ready["web"], web_context(tmp_path), "localhost")
        writer.close()


async def test_a_load_balancer(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--front=load-balancer", "--key-kind=ed25519") as ready:
        _, writer = await connect(ready["load_balancer"], web_context(tmp_path, TUNNEL_PROTOCOL), "localhost")
        assert selected(writer) is None
        writer.close()
        _, writer = await connect(ready["web"], web_context(tmp_path, TUNNEL_PROTOCOL), "localhost")
        assert selected(writer) == TUNNEL_PROTOCOL
        writer.close()


async def connected(address: str, directory: Path, *protocols: str) -> Stream:
    """Read the user's files and connect, again and again until it works: files may be torn, and connections be cut, at
    any moment.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                stream = await connect(address, user_context(directory, *protocols))
                assert await auth_answers(stream)
                return stream
            except (OSError, EOFError):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("way", ["in-place", "symlink"])
async def test_short_lived_identities_are_renewed_and_the_old_ones_expire(tmp_path: Path, way: str) -> None:
    async with cluster(tmp_path, "--lifetime=2", "--renew=1", f"--renew-by={way}") as ready:
        old, first = user_context(tmp_path), (tmp_path / "tls.crt").read_bytes()
        end = x509.load_pem_x509_certificate(first).not_valid_after_utc
        await until(lambda: (tmp_path / "tls.crt").read_bytes() not in (first, b""))
        await until(lambda: datetime.now(UTC) > end + timedelta(seconds=1))
        with pytest.raises(ssl.SSLError, match=r"(?i)expired"):
            await auth_answers(await connect(ready["address"], old))
        _, writer = await connected(ready["address"], tmp_path)
        writer.close()


async def test_a_rotation_ends_in_standby_with_new_authorities(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--rotate=0.5") as ready:
        old = user_context(tmp_path)
        phases: list[str] = []

        def in_standby_again() -> bool:
            phase = json.loads((tmp_path / "authorities.json").read_text())["phase"]
            if phase not in phases[-1:]:
                phases.append(phase)
            return len(phases) > 1 and phase == "standby"

        await until(in_standby_again)
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(ready["address"], old)
        _, writer = await connected(ready["address"], tmp_path)
        writer.close()


async def test_cuts_concern_connections_through_a_front_too(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--front=tls-routing", "--cut-every=0.5", "--cut-handshakes=1") as ready:
        with pytest.raises((ConnectionError, ssl.SSLEOFError)):
            await connect(ready["web"], user_context(tmp_path, AUTH_PROTOCOL, "h2"))
        reader, writer = await connected(ready["web"], tmp_path, AUTH_PROTOCOL, "h2")
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()


async def test_a_slow_connection_takes_its_time(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--slow=4000") as ready:
        begun = monotonic()
        _, writer = await connected(ready["address"], tmp_path)
        assert monotonic() - begun > 0.3, "the certificates alone are over 1200 bytes"
        writer.transport.abort()


async def test_a_blackhole_answers_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--blackhole") as ready:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(ready["address"], user_context(tmp_path)), 0.5)
