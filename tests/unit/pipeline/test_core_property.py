"""Whatever happens in whatever order, nothing is lost, and only what was in flight at a kill or whose answer was
lost comes again.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from event_handler.event import Event
from event_handler.pipeline import committer, engine, outage
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.ports import DeadLetter, Delivered, Limits, RecordingItem, Reject, Retry, Verdict
from event_handler.teleport.wire.decode import UNDECODABLE
from event_handler.teleport.wire.raw import raw_events
from tests.support.checkpoints import checkpoint, positions
from tests.support.events import wire
from tests.support.passing_time import PassingLoop
from tests.support.pipelines import stored
from tests.unit.pipeline.test_state_failures import AilingStore

pytestmark = pytest.mark.proof

STREAMS = 2
KINDS = ("plain", "plain", "plain", "upload", "poison", "garbage")
TURNS = 20  # of the event loop: enough for a verdict to be acted on, remembered, and the next batch to be sent
PAUSE = 1000.0  # seconds; longer than any pause between tries
POISON = 5  # events at most that the sink refuses: below the number at which the engine blames the configuration
IN_FLIGHT = 1500  # bytes: three events, so that readers wait
FAULTS = (
    (False, False),
    (False, False),
    (True, False),
    (False, True),
    (True, True),
)  # of commits, of looks at the dead letters
SILENCE = structlog.wrap_logger(
    None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
)  # a line a turn otherwise


class Desk:
    """A sink whose batches of one event lie open until they are answered, in any order."""

    name = "desk"
    limits = Limits(1, 1_000_000, 4, 0.0)

    def __init__(self) -> None:
        self.open: list[tuple[str, asyncio.Future[Verdict]]] = []

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.open.append((events[0].id, answer))
        return await answer

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


def name_of(stream: int) -> str:
    return f"bulk/2026-01-01/{stream}"


class Core(RuleBasedStateMachine):
    """`received` and `allowed` count by id how often an event was taken, and how often it may come again."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for module in (outage, engine, committer):
            self.patch.setattr(module, "log", SILENCE)
        self.loop = PassingLoop()
        self.store = AilingStore()
        self.streams: list[list[str]] = [[] for _ in range(STREAMS)]
        self.uploads: set[str] = set()
        self.poison: set[str] = set()
        self.garbage: set[str] = set()
        self.unsure: set[str] = set()  # taken and answered for while the state could not be written
        self.received: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()
        self.reached: dict[str, int] = {}
        self.readers: dict[int, asyncio.Task[int]] = {}
        self.number = 0
        self.begin()

    def begin(self) -> None:
        """A new process: it knows what the store has remembered, and nothing else."""
        self.desk = Desk()
        window = DuplicateWindow()
        window.load(self.loop.run_until_complete(self.store.delivered_ids()))
        self.selector = Selector("desk", window, skip_types=("session.upload",))
        self.line = Pipeline(self.desk, self.store, self.selector, PipelineLimits(4, IN_FLIGHT))
        self.run(self.line.__aenter__())
        self.read_from_what_is_remembered()

    def saved(self) -> dict[str, str]:
        return self.loop.run_until_complete(positions(self.store))

    def pending(self) -> list[RecordingItem]:
        return self.loop.run_until_complete(self.store.unfinished_recordings())

    def read_from_what_is_remembered(self) -> None:
        saved = self.saved()
        self.read_up_to = [int(saved.get(name_of(number), "0")) for number in range(STREAMS)]
        self.trackers = [CheckpointTracker() for _ in range(STREAMS)]
        self.readers.clear()

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        self.loop.run_until_complete(work)
        self.loop.run_until_complete(self.turns())

    async def turns(self) -> None:
        """Until every pause is over, and what follows it is done."""
        for pause in (0.0, PAUSE):
            await asyncio.sleep(pause)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        if not self.store.ill:
            self.unsure.clear()
        self.readers = {stream: reader for stream, reader in self.readers.items() if not reader.done()}

    @rule(stream=st.integers(0, STREAMS - 1), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    def events_are_written(self, stream: int, kinds: list[str]) -> None:
        for kind in kinds:
            self.number += 1
            uid = f"e{self.number}"
            self.streams[stream].append(uid)
            if kind == "upload":
                self.uploads.add(uid)
            elif kind == "garbage":
                self.garbage.add(uid)
            elif kind == "poison" and len(self.poison) < POISON:
                self.poison.add(uid)

    @precondition(lambda self: self.number > 0)
    @rule(stream=st.integers(0, STREAMS - 1), data=st.data())
    def an_event_is_written_twice(self, stream: int, data: st.DataObject) -> None:
        self.streams[stream].append(f"e{data.draw(st.integers(1, self.number))}")

    @rule(
        stream=st.integers(0, STREAMS - 1),
        kinds=st.lists(st.sampled_from(KINDS), max_size=4),
        size=st.integers(1, 6),
        positioned=st.sampled_from([True, True, False]),
    )
    def events_are_read(self, stream: int, kinds: list[str], size: int, positioned: bool) -> None:
        self.events_are_written(stream, kinds)
        if stream not in self.readers:
            self.run(self.read(stream, size, positioned))

    async def read(self, stream: int, size: int, positioned: bool) -> None:
        begin = self.read_up_to[stream]
        events = self.streams[stream][begin : begin + size]
        self.read_up_to[stream] = begin + len(events)
        reached = checkpoint(name_of(stream), str(self.read_up_to[stream])) if positioned else None
        reading = self.line.put(self.trackers[stream], raw_events([self.wire(uid) for uid in events]), reached)
        self.readers[stream] = asyncio.create_task(reading)

    def wire(self, uid: str) -> bytes:
        if uid in self.garbage:
            return b"\xff" + uid.encode()
        return wire(uid, "session.upload", sid=uid) if uid in self.uploads else wire(uid)

    @precondition(lambda self: not self.store.ill and not self.store.blind)
    @rule()
    def the_connection_is_lost(self) -> None:
        """Readers are cancelled.

        What they had handed on is delivered, and then all is read from what was remembered.
        """
        self.run(self.cancel_readers())
        self.everything_is_answered()
        assert all(tracker.drained for tracker in self.trackers)
        self.read_from_what_is_remembered()

    async def cancel_readers(self) -> None:
        for reader in self.readers.values():
            reader.cancel()
        await asyncio.gather(*self.readers.values(), return_exceptions=True)

    def everything_is_answered(self) -> None:
        while self.desk.open:
            self.answer(0, "delivered")

    @precondition(lambda self: self.desk.open)
    @rule(data=st.data(), answer=st.sampled_from(["delivered", "delivered", "delivered", "busy", "answer lost"]))
    def the_sink_answers(self, data: st.DataObject, answer: str) -> None:
        self.answer(data.draw(st.integers(0, len(self.desk.open) - 1)), answer)

    def answer(self, place: int, answer: str) -> None:
        uid, future = self.desk.open.pop(place)
        if answer == "busy":
            future.set_result(Retry("scripted congestion"))
        elif uid in self.poison:
            future.set_result(Reject("scripted refusal"))
        else:
            self.received[uid] += 1
            if answer == "delivered":
                self.unsure.add(uid)
            else:
                self.allowed[uid] += 1
            future.set_result(Delivered() if answer == "delivered" else Retry("scripted loss of the answer"))
        self.run(self.turns())

    @rule(faults=st.sampled_from(FAULTS))
    def the_disk_fails_or_works_again(self, faults: tuple[bool, bool]) -> None:
        self.store.ill, self.store.blind = faults
        self.run(self.turns())

    @rule(data=st.data())
    def the_process_is_killed(self, data: st.DataObject) -> None:
        self.allowed.update(self.unsure)
        self.unsure.clear()
        for uid, _ in self.desk.open:  # sent, and perhaps taken, without an answer
            if uid not in self.poison and data.draw(st.booleans()):
                self.received[uid] += 1
                self.allowed[uid] += 1
        self.run(self.end_without_a_word())
        self.unsure.clear()
        self.begin()

    async def end_without_a_word(self) -> None:
        """Stop all work of the line, and never let it commit what it knows."""
        await self.cancel_readers()
        for task in self.line._tasks:
            task.cancel()
        await asyncio.gather(*self.line._tasks, return_exceptions=True)

    @invariant()
    def nothing_comes_twice_without_a_reason(self) -> None:
        assert {uid: times for uid, times in self.received.items() if times > 1 + self.allowed[uid]} == {}

    @invariant()
    def no_position_passes_what_is_neither_delivered_nor_in_flight(self) -> None:
        for number, events in enumerate(self.streams):
            reached = int(self.saved().get(name_of(number), "0"))
            known = (
                self.received.keys() | {uid for uid, _ in self.desk.open} | self.uploads | self.poison | self.garbage
            )
            assert set(events[:reached]) <= known | self.read_elsewhere(number)

    @invariant()
    def nothing_stands_still(self) -> None:
        """With nothing in flight, everything that was read is remembered, as soon as the disk works."""
        if not (self.desk.open or self.readers or self.store.ill or self.store.blind):
            assert all(tracker.drained for tracker in self.trackers)
            assert self.line._committer.empty

    @invariant()
    def no_position_goes_back(self) -> None:
        saved = {stream: int(position) for stream, position in self.saved().items()}
        assert all(saved[stream] >= reached for stream, reached in self.reached.items())
        self.reached = saved

    def read_elsewhere(self, stream: int) -> set[str]:
        """Events that another stream still brings after its remembered position: seen again, they are dropped."""
        saved = self.saved()
        others = ((n, events) for n, events in enumerate(self.streams) if n != stream)
        return {uid for n, events in others for uid in events[int(saved.get(name_of(n), "0")) :]}

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.loop.run_until_complete(self.end_without_a_word())
            self.store.close()
            self.loop.close()
            self.patch.undo()

    def finish(self) -> None:
        """Everything works again and is read to its end: all is delivered or a dead letter, and every recording
        announced.
        """
        self.the_disk_fails_or_works_again((False, False))
        self.everything_is_answered()
        for number, events in enumerate(self.streams):
            self.run(self.read(number, len(events) + 1, True))
            self.everything_is_answered()
        self.nothing_comes_twice_without_a_reason()
        written = {uid for events in self.streams for uid in events}
        dead = [self.dead(letter) for letter in self.loop.run_until_complete(stored(self.store))]
        assert set(self.received) == written - self.uploads - self.poison - self.garbage
        assert sorted(dead) == sorted((self.poison | self.garbage) & written)
        assert {item.session_id for item in self.pending()} == self.uploads
        assert self.saved() == {name_of(n): str(len(events)) for n, events in enumerate(self.streams)}

    def dead(self, letter: DeadLetter) -> str:
        """The id of the event that a letter holds."""
        if letter.type:
            return letter.id
        return base64.b64decode(orjson.loads(letter.body)[UNDECODABLE])[1:].decode()


TestCore = Core.TestCase
TestCore.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
