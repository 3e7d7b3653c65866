"""Several sinks at once, in the real process: one that is down stops no other, and each goes on from its own
position.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path

from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler, simulated


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_sink_that_is_down_does_not_stop_the_other(tmp_path: Path, collector: Collector) -> None:
    async with simulated(tmp_path / "sim", "--events=1500", "--sessions=3") as ready:
        config = configuration(tmp_path, ready, collector)
        file = tmp_path / "events.ndjson"
        both = (f"--file-path={file}", "--file-skip-event-types=user.create", "--shutdown-timeout=100ms")
        down = ("--fluentd-url=https://localhost:1/test.log", "--fluentd-session-url=https://localhost:1/session")
        manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
        process = await handler(config, *both, *down)
        async with asyncio.timeout(60):
            while (
                len({line["uid"] for line in lines_of(file) if "teleport_session_id" not in line})
                < len(manifest["events"]) * 0.9
            ):
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
        assert collector.requests == 0
        process = await handler(config, *both, "--exit-on-last-event")
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
    assert set(collector.ids()) == set(manifest["events"])
    lines = lines_of(file.with_name("events.ndjson.1")) + lines_of(
        file
    )  # renamed where a midnight lies between the runs
    written = [line for line in lines if "teleport_session_id" not in line]
    assert Counter(str(line["uid"]) for line in written).most_common(1)[0][1] == 1
    assert {str(line["uid"]) for line in written} | {
        str(event["uid"]) for event in collector.events["/test.log"] if event["event"] == "user.create"
    } == set(manifest["events"])
    assert {line["event"] for line in written} >= {"session.start", "session.end"}
    assert "user.create" not in {line["event"] for line in written}
    recorded = {str(line["teleport_session_id"]) for line in lines if "teleport_session_id" in line}
    assert recorded == set(manifest["recordings"])
    assert {path.name for path in (tmp_path / "storage" / ready["cluster"]).iterdir()} == {"fluentd", "file"}


async def test_sighup_opens_the_file_anew_sigusr1_tells_counters_and_the_process_lives_on(
    tmp_path: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=100", "--sessions=0", "--live=50") as ready:
        config = configuration(tmp_path, ready, collector)
        file = tmp_path / "events.ndjson"
        process = await handler(config, f"--file-path={file}", "--poll-interval=200ms")
        async with asyncio.timeout(60):
            while len(lines_of(file)) < 100:
                await asyncio.sleep(0.05)
            file.rename(tmp_path / "moved")
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGUSR1)
            while not lines_of(file):
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
        assert b"reading credentials and TLS files again" in errors
        told = [json.loads(line) for line in errors.splitlines()]
        assert [line["sink"] for line in told if line["event"] == "delivered"] == ["fluentd", "file"] * 2
