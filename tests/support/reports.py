"""Reports of a process that was never run."""

from __future__ import annotations

from event_handler.report import Counters, Load, Position, Reading, Report, SinkReport

NOW = 1_000_000.0
ALL_READ = Position("bulk", NOW, True)


def sink_of(name: str = "siem", **more: object) -> SinkReport:
    known: dict[str, object] = {
        "name": name,
        "type": "webhook",
        "audit": Counters(delivered=6),
        "recordings": Counters(delivered=5),
        "load": (Load(2, 8, 1000, 8000, NOW - 7), Load(0, 2, 0, 2000, None)),
        "alone": False,
        "lag": 7.0,
        "oldest": NOW - 7,
        "failing": "",
        "failing_since": None,
        "next_step": "",
        "dead_letters": 0,
        "dead_letter_bytes": 0,
        "recordings_waiting": 0,
        "state_bytes": 4096,
        "certificate_expires": None,
    }
    return SinkReport(**{**known, **more})  # type: ignore[arg-type]  # the values are right, mypy sees objects


def report_of(
    *sinks: SinkReport,
    position: Position | None = ALL_READ,
    now: float = NOW,
    connected: bool = True,
    failing: str = "",
) -> Report:
    reading = Reading(("siem",), connected, NOW - 100, 1, "auth:3025", "direct", "18.1", position, failing)
    return Report("example.com", NOW - 200, now, 0.0, NOW + 9000, 0, 10_000, None, (reading,), sinks or (sink_of(),))
