"""What a running process tells of itself: to metrics, health checks, the status page and the terminal alike.

Every part of the program fills in its own figures, which cost nothing until somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # Prometheus' defaults, and more
SIZES: Final = (1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)  # events of a batch; sinks take up to 10,000
OUTCOMES: Final = ("delivered", "partial", "refused", "too_large", "denied", "failed", "unanswered")


class Histogram:
    """How many values were at most each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)  # by the first bound that is not smaller; the last: larger than all
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def _durations() -> dict[str, Histogram]:
    return {outcome: Histogram(SECONDS) for outcome in OUTCOMES}


@dataclass(slots=True)
class Counters:
    """What one pipeline has done since the process started; it outlives a pipeline that is opened again.

    `filtered` are events that the sink does not want, `refused` those that the receiver refused, `dead` all dead
    letters. `bytes` are those of the bodies delivered, `newest` is the time of the newest event delivered. `requests`
    are durations in seconds by outcome, `batches` events in a request.
    """

    read: int = 0
    filtered: int = 0
    duplicates: int = 0
    delivered: int = 0
    bytes: int = 0
    refused: int = 0
    dead: int = 0
    retries: int = 0
    newest: float = 0.0
    requests: dict[str, Histogram] = field(default_factory=_durations)
    batches: Histogram = field(default_factory=lambda: Histogram(SIZES))


@dataclass(frozen=True, slots=True)
class Load:
    """What is on its way through one pipeline now: requests, bytes, and the time of the oldest event not delivered."""

    in_flight: int
    allowed: int
    bytes: int
    bytes_allowed: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source has read: everything before `until` (seconds since the epoch); None where that is not known.

    `caught_up`: it has read all that the cluster has. `chunks_waiting` are those that are listed and not read.
    """

    mode: str
    until: float | None
    caught_up: bool
    chunks_waiting: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the cluster: the sinks that take part, the connection, how far it is, and why it cannot go on.

    `route` is the name of the way in (docs/connect.md), "" before there was one.
    """

    sinks: tuple[str, ...]
    connected: bool
    since: float
    connections: int
    address: str
    route: str
    version: str
    position: Position | None
    failing: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class SinkReport:
    """One sink: what it has done, what is on its way, and why it fails, "" while it does not.

    `history` are the events delivered in each of the last minutes, the oldest first.

    `lag` is in seconds: now less the newest time up to which everything is delivered; None while nothing is known yet.
    """

    name: str
    type: str
    audit: Counters
    recordings: Counters
    load: tuple[Load, ...]
    alone: bool
    lag: float | None
    oldest: float | None
    failing: str
    failing_since: float | None
    next_step: str
    dead_letters: int | None
    dead_letter_bytes: int | None
    recordings_waiting: int | None
    state_bytes: int | None
    certificate_expires: float | None
    history: tuple[int, ...] = ()

    @property
    def delivered(self) -> int:
        return self.audit.delivered + self.recordings.delivered


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """A process that shares the work of the cluster. `since` is for how many seconds it has been there.

    `units` is how many chunks, recordings and turns it has claimed, `turns` are the turns by name; `lag` and
    `delivered` are what it tells of itself, None and 0 before it has.
    """

    epoch: int
    name: str
    own: bool
    alive: bool
    since: float
    units: int
    turns: tuple[str, ...]
    lag: float | None
    delivered: int


@dataclass(frozen=True, slots=True)
class Report:
    """The whole process. Times are seconds since the epoch. `replicas` are all that share the work, this one too.

    `standing_by` while another process is at work and this one only waits to take over.
    """

    cluster: str
    started: float
    now: float
    start: float
    credentials_expire: float
    renewals: int
    free_bytes: int | None
    listener_certificate_expires: float | None
    readings: tuple[Reading, ...]
    sinks: tuple[SinkReport, ...]
    replicas: tuple[ReplicaReport, ...] = ()
    standing_by: bool = False

    @property
    def lag(self) -> float | None:
        """That of the slowest sink, of those that know theirs."""
        return max((sink.lag for sink in self.sinks if sink.lag is not None), default=None)


def lag(now: float, position: Position | None, oldest: float | None) -> float | None:
    """Seconds: 0 while nothing is missing, None while it is not known how far the reading is."""
    behind = [] if position is None or position.caught_up or position.until is None else [position.until]
    if oldest is not None:
        behind.append(oldest)
    if behind:
        return max(0.0, now - min(behind))
    return 0.0 if position is not None and position.caught_up else None
