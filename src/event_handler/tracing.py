"""Notes what happened to each batch, for who exports traces: how long its events came in and waited, and each request.

It costs nothing while nobody asks for traces, as log lines of a level that is off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import getrandbits

MOST_UNEXPORTED = 20_000  # spans that wait to be exported, 10 MB of them; the newest are dropped and counted

Facts = dict[str, str | int]
Earlier = tuple[str, float, float]  # the name of a part, its begin and its end


@dataclass(frozen=True, slots=True)
class Span:
    """A part of what happened to a batch. Times are of the monotonic clock, in seconds.

    `parent` is the id of the span that it is a part of, 0 for a batch itself; `failing` says why it failed, "" if not.
    """

    name: str
    trace: int
    id: int
    parent: int
    begin: float
    end: float
    facts: Facts = field(default_factory=dict)
    failing: str = ""


class Traces:
    """The spans of the process that are not exported yet; `missed` counts those that came too fast for that."""

    def __init__(self) -> None:
        self._kept: deque[Span] | None = None
        self._within: ContextVar[tuple[int, int] | None] = ContextVar("batch", default=None)  # its trace and its id
        self.missed = 0

    @property
    def wanted(self) -> bool:
        """Whether anybody asks for them."""
        return self._kept is not None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep spans within the block, until they are taken."""
        self._kept, self.missed = deque(), 0
        try:
            yield
        finally:
            self._kept = None

    def take(self) -> list[Span]:
        """The spans since the last call."""
        if self._kept is None:
            return []
        taken = list(self._kept)
        self._kept.clear()
        return taken

    @contextmanager
    def batch(self, clock: Callable[[], float], before: Sequence[Earlier], facts: Facts) -> Iterator[None]:
        """A batch until the end of the block. `before` is what happened to it so far; the first part began it."""
        trace, own = getrandbits(128) or 1, _new_id()
        begun = self._within.set((trace, own))
        try:
            yield
        finally:
            self._within.reset(begun)
            for name, begin, end in before:
                self._add(Span(name, trace, _new_id(), own, begin, end))
            self._add(Span("batch", trace, own, 0, before[0][1], clock(), facts))

    def request(self, begin: float, end: float, facts: Facts, failing: str) -> None:
        """A request for the batch in whose block, or in a task of which, this is called."""
        within = self._within.get()
        if within is not None:
            self._add(Span("request", within[0], _new_id(), within[1], begin, end, facts, failing))

    def _add(self, span: Span) -> None:
        if self._kept is None:
            return
        if len(self._kept) >= MOST_UNEXPORTED:
            self.missed += 1
        else:
            self._kept.append(span)


def _new_id() -> int:
    return getrandbits(64) or 1


TRACES = Traces()  # of the process, as its log is
