"""The seams between the packages: what a sink, a transform and the others are to one another, as protocols and plain
types without code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import inf
from typing import Any, Final, Protocol, runtime_checkable

from event_handler.checkpoint import Checkpoint, Chunk, Progress, Recording
from event_handler.event import Event as Event
from event_handler.event import RawEvent
from event_handler.report import ReplicaReport


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
    none. A call that has taken `timeout` seconds is given up, and its events are sent again; 0 where the sink itself
    bounds how long it takes. `event_bytes` is the largest body of one event that the receiver takes whole, 0 where it
    sets no limit. `room` is how many times the bytes in flight of other sinks it needs: more than one where answers
    take long by their nature, or batches must be large.
    """

    events: int
    bytes: int
    requests: int
    age: float
    ordered: bool = False
    timeout: float = 0.0
    event_bytes: int = 0
    room: int = 1


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


class Notes(Protocol):
    """What a sink may keep in its state: texts by name, in a commit of their own. A state store is one."""

    async def note(self, name: str) -> str:
        """The text of that name, "" where there is none. Raises StateError."""

    async def commit(self, group: Commit) -> None:
        """Raises StateError."""

    async def delivered_ids(self) -> list[bytes]:
        """Packed fingerprints of delivered events (`event.fingerprint`). Raises StateError."""


@runtime_checkable
class Remembering(Protocol):
    """A sink that must remember something of its own before it sends. Without notes it does what it can."""

    async def remember_in(self, notes: Notes) -> None:
        """Called before deliveries begin, and again where they begin again. Raises StateError."""


class Transform(Protocol):
    """A step between dedup and batch. `name` is the table's, for errors.

    `apply` returns the event that goes on, the same one or another with the same id, or None when none does. It must
    not change the one that it was given. What it raises makes a dead letter of the event.
    """

    name: str

    def apply(self, event: Event) -> Event | None: ...


RECORDINGS: Final = "recordings"  # the sink named in dead letters about recordings that could not be read
REMEMBERED_IDS: Final = (
    2_000_000  # ids of delivered events that a state keeps; as many as the window of ids knows for certain
)


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


@dataclass(frozen=True, slots=True)
class FailedLogin:
    """`who` is the user, or the login where there is none.

    `moment` is the time of the event in seconds since the epoch.
    """

    id: str
    moment: float
    who: str


@dataclass(slots=True)
class Commit:
    """What one transaction remembers.

    `start` is where reading begins (seconds since the epoch), and `progress` replaces all that is known of how far it
    is; `notes` are texts that their writers know by name.
    """

    checkpoints: list[Checkpoint] = field(default_factory=list)
    ids: bytes = b""
    recordings: list[RecordingItem] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    start: float | None = None
    progress: Progress | None = None


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

    async def track(self, of: Chunk | Recording | None = None) -> Any:
        """A new Stream: of a chunk, of a recording, or of what has no end (None).

        Sinks that have had all of it do not get it. Raises StateError.
        """

    async def put(self, stream: Any, events: Sequence[RawEvent], checkpoint: Checkpoint | None) -> int:
        """Take a run of events of one stream, and return how many of them are new.

        `checkpoint` is remembered when they and all before them are delivered. Waits while there is no room.
        """

    async def skip(self, events: Sequence[RawEvent]) -> None:
        """Count events as delivered that another program has delivered. Raises StateError."""

    async def drain(self, stream: Any) -> None:
        """Wait until everything of a stream has been delivered and remembered."""

    def nothing_follows(self, so: bool) -> None:
        """Say whether only the delivery of what was put in is waited for."""


class ReadingState(Protocol):
    """How far a cluster was read, for the sources. Every method raises StateError."""

    async def progress(self) -> Progress:
        """All that is known of how far reading is."""

    async def take(self, chunk: Chunk) -> str | None:
        """Where to read a chunk from, DONE where it was read, None while another replica reads it."""

    async def close_days(self, first: date) -> None:
        """Remember that `first` is the first day that is still polled, and forget the chunks of the days before it."""

    async def last_id_passed(self) -> None:
        """What the Go plugin had delivered of its last page is known by its ids now."""


class SharedState(ReadingState, Protocol):
    """How far a cluster was read, where other replicas may read it as well."""

    async def know_others(self) -> None:
        """Know what others have delivered, before all that is new is looked for. Raises StateError."""


class RecordingQueue(Protocol):
    """The recordings that are still to be fetched. Every method raises StateError."""

    async def due_recordings(self, now: float, limit: int, longest_wait: float = inf) -> list[RecordingItem]:
        """Those to ask for now. None waits longer than `longest_wait` seconds: the clock was set back where one seems
        to.
        """

    async def waiting_recordings(self) -> tuple[int, int]:
        """How many recordings are not finished, and how many of them were never tried."""

    async def recording_done(self, session_id: str) -> None: ...

    async def recording_given_up(self, letter: DeadLetter) -> None:
        """It is done, and kept as a dead letter."""

    async def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        """Try again at `next_try`; `counted` when it was the recording that failed, not the whole cluster."""

    async def recording_looked(self, session_id: str, next_try: float) -> None:
        """It was sent to its end, which is perhaps not the session's: look again at `next_try`."""

    async def recordings_looked_at(self) -> list[str]:
        """The sessions whose recordings were sent to their end and are to be looked at again."""

    async def recordings_due_now(self, sessions: Iterable[str] = ()) -> None:
        """Do not wait any longer for the upload events of sessions that have ended, nor for second looks."""


