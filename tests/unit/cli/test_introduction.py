"""A person at a terminal reads in six lines what will happen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from event_handler.cli.introduction import introduction
from event_handler.config.model import StartSettings
from event_handler.runtime.sinks import Filters, PlannedSink
from event_handler.simulator.credentials import write_cluster_files
from event_handler.teleport.auth.credentials import load
from tests.support.sinks import ScriptedSink


def test_it_says_what_is_read_and_where_it_goes(tmp_path: Path) -> None:
    write_cluster_files(tmp_path, "sim.test")
    credentials = load(str(tmp_path / "identity"), "", "", "")
    settings = StartSettings(
        teleport_addr=("proxy.sim.test:443",),
        storage="/var/lib/handler",
        start_time=datetime(2026, 1, 2, tzinfo=UTC),
        listen="127.0.0.1:3000",
        listen_token="a-secret-token",
    )
    sinks = [PlannedSink(ScriptedSink(), Filters((), (), ()), type="webhook")]
    lines = introduction(settings, sinks, credentials)
    assert len(lines) == 6
    assert lines[1].startswith("  cluster   sim.test, at proxy.sim.test:443, identity until 20")
    assert lines[2:] == [
        "  reads     the audit log and session recordings, from where it stopped; for a new storage from "
        "2026-01-02 00:00:00 UTC",
        "  delivers  to scripted (webhook)",
        "  storage   /var/lib/handler",
        "  look      http://127.0.0.1:3000/, or teleport-event-handler status",
    ]
    bare = introduction(StartSettings(teleport_addr=("a:1",), no_session_recordings=True), sinks, credentials)
    assert bare[2] == "  reads     the audit log, from where it stopped; for a new storage from now"
    assert bare[5] == "  look      teleport-event-handler status"
