"""The decision table: what becomes of events that the receiver did not take, by its answer and by what else it
takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from event_handler.ports import Denied, Partial, Reject, Retry, Split

SUSPECT_AFTER = (
    4  # failures that may pass by themselves; after so many, about two seconds, the events may be the reason
)
# of a row of failures; where the receiver fails at most things, and more likely than this, smaller batches help nobody
CHANCE = 0.01
# failures that may pass by themselves; after so many, some five seconds, another event shows whether anything passes
ASIDE_AFTER = 6
SEVERAL_REFUSED = (
    20  # different events refused with none taken since: the receiver refuses everything, whatever it took before
)
MEMORY = 6 * 3600.0  # seconds that what the receiver took before tells about what it would take now


class Kind(Enum):
    """What an answer, or its absence, says."""

    TOO_LARGE = "too large"  # 413
    CONTENT = "content refused"  # 400, 422
    DENIED = "denied"  # 401, 403, 404, 405, 3xx, 501 …: the settings, or a firewall that dislikes a single event
    FAILED = "failed"  # 408, 425, 429, 5xx, no connection, a fault of the sink: mostly it passes
    UNANSWERED = "unanswered"  # time-out, reset, close
    UNREACHABLE = "unreachable"  # TLS, files: nothing was sent, so nothing is said about events


class Others(Enum):
    """What is known of other events, while these are not taken. The column of the table."""

    TAKEN = "others were taken since the last try"
    ENDING = "others were taken earlier, nothing else is left to try, and everything that was read is waited for"
    EARLIER = "others were taken earlier, and nothing else is left to try"
    UNKNOWN = "nothing is known, because nothing was taken or because everything is refused"


class Action(Enum):
    WAIT = "send the same again after a pause"
    HALVE = "send half of it at once"
    NARROW = "send half of it after a pause"
    SET_ASIDE = "let others go first, and try it again alone after a pause"
    DEAD_LETTER = "keep it as a dead letter"


@dataclass(frozen=True, slots=True)
class Proof:
    """It is the event and not the receiver when it was refused alone so many `times`, over `seconds` at least."""

    times: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """For one kind of answer: what is done with `several` events from the `patience`-th failure on, and what proof
    makes a single one a dead letter, by what is known of others. None: nothing does.
    """

    several: Action
    patience: int
    taken: Proof | None = None
    ending: Proof | None = None
    earlier: Proof | None = None
    unknown: Proof | None = None

    def proof(self, others: Others) -> Proof | None:
        match others:
            case Others.TAKEN:
                return self.taken
            case Others.ENDING:
                return self.ending
            case Others.EARLIER:
                return self.earlier
            case Others.UNKNOWN:
                return self.unknown


# Content that is refused needs little proof while others pass. Without any it waits for an hour, for on an idle cluster
# nothing else may come that could prove anything. What is denied may be the settings, so it needs more. What may pass
# by itself needs most: an hundred failures are some twenty minutes, and only while the receiver takes more than it
# fails at.
TABLE: Mapping[Kind, Row] = MappingProxyType(
    {
        Kind.TOO_LARGE: Row(Action.HALVE, 1, Proof(3), Proof(5, 5.0), Proof(5, 120.0), Proof(20, 3600.0)),
        Kind.CONTENT: Row(Action.HALVE, 1, Proof(3), Proof(5, 5.0), Proof(5, 120.0), Proof(20, 3600.0)),
        Kind.DENIED: Row(Action.NARROW, 1, Proof(20, 60.0), Proof(15, 60.0), Proof(20, 600.0)),
        Kind.FAILED: Row(Action.NARROW, SUSPECT_AFTER, Proof(100)),
        Kind.UNANSWERED: Row(Action.NARROW, 1, Proof(100)),
        Kind.UNREACHABLE: Row(Action.WAIT, 1),
    }
)
BY_ITSELF = frozenset({Kind.FAILED, Kind.UNANSWERED})  # kinds that mostly pass by themselves
REFUSALS = frozenset({Kind.TOO_LARGE, Kind.CONTENT, Kind.DENIED})


def kind_of(verdict: Retry | Reject | Split) -> Kind:
    if isinstance(verdict, Split):
        return Kind.TOO_LARGE
    if isinstance(verdict, Reject):
        return Kind.CONTENT
    if isinstance(verdict, Denied):
        return Kind.DENIED
    if verdict.unanswered:
        return Kind.UNANSWERED
    return Kind.UNREACHABLE if verdict.misconfigured else Kind.FAILED


def rest_of(answer: Partial) -> Retry | Reject:
    """What is said about the events that an answer event by event leaves over."""
    if not answer.retry and answer.rejected:
        return Reject(next(iter(answer.rejected.values())))
    if answer.misconfigured:
        return Denied(answer.reason, answer.after)
    return Retry(answer.reason, answer.after)


class Evidence:
    """What the receiver did with everything that it was sent."""

    def __init__(self) -> None:
        self.taken = 0  # answers with which it took something
        self.failed = 0  # and those with which it did not
        self.taken_at = float("-inf")
        self.refused = 0  # different events refused alone since it last took something

    def took(self, now: float) -> None:
        self.taken += 1
        self.taken_at = now
        self.refused = 0


_Counts = tuple[float, int, int, int, int]


@dataclass(slots=True)
class History:
    """What happened to one batch or event so far. `taken` and `failed` are the evidence's counts at its last try, all
    others count failures of this `kind`.

    `apart` counts the failures between which others were taken; where a failure may pass by itself, more of them than
    failed.
    """

    taken: int
    failed: int
    kind: Kind | None = None
    alone: bool = False
    since: float = 0.0
    tries: int = 0
    apart: int = 0
    passing: bool = False  # others were taken since the last try
    overloaded: bool = False  # some others were, but the receiver failed at more
    all_taken: int = 0  # of others, since the first try
    all_failed: int = 0
    _before: dict[Kind, _Counts] = field(default_factory=dict)  # what was counted of other kinds of failure

    def failed_again(self, kind: Kind, alone: bool, evidence: Evidence, now: float) -> None:
        """Count a failure. An event that is tried alone at last begins another history.

        Each kind of failure has its own counts: an overload in between says nothing about an event that is refused
        before and after.
        """
        if alone is not self.alone:
            self._before.clear()
            self._counts = now, 0, 0, 0, 0
        elif not self._continues(kind):
            if self.kind is not None:
                self._before[_counted_as(self.kind)] = self._counts
            self._counts = self._before.pop(_counted_as(kind), (now, 0, 0, 0, 0))
        self.kind, self.alone = kind, alone
        taken, failed = evidence.taken - self.taken, evidence.failed - self.failed
        self.passing = taken > failed if kind in BY_ITSELF else taken > 0
        self.overloaded = taken > 0 and not self.passing
        self.all_taken += taken
        self.all_failed += failed
        self.tries += 1
        self.apart += self.passing
        evidence.failed += 1
        self.taken, self.failed = evidence.taken, evidence.failed

    @property
    def by_chance(self) -> bool:
        """Whether it may have failed so often only because the receiver fails at most of what it is sent."""
        share = self.all_failed / max(1, self.all_taken + self.all_failed)
        return self.overloaded and share**self.tries > CHANCE

    @property
    def _counts(self) -> _Counts:
        return self.since, self.tries, self.apart, self.all_taken, self.all_failed

    @_counts.setter
    def _counts(self, counts: _Counts) -> None:
        self.since, self.tries, self.apart, self.all_taken, self.all_failed = counts

    def _continues(self, kind: Kind) -> bool:
        return self.kind is not None and _counted_as(kind) is _counted_as(self.kind)


def _counted_as(kind: Kind) -> Kind:
    return Kind.FAILED if kind in BY_ITSELF else kind


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on besides the answer and the history.

    `refused` different events since something was taken. `order` is to be kept. `aside`: others go first already.
    """

    others: Others
    refused: int = 0
    order: bool = False
    aside: bool = False


