"""Transforms as a step of the pipeline: after dedup, before batch, for new events and for dead letters alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from event_handler.event import Event
from event_handler.pipeline.dead_letters import DeadLetterRetry
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.tracker import CheckpointTracker
from event_handler.pipeline.transforms.add_fields import AddFields, AddFieldsOptions
from event_handler.pipeline.transforms.chain import Chain
from event_handler.pipeline.transforms.drop_fields import DropFields, DropFieldsOptions
from event_handler.ports import Delivered, Limits, Reject, Verdict
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import raw_events, restored
from tests.support.checkpoints import CHUNK, mark, positions
from tests.support.events import wire
from tests.support.passing_time import in_passing_time
from tests.support.pipelines import QUICK, stored

LABEL = AddFields(AddFieldsOptions(fields={"environment": "production"}), "label")


class Keeping:
    """A sink that keeps the bodies, and refuses the events in `refused`."""

    name = "keeping"

    def __init__(self, *, ordered: bool = False) -> None:
        self.limits = Limits(10, 1_000_000, 3, 0.01, ordered)
        self.bodies: dict[str, bytes] = {}
        self.refused: set[str] = set()

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if self.refused & {event.id for event in events}:
            return Reject("not wanted")
        self.bodies |= {event.id: event.body for event in events}
        return Delivered()

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Fussy:
    """Wants no event of a robot, and fails where there is no user."""

    name = "fussy"

    def apply(self, event: Event) -> Event | None:
        return None if orjson.loads(event.body)["user"] == "robot" else event


async def put(sink: Keeping, store: SqliteStore, chain: Chain, *wires: bytes) -> None:
    selector = Selector(sink.name, DuplicateWindow())
    async with Pipeline(sink, store, selector, PipelineLimits(3, 100_000), chain, QUICK) as line:
        await line.put(CheckpointTracker(), raw_events(wires), mark("p"))
        await line.drain_all()


async def retried(sink: Keeping, store: SqliteStore, chain: Chain) -> None:
    store._rows("UPDATE dead_letters SET retry = 1")
    end = asyncio.Event()
    end.set()
    await DeadLetterRetry(sink, store, restored, lambda _: None, chain).run(end)


async def test_the_sink_gets_what_the_transforms_made() -> None:
    sink, store = Keeping(), SqliteStore(None)
    less = DropFields(DropFieldsOptions(fields=("uid",)), "less")
    await put(sink, store, Chain([LABEL, less]), wire("a"))
    assert orjson.loads(sink.bodies["a"]) == {"environment": "production", "event": "user.login", "ei": 0}


@in_passing_time
async def test_a_dead_letter_keeps_the_event_as_it_was_and_a_retry_passes_the_transforms() -> None:
    sink, store = Keeping(), SqliteStore(None)
    sink.refused = {"a"}
    await put(sink, store, Chain([LABEL]), wire("a"), *(wire(f"other-{n}") for n in range(30)))
    (letter,) = await stored(store)
    assert orjson.loads(letter.body) == {"uid": "a", "event": "user.login", "ei": 0}
    sink.refused = set()
    await retried(sink, store, Chain([LABEL]))
    assert orjson.loads(sink.bodies["a"])["environment"] == "production"
    assert await stored(store) == []


async def test_an_event_that_no_transform_lets_on_is_done() -> None:
    sink, store = Keeping(), SqliteStore(None)
    await put(sink, store, Chain([Fussy()]), wire("a", user="robot"), wire("b", user="alice"), wire("c", user="robot"))
    assert set(sink.bodies) == {"b"}
    assert await positions(store) == {CHUNK: "p"}
    await put(sink, store, Chain([Fussy()]), wire("d", user="robot"))
    assert await positions(store) == {CHUNK: "p"}


async def test_an_event_that_a_transform_fails_for_is_a_dead_letter_and_holds_up_no_other() -> None:
    sink, store = Keeping(), SqliteStore(None)
    await put(sink, store, Chain([Fussy()]), wire("a"), wire("b", user="alice"))
    assert set(sink.bodies) == {"b"}
    (letter,) = await stored(store)
    assert (letter.id, letter.reason) == ("a", "the transform fussy failed (KeyError: 'user')")
    await retried(sink, store, Chain([Fussy()]))
    assert [kept.reason for kept in await stored(store)] == [letter.reason]
    await retried(sink, store, Chain())
    assert set(sink.bodies) == {"a", "b"}
    assert b"".join(await store.delivered_ids()).count(
        Selector(sink.name, DuplicateWindow()).select(raw_events([wire("a")])).events[0][1]
    )


async def test_the_order_of_a_session_is_kept_without_its_id() -> None:
    sink, store = Keeping(ordered=True), SqliteStore(None)
    chain = Chain([DropFields(DropFieldsOptions(fields=("sid",)), "less")])
    await put(sink, store, chain, *(wire(f"e{n}", sid="s1") for n in range(30)))
    assert list(sink.bodies) == [f"e{n}" for n in range(30)]
