"""Hands what is read once to every sink, each with a pipeline and a state of its own; one that holds up the others is
detached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

import structlog

from event_handler.checkpoint import Checkpoint, Chunk, Recording
from event_handler.errors import StateError
from event_handler.event import RawEvent
from event_handler.pipeline.engine import Pipeline, Taken
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import StateStore

PATIENCE = 5.0  # seconds that a sink may hold up others before it is detached
FORGIVEN = 0.5  # seconds of that which a second without holding anybody up makes good

R = TypeVar("R")

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Member:
    """One sink of a reading, with the place where its own reading begins and the types that it can want.

    `attached` says whether it gets what is read; once it does not, it never does again: a new member takes its place.
    """

    name: str
    store: StateStore
    audit: Pipeline
    recordings: Pipeline
    start: float
    types: tuple[str, ...]
    know: Callable[[list[bytes]], None]  # ids of events that other replicas have delivered
    attached: bool = True
    left: asyncio.Event = field(default_factory=asyncio.Event)  # set when it is not attached any more
    _waits: int = 0  # calls that wait for it while others are done
    _held: float = 0.0  # seconds that it held up others, less what was forgiven
    _at: float = field(default_factory=monotonic)
    _calls: set[asyncio.Task[None]] = field(default_factory=set)

    def detach(self) -> None:
        """Stop handing it anything. What it has taken is delivered all the same."""
        self.attached = False
        self.left.set()
        for call in self._calls:
            call.cancel()

    def call(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that waits for this member; it is cancelled when the member is detached."""
        task = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    def holds_up(self, change: int) -> None:
        """One call more, or less, waits for it while others are done."""
        self._settle()
        self._waits += change

    @property
    def patience(self) -> float:
        """Seconds that others still wait for it."""
        self._settle()
        return PATIENCE - self._held

    def _settle(self) -> None:
        now = monotonic()
        passed, self._at = now - self._at, now
        self._held = self._held + passed if self._waits else max(0.0, self._held - FORGIVEN * passed)


class SharedStream:
    """A stream as each member has it: its own tracker, until it is detached."""

    def __init__(self, trackers: dict[Member, CheckpointTracker]) -> None:
        self.trackers = trackers

    @property
    def drained(self) -> bool:
        return all(tracker.drained for member, tracker in self.trackers.items() if member.attached)

    def split(self) -> SharedStream:
        return SharedStream({member: tracker.split() for member, tracker in self.trackers.items()})

    def close(self) -> None:
        for tracker in self.trackers.values():
            tracker.close()


class FanOut:
    """The members of one reading. `audit` and `recordings` are what its sources put into."""

    def __init__(self, members: Sequence[Member] = ()) -> None:
        self._members = list(members)
        self._joining: list[Member] = []
        self._news = asyncio.Event()  # somebody joins, or nobody is left
        self.takers: dict[Chunk | Recording, list[Member]] = {}  # by what is about to be read for them
        self.audit = Branch(self, lambda member: member.audit)
        self.recordings = Branch(self, lambda member: member.recordings)

    def join(self, member: Member) -> None:
        """Attach a member when reading begins the next time, which is soon."""
        self._joining.append(member)
        self._news.set()

    async def admit(self, *, forever: bool) -> bool:
        """Before a reading begins: attach those that join. Waits for one where there is none, if `forever`.

        Return whether there is any member.
        """
        while True:
            self._news.clear()
            self._members = [*self.members, *(member for member in self._joining if member.attached)]
            self._joining = []
            if self._members or not forever:
                return bool(self._members)
            await self._news.wait()

    async def while_empty(self) -> None:
        """Where no member is left, wait until the reading is ended for that."""
        if not self.members:
            await asyncio.Event().wait()

    async def of_each(
        self, ask: Callable[[StateStore], Awaitable[R]], members: Sequence[Member] | None = None
    ) -> list[tuple[Member, R]]:
        """What the state of each member says, or of each of `members` that is still attached.

        One that fails, or does not answer, is detached, unless it is the only one: then it raises.
        """
        found = []
        for member in [one for one in self.members if members is None or one in members]:
            alone = len(self.members) == 1
            try:
                async with asyncio.timeout(None if alone else PATIENCE):
                    found.append((member, await ask(member.store)))
            except StateError as error:
                if alone:
                    raise
                self.detach(member, str(error))
            except TimeoutError:
                self.detach(member, "its state does not answer")
        return found

    async def changed(self) -> None:
        """Wait until somebody joins, or nobody is left."""
        await self._news.wait()

    @property
    def members(self) -> list[Member]:
        """Those that are attached."""
        return [member for member in self._members if member.attached]

    @property
    def delivered(self) -> int:
        """Events, by all members."""
        return sum(m.audit.counters.delivered + m.recordings.counters.delivered for m in self._members)

    @property
    def start(self) -> float:
        return min(member.start for member in self.members)

    @property
    def types(self) -> tuple[str, ...]:
        """The types that the server may be asked for alone, () for all."""
        wanted = [member.types for member in self.members]
        return tuple(dict.fromkeys(kind for types in wanted for kind in types)) if all(wanted) else ()

    def forget(self) -> None:
        """A member was detached by somebody else."""
        if not self.members:
            self._news.set()

    def detach(self, member: Member, why: str) -> None:
        if member.attached:
            member.detach()
            log.warning(
                "the sink goes on with a reading of its own, so that it holds up no other", sink=member.name, reason=why
            )
        if not self.members:
            self._news.set()

    async def drain(self) -> None:
        """Wait until everything that was read has been delivered and remembered."""
        await self.audit.drain_all()
        await self.recordings.drain_all()