class DeadLetterStore(Protocol):
    """The dead letters of a sink. Every method raises StateError."""

    async def dead_letter_totals(self) -> tuple[int, int]:
        """How many dead letters there are, and the bytes of their bodies: running totals, cheap to ask for."""

    async def dead_letters_to_retry(self, after: int = 0) -> list[tuple[int, DeadLetter]]:
        """The next letters behind that number which the user wants to be sent again, with their numbers."""

    async def dead_letter_delivered(self, number: int) -> None: ...

    async def dead_letter_refused(self, number: int, reason: str) -> None: ...

    async def recording_again(self, session_id: str) -> None:
        """Ask for a recording that was given up, from now on."""


class FailedLoginStore(Protocol):
    """Failed logins as long as they count, and the locks that are still to be made. Every method raises StateError."""

    async def add_failed_logins(self, failures: Iterable[FailedLogin]) -> list[FailedLogin]:
        """Remember those that are new, and return them."""

    async def failed_logins_of(self, who: str) -> list[float]:
        """When the logins of somebody failed that led to no lock yet, oldest first."""

    async def lock_due(self, who: str, user: str, login: str) -> None:
        """A lock is to be made: what led to it does not count for the next one, and is known as read all the same."""

    async def locks_due(self) -> list[tuple[str, str]]:
        """User and login of each lock that is to be made."""

    async def lock_made(self, user: str, login: str) -> None: ...

    async def forget_failed_logins(self, before: float) -> None:
        """Drop some of the failures that are older than that."""


class StateStore(ReadingState, RecordingQueue, DeadLetterStore, FailedLoginStore, Protocol):
    """What is remembered for one sink. Every method raises StateError when that cannot be read or written; nothing is
    half done then.

    A call that is cancelled has happened whole, or not at all.
    """

    async def commit(self, group: Commit) -> None:
        """Remember a group in one transaction."""

    async def claim(self, cluster: str) -> None:
        """Note whose state this is. Raises StorageError when it belongs to another cluster."""

    async def is_new(self) -> bool:
        """Whether nobody has said yet where reading begins, so that nothing was read."""

    async def start(self) -> float | None:
        """Where reading began, in seconds since the epoch; None when that is not known."""

    async def begin(self, asked: float | None) -> float:
        """Where reading began: remembered at the first call, which takes `asked` if it is given, else now.

        Raises StorageError when the state was used before and does not know: "now" would leave out what happened
        meanwhile.
        """

    async def note(self, name: str) -> str:
        """The text that was remembered under that name, "" when there is none."""

    async def delivered_ids(self) -> list[bytes]:
        """Packed 8-byte ids of delivered events, oldest group first."""

    async def taken_over_ids(self) -> list[bytes]:
        """Ids that other replicas have delivered, once after something was taken over from one of them; else []."""

    async def new_ids(self) -> list[bytes]:
        """Ids that other replicas have delivered since the last look, perhaps some that are known."""

    async def take(self, chunk: Chunk) -> str | None:
        """Claim a chunk for this process until it is done, and return its cursor: DONE where there is nothing to read.

        None while another replica has it.
        """

    async def give_back(self, chunk: Chunk) -> None:
        """Claim it no longer; nothing of it was read."""

    async def take_recording(self, session_id: str) -> tuple[bool, RecordingItem] | None:
        """As `recording`, and claims it. For this process one that another replica has is done."""

    async def take_turn(self, name: str) -> bool:
        """Claim what only one replica may do at a time; return whether it is ours now, until `end_turn`."""

    async def end_turn(self, name: str) -> None:
        """Let another replica do it."""

    async def recording(self, session_id: str) -> tuple[bool, RecordingItem] | None:
        """Whether a recording is done, and what is known of it; None when it is not known."""

    async def unfinished_recordings(self) -> list[RecordingItem]: ...

    async def recordings_again(self, since: float) -> int:
        """Ask again for all recordings that were announced from that time on; return how many they are."""

    async def size(self) -> int:
        """Bytes that the state takes where it is kept, 0 where that is not known."""

    async def dead_letters(self) -> int:
        """How many dead letters there are, counted."""

    async def finish(self) -> None:
        """All that was committed lasts, also where commits are kept for a while before. Called before `close`."""

    def close(self) -> None:
        """Nothing is asked any more; what was asked is done first."""


class Membership(Protocol):
    """This process among those that may do the work of a cluster: beside others, or in turn with them.

    `epoch` is the number of the time that it does, `counter` names what counts these ("" where the state itself does):
    of one counter, a higher number is newer. `lost` is set when others may do the work instead. `place` is where they
    meet, for the log, and `seen` are all that share the work, as far as they know of one another.
    """

    name: str
    epoch: int
    counter: str
    lost: asyncio.Event
    seen: tuple[ReplicaReport, ...]

    @property
    def place(self) -> str: ...

    @property
    def standing_by(self) -> bool:
        """Whether another process is at work, so that it is right to wait."""

    async def join(self) -> None:
        """Wait until it may work, with a new epoch. Raises StateError; a StorageError where only a person can help."""

    async def run(self, report: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Tell the others what it does, until cancelled."""

    async def leave(self) -> None:
        """Let others do the work at once."""
