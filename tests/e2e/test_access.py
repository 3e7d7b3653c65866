"""The real process through the life of its credentials: renewed, rotated, of the wrong cluster, and in every layout of
files.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import time
from typing import Any

import pytest

from event_handler.simulator.authorities import Phase
from event_handler.simulator.credentials import Credentials, write_cluster_files
from event_handler.simulator.events import Generator
from event_handler.simulator.faults import FaultyRelay
from event_handler.simulator.log import AuditLog, day_of
from event_handler.simulator.server import AuthServer, Faults
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

CLUSTER = "sim.test"
LIFETIME = 5  # seconds of an identity
LIVE = 12  # seconds in which new events come, more than two lifetimes
PATIENCE = 30.0  # seconds in which what has been logged arrives, on a busy machine too
REFRESH = '[teleport.refresh]\ninterval = "300ms"\n'
QUICK = "--poll-interval=300ms"


def logged(directory: Path) -> Counter[str]:
    """Ids of all events of the simulated cluster until now."""
    past = json.loads((directory / "manifest.json").read_text())["events"]
    live = directory / "live.ids"
    return Counter(past + (live.read_text().split() if live.exists() else []))


async def arrived(collector: Collector, directory: Path, *paths: str) -> None:
    """Wait until every event has arrived on each of the paths."""
    expected = set(logged(directory))
    async with asyncio.timeout(PATIENCE):
        while any(expected - set(collector.ids(path)) for path in paths):
            await asyncio.sleep(0.1)


def address_of(name: str, ready: dict[str, Any]) -> str:
    return f'addr = "{ready[name].replace("127.0.0.1", "localhost")}"\nidentity = "{ready["identity"]}"\n'


async def test_identities_that_live_for_seconds_are_renewed_in_place_without_losing_or_repeating_an_event(
    tmp_path: Path, collector: Collector
) -> None:
    directory = tmp_path / "sim"
    options = (
        "--front=separate",
        f"--lifetime={LIFETIME}",
        "--renew=1",
        "--live=50",
        f"--live-seconds={LIVE}",
        "--events=500",
    )
    async with simulated(directory, *options, "--sessions=0") as ready:
        started = []
        for route, door in (("direct", "address"), ("tunnel", "web")):
            (tmp_path / route).mkdir()
            table = address_of(door, ready) + f'dial = "{route}"\n' + REFRESH
            config = configuration(tmp_path / route, ready, collector, teleport=table, path=f"/{route}.log")
            process = await handler(config, QUICK, SSL_CERT_FILE=str(directory / "web-ca.pem"))
            started.append(Started(process))
        for one in started:
            await one.until("connected to Teleport")
        await asyncio.sleep(LIVE)
        await arrived(collector, directory, "/direct.log", "/tunnel.log")
        for one in started:
            await one.stop()
            assert one.process.returncode == 0
            assert one.told("credentials renewed") > LIVE / LIFETIME
            assert one.told("connected to Teleport") == 1, "the connection was renewed without starting to read again"
    assert collector.ids("/direct.log") == logged(directory)
    assert collector.ids("/tunnel.log") == logged(directory)


async def test_a_rotation_of_the_authorities_is_survived_without_a_restart_while_connections_are_cut(
    tmp_path: Path, collector: Collector
) -> None:
    directory = tmp_path / "sim"
    credentials = Credentials(directory, CLUSTER)
    credentials.write_all()
    log, generator = AuditLog(seed=1), Generator(CLUSTER, 1)
    auth = AuthServer(log, cluster=CLUSTER, bulk=True, faults=Faults())
    server, port = await auth.start(directory, "127.0.0.1", 0)
    relay = FaultyRelay(f"127.0.0.1:{port}")
    ready = {"address": await relay.start(), "identity": str(directory / "identity")}
    config = configuration(tmp_path, ready, collector, teleport=address_of("address", ready) + REFRESH)
    started = Started(await handler(config, QUICK))
    await started.until("connected to Teleport")
    phases = []
    while Phase.STANDBY not in phases:
        phases.append(credentials.advance())
        auth.reload(directory)
        credentials.renew()
        await started.until("credentials renewed")
        relay.cut_all()
        events = [generator.event(time()) for _ in range(100)]
        log.events += events
        log.add_chunk(day_of(events[0].time), events)
        async with asyncio.timeout(PATIENCE):
            while set(collector.ids()) != {event.id for event in log.events}:
                await asyncio.sleep(0.05)
    await started.stop()
    await relay.close()
    server.close()
    await server.wait_closed()
    assert started.process.returncode == 0
    assert phases == list(Phase)
    assert relay.cuts >= len(phases)
    assert collector.ids() == Counter(event.id for event in log.events)


@pytest.mark.parametrize("absent", ["missing", "expired", "directory"])
async def test_an_identity_that_is_not_ready_at_boot_is_waited_for(
    tmp_path: Path, collector: Collector, absent: str
) -> None:
    async with simulated(tmp_path / "sim", "--events=20", "--sessions=0") as ready:
        later = tmp_path / "later"
        if absent == "directory":
            later.mkdir()
        if absent == "expired":
            write_cluster_files(tmp_path / "old", CLUSTER, timedelta(seconds=-5))
            shutil.copy(tmp_path / "old" / "identity", later)
        config = configuration(
            tmp_path, ready, collector, teleport=address_of("address", ready | {"identity": str(later)})
        )
        started = Started(await handler(config, "--exit-on-last-event"))
        async with asyncio.timeout(PATIENCE):
            await started.until("waiting for valid credentials")
            shutil.copy(ready["identity"], later)
            await started.rest()
        assert started.process.returncode == 0, started.error
        assert collector.ids() == logged(tmp_path / "sim")
        assert started.lines[0]["next_step"]


async def test_a_signal_ends_the_wait_for_an_identity(tmp_path: Path, collector: Collector) -> None:
    config = configuration(tmp_path, {}, collector, teleport=f'addr = "127.0.0.1:1"\nidentity = "{tmp_path}/absent"\n')
    started = Started(await handler(config))
    async with asyncio.timeout(PATIENCE):
        await started.until("waiting for valid credentials")
        await started.stop()
    assert started.process.returncode == 0
    assert started.error == ""


async def test_an_identity_of_another_cluster_ends_the_start_with_both_names_and_the_next_step(
    tmp_path: Path, collector: Collector
) -> None:
    write_cluster_files(tmp_path / "other", "other.test")
    async with simulated(tmp_path / "sim", "--front=tls-routing", "--events=10", "--sessions=0") as ready:
        table = address_of("web", ready | {"identity": str(tmp_path / "other" / "identity")})
        config = configuration(tmp_path, ready, collector, teleport=table)
        started = Started(
            await handler(config, "--startup-timeout=1s", SSL_CERT_FILE=str(tmp_path / "sim" / "web-ca.pem"))
        )
        await started.rest()
    assert started.process.returncode == 1
    assert (
        f"{ready['web'].replace('127.0.0.1', 'localhost')} is the Proxy of the cluster sim.test, and " in started.error
    )
    assert "is of other.test" in started.error
    assert "make an identity in that cluster" in started.error
    assert "Traceback" not in started.error
    assert collector.requests == 0


@pytest.fixture
def hole() -> Iterator[str]:
    """The address of a listener that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def tbot_directory(files: Path, directory: Path) -> Path:
    """A directory as tbot writes it for the service type `identity`, as far as it could be mistaken."""
    directory.mkdir()
    for name, source in (
        ("identity", "identity"),
        ("key", "tls.key"),
        ("tlscert", "tls.crt"),
        ("teleport-host-ca.crt", "tls.cas"),
    ):
        shutil.copy(files / source, directory / name)
    (directory / ".write-test").touch()
    return directory


async def test_dead_addresses_and_every_layout_of_credentials_lead_to_the_same_events(
    tmp_path: Path, collector: Collector, hole: str
) -> None:
    files = tmp_path / "sim"
    async with simulated(files, "--events=500", "--sessions=0") as ready:
        live = ready["address"]
        identity = f'identity = "{ready["identity"]}"\n'
        tables = {
            "refused": f'addr = "127.0.0.1:1,{live}"\n{identity}',
            "silent": f'addr = ["{hole}", "{live}"]\n{identity}',
            "directory": f'addr = "{live}"\nidentity = "{tbot_directory(files, tmp_path / "tbot")}"\n',
            "triple": f'addr = "{live}"\ncert = "{files}/tls.crt"\nkey = "{files}/tls.key"\nca = "{files}/tls.cas"\n',
        }
        started = {}
        for name, table in tables.items():
            (tmp_path / name).mkdir()
            config = configuration(tmp_path / name, ready, collector, teleport=table, path=f"/{name}.log")
            started[name] = Started(await handler(config, "--exit-on-last-event"))
        for name, one in started.items():
            await one.rest()
            assert one.process.returncode == 0, (name, one.error)
            assert collector.ids(f"/{name}.log") == logged(files), name
