"""The seams between the packages: what a sink, a transform and the others are to one another, as protocols and plain
types without code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
