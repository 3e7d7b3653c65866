"""The cluster is read once for all sinks, and none of them waits for another for long."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Collector, a_collector
from tests.e2e.processes import DAYS, configuration, handler, simulated
from tests.e2e.test_several_sinks import lines_of

SOME = 4  # requests; reading thrice would be twenty more
KILLS = 2


def http(name: str, collector: Collector) -> str:
    """The table of a sink that delivers to that collector."""
    s = collector.settings
    return f"""
[sinks.{name}]
type = "fluentd"
url = "{s.url}"
session-url = "{s.session_url}"
ca = "{s.ca}"
cert = "{s.cert}"
key = "{s.key}"
format = "array"
"""


async def calls(directory: Path, mode: str, sinks: str) -> dict[str, int]:
    """How often the cluster was asked for what, until everything was delivered to each of the sinks."""
    directory.mkdir()
    async with simulated(directory / "sim", "--events=3000", "--sessions=8", f"--mode={mode}") as ready:
        config = directory / "some.toml"
        teleport = f'[teleport]\naddr = "{ready["address"]}"\nidentity = "{ready["identity"]}"\n'
        config.write_text(f'storage = "{directory}/storage"\n{teleport}{sinks.replace("DIRECTORY", str(directory))}')
        start = f"{datetime.now(UTC) - timedelta(days=DAYS):%Y-%m-%dT%H:%M:%SZ}"
        process = await handler(config, "--exit-on-last-event", f"--start-time={start}")
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
    manifest = json.loads((directory / "sim" / "manifest.json").read_text())
    for path in directory.glob("*.ndjson"):
        lines = lines_of(path)
        ids = Counter(str(line["uid"]) for line in lines if "teleport_session_id" not in line)
        assert ids == Counter(manifest["events"])
        assert {str(line["teleport_session_id"]) for line in lines if "teleport_session_id" in line} == set(
            manifest["recordings"]
        )
    found: dict[str, int] = json.loads((directory / "sim" / "calls.json").read_text())
    return found


@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_three_sinks_ask_the_cluster_no_more_than_one(tmp_path: Path, mode: str) -> None:
    sink = '[sinks.{0}]\ntype = "file"\npath = "DIRECTORY/{0}.ndjson"\n'
    one = await calls(tmp_path / "one", mode, sink.format("a"))
    three = await calls(tmp_path / "three", mode, "".join(map(sink.format, "abc")))
    # A midnight more in the log is a chunk more, and how a span is cut into pages depends on the machine's speed.
    for name in ("ExportUnstructuredEvents", "GetUnstructuredEvents"):
        assert three.get(name, 0) <= one.get(name, 0) + SOME, name
    assert three["StreamUnstructuredSessionEvents"] == one["StreamUnstructuredSessionEvents"]
    assert three["Ping"] == one["Ping"]


@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_one_slow_and_one_dead_for_half_of_the_time_and_kills_in_between(
    tmp_path: Path, collector: Collector, mode: str
) -> None:
    chance = random.Random(7)
    collector.slow = 0.15
    events = tmp_path / "events.ndjson"
    async with (
        a_collector(tmp_path / "other") as dead,
        simulated(tmp_path / "sim", "--events=10000", "--sessions=6", f"--mode={mode}") as ready,
    ):
        dead.fail_every = 1
        config = configuration(tmp_path, ready, collector)
        text = config.read_text()
        config.write_text(
            text.replace("[forward.fluentd]", "[sinks.slow]\ntype = 'fluentd'")
            + http("dead", dead)
            + f'\n[sinks.healthy]\ntype = "file"\npath = "{events}"\nmax-bytes = 0\nmax-age = "0s"\n'
        )
        more = ("--max-in-flight-bytes=1048576", "--poll-interval=200ms")
        manifest: dict[str, Any] = json.loads((tmp_path / "sim" / "manifest.json").read_text())
        for _ in range(KILLS):
            process = await handler(config, *more, stderr=asyncio.subprocess.DEVNULL)
            await asyncio.sleep(chance.uniform(1.5, 3.0))
            process.kill()
            await process.wait()
        process = await handler(config, *more)
        async with asyncio.timeout(60):  # the healthy one has everything while the other one is dead
            while not ids_in(events) >= set(manifest["events"]):
                await asyncio.sleep(0.1)
        assert not dead.events
        dead.fail_every = 0
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
        assert b"the sink goes on with a reading of its own" in errors or b"the sink is behind the others" in errors
        process = await handler(config, *more, "--exit-on-last-event")
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
    for received in (collector, dead):
        assert set(received.ids()) == set(manifest["events"])
        assert {path for path in received.events if path != "/test.log"} == {
            f"/session.{sid}.log" for sid in manifest["recordings"]
        }
    lines = lines_of(events)
    assert {str(line["teleport_session_id"]) for line in lines if "teleport_session_id" in line} == set(
        manifest["recordings"]
    )
    assert len(dead.ids()) == sum(dead.ids().values())  # never killed while it took anything


def ids_in(path: Path) -> set[str]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return {str(line["uid"]) for line in whole if "teleport_session_id" not in line}
