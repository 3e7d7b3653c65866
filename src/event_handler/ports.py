"""The seams between the packages: what a sink, a transform and the others are to one another, as protocols and plain
types without code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from event_handler.event import Event as Event


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has answered for every event of the batch."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing is known to be delivered; send again, not before `after` seconds. `reason` is shown to the user.

    `misconfigured` marks what only a person can correct (a wrong certificate): wait long and say so loudly, never drop.
    `unanswered` means that the request went out, or began to, and no answer came: time-out, reset or close.
    """

    reason: str
    after: float = 0.0
    misconfigured: bool = False
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Denied(Retry):
    """The receiver answered that it does not take this (401, 403, 404 and the like).

    Mostly that is about the settings, and then it hits everything; but a firewall may mean the content of a single
    event.
    """

    misconfigured: bool = True


@dataclass(frozen=True, slots=True)
class Reject:
    """The receiver has looked at the content and does not want it, as far as its answer tells (400, 422)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Split:
    """The batch is too large for the receiver."""

    reason: str


@dataclass(frozen=True, slots=True)
class Partial:
    """The receiver has answered event by event: all are delivered but those named, by their place in the batch from 0.

    `retry` are to be sent again, as a Retry with the same fields would, or a Denied where `misconfigured` is set;
    `rejected` is content that it does not want, each for its reason.
    """

    retry: frozenset[int]
    rejected: Mapping[int, str]
    reason: str = ""
    after: float = 0.0
    misconfigured: bool = False


Verdict = Delivered | Retry | Reject | Split | Partial


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sink is sent: `events` and `bytes` in a batch, `requests` in flight at most, `age` in seconds to wait for
    more events.

    `ordered` asks for one request after the other where order matters: for the events of a session, and for those of
    none.
    """

    events: int
    bytes: int
    requests: int
    age: float
    ordered: bool = False


class Sink(Protocol):
    """A destination. `deliver` never raises for what the receiver does.

    Events of one call share a session id (or have none).
    """

    name: str
    limits: Limits

    async def deliver(self, events: Sequence[Event]) -> Verdict: ...

    async def reopen(self) -> None:
        """Files that the sink has open or has read may have changed (SIGHUP)."""

    async def close(self) -> None: ...


class Transform(Protocol):
    """A step between dedup and batch. `name` is the table's, for errors.

    `apply` returns the event that goes on, the same one or another with the same id, or None when none does. It must
    not change the one that it was given. What it raises makes a dead letter of the event.
    """

    name: str

    def apply(self, event: Event) -> Event | None: ...


@dataclass(frozen=True, slots=True)
class RecordingItem:
    """A recording to fetch. Times are seconds since the epoch; every event with a lower index than `next_index` is
    delivered.

    `looks` is how often the cluster has sent it to its end without an event that tells that the session had ended.
    """

    session_id: str
    announced: float
    uploaded: bool
    attempts: int
    next_try: float
    next_index: int
    looks: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that the sink will never take, or bytes that are no event, with the reason.

    `time` and `index` are the event's; `time` is None in letters of earlier versions, and where there is no event.
    """

    sink: str
    reason: str
    type: str
    id: str
    session_id: str
    body: bytes
    time: float | None = None
    index: int = 0


@dataclass(slots=True)
class Commit:
    """What one transaction remembers."""

    positions: dict[str, str] = field(default_factory=dict)
    ids: bytes = b""
    recordings: list[RecordingItem] = field(default_factory=list)
    indexes: dict[str, int] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


class Stream(Protocol):
    """What is read in one order: a chunk, a search, a recording, by every sink that gets it."""

    @property
    def drained(self) -> bool:
        """Whether everything that was put in has been delivered and remembered."""

    def split(self) -> Stream:
        """A new part right behind this one. The position moves into a part only when all before it are closed and
        delivered.
        """

    def close(self) -> None:
        """Nothing more belongs into this part."""


class Consumer(Protocol):
    """Whoever takes what a source reads. `ordered`: the events of a session are wanted in their order."""

    @property
    def ordered(self) -> bool: ...

    def track(self, stream: str) -> Any:
        """A new Stream; its name is the key under which the position is remembered."""

    async def put(self, tracker: Any, wires: Sequence[bytes], position: str | None, session_id: str = "") -> int:
        """Take a run of undecoded events of one stream, and return how many of them are new.

        `position` is remembered when they and all before them are delivered. Waits while there is no room.
        """

    def skip(self, wires: Sequence[bytes]) -> None:
        """Count events as delivered that another program has delivered. Raises StateError."""

    async def drain(self, tracker: Any) -> None:
        """Wait until everything of a stream has been delivered and remembered."""

    def nothing_follows(self, so: bool) -> None:
        """Say whether only the delivery of what was put in is waited for."""


class ReadingState(Protocol):
    """How far a cluster was read, as its sources remember it. Every method raises StateError."""

    def fact(self, name: str) -> str:
        """What is remembered under that name, "" when nothing is."""

    def remember(self, name: str, value: str) -> None: ...

    def positions(self, prefix: str) -> dict[str, str]:
        """Positions of all streams whose key starts with `prefix`."""

    def forget_until(self, prefix: str, end: str) -> None:
        """Drop the positions of all streams whose key starts with `prefix` and is less than `end`."""


class RecordingQueue(Protocol):
    """The recordings that are still to be fetched. Every method raises StateError."""

    def due_recordings(self, now: float, limit: int, longest_wait: float) -> list[RecordingItem]:
        """Those to ask for now. None waits longer than `longest_wait` seconds."""

    def waiting_recordings(self) -> tuple[int, int]:
        """How many recordings are not finished, and how many of them were never tried."""

    def recording_done(self, session_id: str) -> None: ...

    def recording_given_up(self, letter: DeadLetter) -> None:
        """It is done, and kept as a dead letter."""

    def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        """Try again at `next_try`; `counted` when it was the recording that failed, not the whole cluster."""

    def recording_looked(self, session_id: str, next_try: float) -> None:
        """It was sent to its end, which is perhaps not the session's: look again at `next_try`."""

    def recordings_looked_at(self) -> list[str]:
        """The sessions whose recordings were sent to their end and are to be looked at again."""

    def recordings_due_now(self, sessions: Iterable[str]) -> None:
        """Do not wait any longer for the upload events of sessions that have ended, nor for second looks."""
