"""What the process tells about itself: its settings at the start, and every minute how much it has delivered."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from event_handler import about
from event_handler.config.load import load
from event_handler.telemetry import logs
from event_handler.telemetry.logs import repeats

start = importlib.import_module("event_handler.cli.start")  # the package has the command by that name


@pytest.fixture(params=["bulk", "search"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The line that a simulated cluster prints when it is ready."""
    options = (f"--directory={tmp_path}/sim", f"--mode={request.param}", "--events=300", "--sessions=1")
    command = [sys.executable, "-m", "event_handler.simulator", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.terminate()


def told(
    cluster: dict[str, Any], directory: Path, capsys: pytest.CaptureFixture[str], **more: Any
) -> list[dict[str, Any]]:
    """Run `start` until it has written everything to a file; return its log."""
    given = {
        "teleport_addr": [cluster["address"]],
        "teleport_identity": cluster["identity"],
        "storage": str(directory / "storage"),
        "start_time": f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}",
        "exit_on_last_event": "true",
        "file_path": str(directory / "events.ndjson"),
    }
    logs.configure(False, "json")
    start.run(load({**given, **more}, {}).settings, ["a warning about the settings"])
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def stop_when(reached: Callable[[], bool], ended: threading.Event) -> None:
    """Send this process the signal that ends `start`, unless that has `ended` already."""
    while not reached() and not ended.wait(0.05):
        pass
    if not ended.wait(0.3):  # long enough for several reports
        os.kill(os.getpid(), signal.SIGTERM)


def test_each_report_has_the_plugins_words_and_fields(
    cluster: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "REPORT_EVERY", 0.02)
    monkeypatch.setattr(repeats, "AT_MOST", 10_000)
    file, ended = tmp_path / "events.ndjson", threading.Event()
    stopping = threading.Thread(
        target=stop_when, args=(lambda: file.exists() and b"session_id" in file.read_bytes(), ended)
    )
    stopping.start()
    try:
        lines = told(cluster, tmp_path, capsys, exit_on_last_event="false")
    finally:
        ended.set()
        stopping.join()
    events = [line for line in lines if line["event"] == "Event processing"]
    assert any(line["events_per_minute"] > 0 for line in events)
    assert any(line["sessions_per_minute"] > 0 for line in events)
    assert {line["lag_s"] is None or line["lag_s"] >= 0 for line in events} == {True}
    assert {line["date"] for line in events} <= {
        "",
        *(f"{datetime.now(UTC) - timedelta(days=back):%Y-%m-%d}" for back in range(4)),
    }
    assert any(line["date"] for line in events)


def test_the_first_lines_tell_the_build_and_what_was_set_but_no_secret(
    cluster: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "types": ["user.*,T1000I"],
        "dry_run": "true",
        "lock_period": "90s",
        "batch": "0x10",
        "elasticsearch_api_key": "hunter2",
    }
    first, second, *others = told(cluster, tmp_path, capsys, **more)
    assert (first["event"], first["build"]) == ("starting", about.line())
    assert second["event"] == "settings"
    told_of = {
        name: second[name]
        for name in ("types", "dry_run", "lock_period", "batch", "teleport_addr", "elasticsearch_api_key")
    }
    assert told_of == {
        "types": "user.*,T1000I",
        "dry_run": "true",
        "lock_period": "1m30s",
        "batch": "16",
        "teleport_addr": cluster["address"],
        "elasticsearch_api_key": "***",
    }
    assert "concurrency" not in second, "it has its default"
    warnings = [line["event"] for line in others if line["level"] == "warning"]
    assert warnings[:3] == [
        "dry run: nothing is delivered and nothing remembered",
        "will stop when everything is delivered",
        "a warning about the settings",
    ]
