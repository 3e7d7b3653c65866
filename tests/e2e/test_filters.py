"""Filters in the real process, against a simulated cluster: what arrives, what the server is asked for, and that
recordings stay.
"""

from __future__ import annotations

from pathlib import Path
from time import time
from typing import Any

import pytest

from event_handler.simulator.credentials import write_cluster_files
from event_handler.simulator.events import Generator, encode, stamp
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler

CLUSTER = "sim.test"
LOGINS = {"user.login T1000I", "user.login T1000W"}
OTHERS = {"user.create T1002I", "cert.create TC000I"}
SESSION = {"session.start T2000I", "session.end T2004I", "session.upload T2005I"}
ANNOUNCING = {"session.upload", "session.end", "windows.desktop.session.end", "db.session.end"}


class AskedLog(AuditLog):
    """Keeps the types that searches ask for."""

    asked: frozenset[str] | None = None

    def page(self, *asked: Any) -> tuple[list[bytes], str]:
        self.asked = asked[4]
        return super().page(*asked)


def a_log(age: float = 3600.0) -> AskedLog:
    log = AskedLog()
    begin = time() - age
    for number, name in enumerate(sorted(LOGINS | OTHERS)):
        kind, code = name.split()
        log.add(
            encode({"event": kind, "code": code, "uid": name, "ei": 0, "time": stamp(begin + number)}, begin + number)
        )
    sid, announced, recording = Generator(CLUSTER, seed=3).session(begin + 60, uploaded=True)
    for event in announced:
        log.add(event)
    log.recordings[sid] = (0.0, recording)
    log.cut_chunks(100, late=0, late_seconds=0.0, duplicates=0.0)
    return log


async def deliver(directory: Path, collector: Collector, log: AuditLog, *options: str, bulk: bool) -> None:
    """Start the handler with those options and wait until it has delivered all."""
    credentials = directory / "sim"
    write_cluster_files(credentials, CLUSTER)
    server, port = await AuthServer(log, cluster=CLUSTER, bulk=bulk, faults=Faults()).start(credentials, "127.0.0.1", 0)
    try:
        config = configuration(
            directory, {"address": f"127.0.0.1:{port}", "identity": credentials / "identity"}, collector
        )
        process = await handler(config, "--exit-on-last-event", *options)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
    finally:
        server.close()
        await server.wait_closed()


def delivered(collector: Collector) -> set[str]:
    return {f"{event['event']} {event['code']}" for event in collector.events.get("/test.log", [])}


def recorded(collector: Collector) -> set[str]:
    return {
        str(event["event"])
        for path, events in collector.events.items()
        if path.startswith("/session.")
        for event in events
    }


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--types=user.login,cert.create"], {*LOGINS, "cert.create TC000I"}),
        (
            ["--types=session.*,T1000W", "--skip-event-types=session.upload"],
            {*SESSION, "user.login T1000W"} - {"session.upload T2005I"},
        ),
        (["--types=!user.login"], SESSION | OTHERS),
        (["--skip-event-types=*,!T1000W"], {"user.login T1000W"}),
        (["--types=user.login,!T1000I"], {"user.login T1000W"}),
    ],
)
async def test_what_the_filters_name_arrives_and_the_recording_whatever_they_say(
    tmp_path: Path, collector: Collector, options: list[str], expected: set[str], bulk: bool
) -> None:
    await deliver(tmp_path, collector, a_log(), *options, bulk=bulk)
    assert delivered(collector) == expected
    assert recorded(collector) == {"session.start", "resize", "session.leave", "session.end"}


async def test_the_lists_for_recordings_take_patterns_and_codes_too(tmp_path: Path, collector: Collector) -> None:
    await deliver(tmp_path, collector, a_log(), "--skip-session-types=print,session.*,!T2004I", bulk=True)
    assert recorded(collector) == {"resize", "session.end"}


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "search"])
async def test_recordings_are_turned_off_by_their_own_option_only(
    tmp_path: Path, collector: Collector, bulk: bool
) -> None:
    await deliver(tmp_path, collector, a_log(), "--no-session-recordings", bulk=bulk)
    assert delivered(collector) == LOGINS | OTHERS | SESSION
    assert recorded(collector) == set()


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--types=user.login,cert.create"], {"user.login", "cert.create"} | ANNOUNCING),
        (["--types=user.login,!T1000W", "--no-session-recordings"], {"user.login"}),
        (["--types=user.*"], set()),
        (["--types=T1000W"], set()),
        (["--skip-event-types=user.login"], set()),
    ],
)
async def test_a_server_is_asked_for_the_types_that_are_needed_where_the_list_names_them_exactly(
    tmp_path: Path, collector: Collector, options: list[str], asked: set[str]
) -> None:
    log = a_log()
    await deliver(tmp_path, collector, log, *options, bulk=False)
    assert log.asked is not None
    assert set(log.asked) == asked
