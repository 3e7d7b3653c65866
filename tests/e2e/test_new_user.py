"""The way of a new user, and of one who comes from the Go plugin, with the real command: every step, and then the
events arrive.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Collector, serving
from tests.e2e.processes import DAYS, simulated

COMMAND = (sys.executable, "-m", "event_handler")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def command(directory: Path, *arguments: str) -> str:
    """Run the program in `directory`, as a user does there, without a proxy of this machine.

    Return what it printed and logged.
    """
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-2000:]
    return output.decode()


@asynccontextmanager
async def listening(keys: Path, port: int) -> AsyncIterator[Collector]:
    """A collector that goes by what `configure` wrote: the certificates, and the passphrase that stands in
    fluent.conf.
    """
    said = re.search(r'private_key_passphrase "(.*)"', (keys / "fluent.conf").read_text())
    assert said is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key", said[1])
    context.load_verify_locations(keys / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    made = Collector()
    async with serving(made, context, port):
        yield made


def long_ago() -> str:
    return f"{datetime.now(UTC) - timedelta(days=DAYS):%Y-%m-%dT%H:%M:%SZ}"


def settings_of_the_plugin(home: Path, address: str) -> str:
    """What `configure` of the Go plugin writes, with its keys in its order (its version 19)."""
    return f"""storage = "./storage"
timeout = "10s"
batch = 20

[forward.fluentd]
ca = "{home}/ca.crt"
cert = "{home}/client.crt"
key = "{home}/client.key"
url = "https://localhost:8888/test.log"
# The session id is appended to it.
session-url = "https://localhost:8888/session"

[teleport]
addr = "{address}"
identity = "identity"
refresh.enabled = true
"""


def expected(cluster: Path) -> tuple[Counter[str], set[str]]:
    """Ids of all events, and paths of all recordings."""
    manifest: dict[str, Any] = json.loads((cluster / "manifest.json").read_text())
    return Counter(manifest["events"]), {f"/session.{sid}.log" for sid in manifest["recordings"]}


@pytest.mark.parametrize("settings", ["of configure", "of the plugin"])
@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_after_configure_and_start_every_event_has_arrived(tmp_path: Path, settings: str, mode: str) -> None:
    home, cluster, port = tmp_path / "home", tmp_path / "cluster", free_port()
    home.mkdir()
    async with simulated(cluster, f"--mode={mode}", "--events=300", "--sessions=2") as ready:
        told = await command(home, "configure", ".", ready["address"], "--dns-names=localhost")
        assert "teleport-event-handler start --config=" in told
        shutil.copy(ready["identity"], home / "identity")  # in place of `tctl auth sign`
        config = home / "teleport-event-handler.toml"
        if settings == "of the plugin":
            config.write_text(settings_of_the_plugin(home, ready["address"]))
        config.write_text(config.read_text().replace(":8888/", f":{port}/"))
        start = ("start", "--config=teleport-event-handler.toml", "--exit-on-last-event")
        async with listening(home, port) as collector:
            log = await command(home, *start, f"--start-time={long_ago()}")
            assert (collector.ids(), collector.events.keys() - {"/test.log"}) == expected(cluster)
            assert "is not known" not in log, "a key of the file has no meaning"
            assert (home / "storage").is_dir()
            requests = collector.requests
            elsewhere = tmp_path if settings == "of configure" else home  # the plugin's file has relative paths
            await command(elsewhere, "start", f"--config={config}", "--exit-on-last-event")
            assert collector.requests == requests, "the same state, from whatever directory"
