"""The real process is started on storage directories that the Go plugin left, in front of the cluster that the plugin
read.

The cluster's log is the recorded one: chunks, pages and recordings are those that the plugin had begun. Where days
count, for the newest ones stay polled, the recorded days are moved to the last three.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import time

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import Generator, LogEvent
from event_handler.simulator.log import AuditLog, Chunk, day_of
from event_handler.simulator.server import AuthServer, Faults
from event_handler.teleport.wire import decode
from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CLUSTER = "example.test"
SID = "f0cd9816-f5d3-4fc5-9700-e8730ecf6604"
A, B, C = (f"0193a1b2-0000-7000-8000-00000000000{end}" for end in "abc")


def exchange(name: str) -> list[bytes]:
    return [
        base64.b64decode(answer) for answer in json.loads((GOLDEN / "grpc" / f"{name}.json").read_text())["responses"]
    ]


def log_event(wire: bytes) -> LogEvent:
    raw = decode.read_event(wire)
    return LogEvent(raw.id, raw.type, raw.time, wire, raw.index)


def ids(exported: list[bytes]) -> list[str]:
    return [decode.event_id(decode.read_exported(wire)[0]) for wire in exported]


RECORDED = date(2026, 11, 21)  # the first day of the recorded storage of bulk export


class Days:
    """The recorded days, moved so that the third one is today."""

    def __init__(self) -> None:
        self.first = datetime.now(UTC).date() - timedelta(days=2)
        self.second = self.first + timedelta(days=1)

    def move(self, storage: Path) -> None:
        """Rename the directories of the days in a copy of the plugin's storage, and write its start time anew."""
        for directory in (storage / "cursor_v2").iterdir():
            directory.rename(
                directory.with_name(f"moved-{self.first + (date.fromisoformat(directory.name) - RECORDED)}")
            )
        for directory in (storage / "cursor_v2").iterdir():
            directory.rename(directory.with_name(directory.name.removeprefix("moved-")))
        (storage / "start_time").write_text(f"{self.first}T00:00:00Z")


def bulk_log(days: Days) -> AuditLog:
    log = AuditLog()
    log.chunks[str(days.first)].append(Chunk(C, exchange("export-single-event-chunk")))
    log.chunks[str(days.second)] += [Chunk(A, exchange("export-chunk-a")), Chunk(B, exchange("export-chunk-b"))]
    log.recordings[SID] = (0.0, [log_event(wire) for wire in exchange("session-1")])
    return log


@asynccontextmanager
async def cluster(
    tmp_path: Path, log: AuditLog, storage: str, collector: Collector, days: Days | None = None
) -> AsyncIterator[Path]:
    """Serve `log`, by bulk export where it has `days`, and yield a configuration whose storage is a copy of the
    plugin's.
    """
    directory = tmp_path / "cluster"
    write_cluster_files(directory, CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=days is not None, faults=Faults()).start(
        directory, "127.0.0.1", 0
    )
    copy = shutil.copytree(GOLDEN / "storage" / storage, tmp_path / "storage" / f"127.0.0.1_{port}")
    began = "2026-11-22T00:00:00Z"
    if days is not None:
        days.move(copy)
        began = f"{days.first}T05:30:00+05:30"
    ready = {"address": f"127.0.0.1:{port}", "identity": str(directory / "identity")}
    yield configuration(tmp_path, ready, collector, start=began)
    server.close()
    await server.wait_closed()


async def run(config: Path) -> str:
    process = await handler(config, "--exit-on-last-event")
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    return errors.decode()


async def test_chunks_that_the_plugin_was_killed_in_go_on_after_its_last_event(
    tmp_path: Path, collector: Collector
) -> None:
    days = Days()
    log = bulk_log(days)
    async with cluster(tmp_path, log, "bulk-killed-mid-chunk", collector, days) as config:
        output = await run(config)
        rest = set(ids(exchange("export-chunk-a"))[9:]) | set(ids(exchange("export-chunk-b"))[9:])
        assert sorted(collector.ids().elements()) == sorted(rest)
        assert "position of the Go plugin taken over" in output
        new = Generator(CLUSTER, 1).event(time())
        log.add_chunk(day_of(time()), [new])
        output = await run(config)
    assert sorted(collector.ids().elements()) == sorted({*rest, new.id})
    assert "taken over" not in output


async def test_a_position_given_back_and_taken_over_again_sends_nothing_twice(
    tmp_path: Path, collector: Collector
) -> None:
    days = Days()
    async with cluster(tmp_path, bulk_log(days), "bulk-killed-mid-chunk", collector, days) as config:
        await run(config)
        command = (sys.executable, "-m", "event_handler", "storage", "export", "-c", str(config))
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        printed, _ = await process.communicate()
        assert process.returncode == 0
        shutil.rmtree(tmp_path / "storage" / CLUSTER)
        sent = collector.ids()
        output = await run(config)
    assert b"2 days" in printed
    assert "position of the Go plugin taken over" in output
    assert collector.ids() == sent


async def test_a_recording_that_the_plugin_had_not_sent_is_sent_and_nothing_else(
    tmp_path: Path, collector: Collector
) -> None:
    days = Days()
    async with cluster(tmp_path, bulk_log(days), "bulk-after-all", collector, days) as config:
        await run(config)
    assert not collector.ids()
    recorded = [decode.read_event(wire) for wire in exchange("session-1")]
    sent = [event["event"] for event in collector.events[f"/session.{SID}.log"]]
    assert sorted(map(str, sent)) == sorted(raw.type for raw in recorded if raw.type != "print")


async def test_a_search_goes_on_after_the_plugins_last_event(tmp_path: Path, collector: Collector) -> None:
    log = AuditLog()
    wires = decode.read_page(exchange("search-all")[0])[0]
    last = [decode.event_id(wire) for wire in wires].index("79cc6d6d-0a2a-400d-8cd6-9dcb00191935")
    for wire in wires:
        log.add(log_event(wire))
    async with cluster(tmp_path, log, "legacy-after-all", collector) as config:
        await run(config)
        assert sorted(collector.ids().elements()) == sorted(decode.event_id(wire) for wire in wires[last + 1 :])
        new = Generator(CLUSTER, 1).event(time())
        log.add(new)
        output = await run(config)
    assert collector.ids()[new.id] == 1
    assert collector.ids().total() == len(wires) - last
    assert "taken over" not in output


async def test_a_search_whose_last_event_is_gone_repeats_its_page_and_no_more(
    tmp_path: Path, collector: Collector
) -> None:
    log = AuditLog()
    for wire in decode.read_page(exchange("search-all")[0])[0]:
        log.add(log_event(wire))
    async with cluster(tmp_path, log, "legacy-after-all", collector) as config:
        (key,) = (tmp_path / "storage").glob("*/cursor")
        (key.parent / "id").write_text("gone")
        await run(config)
    page = [event.id for event in log.events if event.time >= int(key.read_text().split("/")[1]) / 1e9 - 1e-6]
    assert 1 < len(page) < 10
    assert sorted(collector.ids().elements()) == sorted(page)