class Branch:
    """One of the two ways of a fan-out: the audit log, or recordings. A Consumer."""

    def __init__(self, group: FanOut, pipeline: Callable[[Member], Pipeline]) -> None:
        self._group = group
        self._pipeline = pipeline

    @property
    def ordered(self) -> bool:
        return any(self._pipeline(member).ordered for member in self._group.members)

    async def track(self, of: Chunk | Recording | None = None) -> SharedStream:
        """A stream for the members that have not had all of it, and for whom it was taken."""
        members = self._group.members
        if of is not None and of in self._group.takers:
            takers = self._group.takers.pop(of)
            members = [member for member in members if member in takers]
        return SharedStream({member: CheckpointTracker() for member in members})

    async def put(self, stream: SharedStream, events: Sequence[RawEvent], checkpoint: Checkpoint | None) -> int:
        """Hand a run to every member, and return how many of the events were not read before.

        That is nothing that a sink's filters can change: what is read never depends on them.
        """
        await asyncio.sleep(0)  # a fast source would otherwise never let the deliveries run
        new = 0
        rest: list[tuple[Member, Taken]] = []
        try:
            for member, tracker in stream.trackers.items():
                if member.attached:
                    pipeline = self._pipeline(member)
                    taken = pipeline.take(tracker, events, checkpoint)
                    new = max(new, taken.new)
                    if not pipeline.offer(taken):
                        rest.append((member, taken))
        except BaseException:
            for member, taken in rest:
                self._pipeline(member).give_up(taken)
            raise
        if rest:
            await self._wait_for({member: self._pipeline(member).hand_on(taken) for member, taken in rest})
        await self._group.while_empty()
        return new

    async def skip(self, events: Sequence[RawEvent]) -> None:
        for member, progress in await self._group.of_each(lambda store: store.progress()):
            if progress.last_id:
                await self._pipeline(member).skip(events)

    async def drain(self, stream: SharedStream) -> None:
        work = {
            member: self._pipeline(member).drain(tracker)
            for member, tracker in stream.trackers.items()
            if member.attached
        }
        await self._wait_for(work)
        await self._group.while_empty()

    async def drain_all(self) -> None:
        """Wait until everything that was put in has been delivered and remembered."""
        work = {member: self._pipeline(member).drain_all() for member in self._group.members}
        await self._wait_for(work)

    def nothing_follows(self, so: bool) -> None:
        for member in self._group.members:
            self._pipeline(member).nothing_follows(so)

    async def _wait_for(self, work: dict[Member, Coroutine[Any, Any, None]]) -> None:
        """Wait for each of these members, and no longer than the others can bear.

        Where all are waited for, nobody is held up.
        """
        if len(self._group.members) == 1:
            for one in work.values():
                await one
            return
        others_done = len(self._group.members) > len(work)
        calls = {member.call(one): member for member, one in work.items()}
        waiting = set(calls)
        held: list[Member] = []
        try:
            while waiting:
                if others_done and not held:
                    held = [calls[call] for call in waiting]
                    for member in held:
                        member.holds_up(1)
                patience = min(calls[call].patience for call in waiting) if others_done else None
                done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                others_done = others_done or bool(done)
                for call in done:
                    self._end(call, calls[call], held)
                for call in waiting:
                    if others_done and held and calls[call].patience <= 0.0:
                        self._group.detach(calls[call], "it does not take events as fast as the others")
        finally:
            for member in held:
                member.holds_up(-1)
            for call in waiting:
                call.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def _end(self, call: asyncio.Task[None], member: Member, held: list[Member]) -> None:
        """Take note of a call that has ended. Raises what it raised, unless the member was detached."""
        if member in held:
            held.remove(member)
            member.holds_up(-1)
        if not call.cancelled() and (error := call.exception()) is not None and member.attached:
            raise error