def decide(kind: Kind, history: History, situation: Situation, now: float) -> Action:
    """What to do with events that were not taken: with one, or with several whose answer says nothing of each."""
    row = TABLE[kind]
    if not history.alone:
        if row.several is Action.WAIT or history.tries < row.patience or (kind is Kind.FAILED and history.by_chance):
            return Action.WAIT
        return Action.HALVE if situation.others is Others.TAKEN and kind in REFUSALS else row.several
    proof = row.proof(situation.others)
    times = history.apart if situation.others is Others.TAKEN else history.tries
    few = situation.others is Others.TAKEN or situation.refused < SEVERAL_REFUSED
    if proof and few and times >= proof.times and now - history.since >= proof.seconds:
        return Action.DEAD_LETTER
    if situation.aside or not _may_stand_aside(kind, history, situation):
        return Action.WAIT
    return Action.SET_ASIDE


def _may_stand_aside(kind: Kind, history: History, situation: Situation) -> bool:
    """Whether others may be tried before this event: the evidence that it needs, but its place in the order is lost."""
    if kind in BY_ITSELF:
        enough = history.apart >= SUSPECT_AFTER or (history.tries >= ASIDE_AFTER and not history.by_chance)
        return enough and not situation.order
    if situation.order:  # what is denied is mostly taken later; content that is refused, hardly
        return kind in (Kind.TOO_LARGE, Kind.CONTENT) and history.tries >= SUSPECT_AFTER
    return kind in REFUSALS
