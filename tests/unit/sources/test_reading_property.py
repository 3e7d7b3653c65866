"""Whatever a cluster does and however often the reading is interrupted, every event that it has is delivered in the
end.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from event_handler.checkpoint import DONE, day_of
from event_handler.errors import RpcError
from event_handler.pipeline.engine import Pipeline
from event_handler.sources.export import BulkSource
from event_handler.sources.search import SearchSource
from event_handler.state.keys import FIRST_DAY
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.decode import event_id
from event_handler.teleport.wire.messages import OLDEST_FIRST
from tests.support.checkpoints import positions
from tests.support.passing_time import BEGIN, PassingLoop
from tests.support.scripted_cluster import wire_at
from tests.unit.sources.interrupted import Cluster, Interruption, SlowSink, interruptions, page_of, read, run
from tests.unit.sources.test_export import chunk_name

pytestmark = pytest.mark.proof

DAY = 86_400.0
LOOK_BACK = 300.0
LATE_DAYS = 3
OF_CHUNKS = ("NOT_FOUND", "UNKNOWN", "INTERNAL", "INVALID_ARGUMENT")
OF_ANYTHING = (
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
    "PERMISSION_DENIED",
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "INVALID_ARGUMENT",
)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@dataclass(frozen=True)
class Chunk:
    """A chunk of the day `ago` days before BEGIN with `size` events, listed from `appears` on.

    `fault` is "empty" (the server lists it and gives no event of it) or a code with which it always ends after `whole`
    events. `breaks` are how many more events the next calls give, and the code with which they end then. `late` is made
    on the next day; `again` has the first event of the first chunk of its day as well.
    """

    ago: int
    size: int
    appears: float
    fault: str
    whole: int
    breaks: list[tuple[int, str]]
    late: bool
    again: bool


CHUNKS = st.builds(
    Chunk,
    ago=st.sampled_from([0, 0, 1, 2, 5]),
    size=st.integers(1, 5),
    appears=st.sampled_from([0.0] * 6 + [3.0, 60.0, 500.0]),
    fault=st.sampled_from([""] * 8 + ["empty", "empty", *OF_CHUNKS]),
    whole=st.integers(0, 3),
    breaks=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(OF_ANYTHING)), max_size=3),
    late=st.booleans(),
    again=st.booleans(),
)


class BulkCluster(Cluster):
    """Has `plan` as chunks, and a search that finds what is in those that can be listed.

    `failures` are the codes with which the next searches fail, "" for those between that do not.
    """

    def __init__(self, loop: PassingLoop, plan: list[Chunk], failures: list[str]) -> None:
        super().__init__(loop)
        self.failures = list(failures)
        self.plan: dict[date, dict[str, Chunk]] = defaultdict(dict)
        self.events: dict[str, list[bytes]] = {}
        self.breaks: dict[str, list[tuple[int, str]]] = {}
        for number, chunk in enumerate(plan):
            begin = (BEGIN // DAY - chunk.ago) * DAY
            first = begin + 3600.0 + 47.0 * number
            name = chunk_name(first + 60.0 + DAY * chunk.late)
            size = 1 if chunk.fault == "empty" else chunk.size
            events = [wire_at(f"{number}-{place}", first + place) for place in range(size)]
            day = self.plan[day_of(begin)]
            if chunk.again and day and chunk.fault != "empty":
                events.append(self.events[next(iter(day))][0])
            day[name] = chunk
            self.events[name] = events
            self.breaks[name] = list(chunk.breaks)

    def there(self, chunk: Chunk) -> bool:
        return chunk.ago > LATE_DAYS or self.loop.time() >= chunk.appears

    async def chunks(self, day: float) -> AsyncIterator[str]:
        await self.listing()
        for name, chunk in reversed(self.plan[day_of(day)].items()):
            if self.there(chunk):
                yield name

    async def export(self, day: float, chunk: str, cursor: str) -> AsyncIterator[tuple[list[bytes], str]]:
        connection = self.connection
        await self.answer(connection)
        plan, begin = self.plan[day_of(day)][chunk], int(cursor.partition(":")[2] or 0)
        events = [] if plan.fault == "empty" else self.events[chunk]
        end, code = len(events), ""
        if self.breaks[chunk]:
            more, code = self.breaks[chunk].pop(0)
            end = min(begin + more, end)
        elif plan.fault in OF_CHUNKS:
            end, code = min(plan.whole, end), plan.fault
        for place in range(begin, end):
            yield [events[place]], f"a1:{place + 1}"
            await self.answer(connection)
        if code:
            raise RpcError("ExportUnstructuredEvents", code, "scripted")

    async def search(
        self,
        since: float,
        until: float,
        *,
        limit: int,
        key: str = "",
        types: tuple[str, ...] = (),
        order: int = OLDEST_FIRST,
    ) -> tuple[list[bytes], str]:
        await self.answer(self.connection)
        if self.failures and (code := self.failures.pop(0)):
            raise RpcError("GetUnstructuredEvents", code, "scripted")
        there = (name for chunks in self.plan.values() for name, chunk in chunks.items() if self.there(chunk))
        events = {event_id(event): event for name in there for event in self.events[name]}
        return page_of(events.values(), since, until, key, order, 3)

    async def is_read(self, store: SqliteStore) -> bool:
        """Every chunk is done, or its day is closed."""
        found, first = await positions(store), await store.note(FIRST_DAY)
        streams = {day: [f"bulk/{day}/{name}" for name in chunks] for day, chunks in self.plan.items()}
        return all(str(day) < first or all(found.get(name) == DONE for name in names) for day, names in streams.items())

    def in_order(self) -> list[str]:
        """Events whose order is certain: those of chunks that are there from the beginning and without a fault, and of
        no other.
        """
        ordered = [(day, name, chunk) for day, chunks in self.plan.items() for name, chunk in chunks.items()]
        certain: dict[str, None] = {}
        other: set[str] = set()
        for _, name, chunk in sorted(ordered, key=lambda one: one[:2]):
            ids = [event_id(event) for event in self.events[name]]
            if chunk.fault or not (chunk.appears == 0.0 or chunk.ago > LATE_DAYS):
                other.update(ids)
            else:
                certain |= dict.fromkeys(ids)
        return [uid for uid in certain if uid not in other]


@settings(max_examples=150)
@given(
    plan=st.lists(CHUNKS, min_size=1, max_size=8),
    failures=st.lists(st.sampled_from(["", *OF_ANYTHING]), max_size=6),
    planned=interruptions(1500.0, 600.0),
    delay=st.sampled_from([0.0, 0.1, 40.0]),
    ordered=st.booleans(),
)
def test_bulk_export_delivers_every_event(
    plan: list[Chunk], failures: list[str], planned: list[Interruption], delay: float, ordered: bool
) -> None:
    async def work(loop: PassingLoop) -> None:
        cluster, sink = BulkCluster(loop, plan, failures), SlowSink(delay, ordered=ordered)

        def make(line: Pipeline, store: SqliteStore) -> BulkSource:
            start = BEGIN - 5 * DAY
            return BulkSource(cluster, line, store, start=start, late_days=LATE_DAYS, poll=10.0, until_caught_up=False)

        with closing(SqliteStore(None)) as store:
            await read(cluster, sink, store, make, planned, lambda: cluster.is_read(store))
            assert await cluster.is_read(store)
            assert set(sink.delivered) == {event_id(event) for events in cluster.events.values() for event in events}
            if not any(one.kill for one in planned):
                assert len(sink.delivered) == len(set(sink.delivered))
            if ordered:
                certain = cluster.in_order()
                assert [uid for uid in dict.fromkeys(sink.delivered) if uid in certain] == certain

    run(work)


@dataclass(frozen=True)
class Written:
    """An event `ago` seconds older than BEGIN (less than 0: after it), which a search finds `late` seconds after
    that.
    """

    ago: float
    late: float


WRITTEN = st.builds(
    Written,
    ago=st.one_of(*[st.integers(-1500, 1500)] * 3, st.integers(0, 300_000), st.sampled_from([0, 5000, 100_000])).map(
        float
    ),
    late=st.sampled_from([0.0, 0.0, 0.0, 2.0, 100.0, 250.0, LOOK_BACK]),
)


@dataclass(frozen=True)
class Habits:
    """How a cluster answers searches: `size` events a page; where `small`, no more than 500 may be asked for.

    `failures` are the codes with which the next searches fail, "" for those between that do not. Of the keys of
    searches that are oldest first the next are, by `keys`, "lost" (an empty page, as on the file back end) or
    "refused". The event of number `hidden` ends every search without a key, as one that is too large does on
    PostgreSQL. With `empty_last` an empty page follows the last.
    """

    size: int
    small: bool
    failures: list[str]
    keys: list[str]
    hidden: int | None
    empty_last: bool


HABITS = st.builds(
    Habits,
    size=st.integers(2, 5),
    small=st.booleans(),
    failures=st.lists(st.sampled_from(["", "", "", *OF_ANYTHING]), max_size=20),
    keys=st.lists(st.sampled_from(["", "lost", "refused"]), max_size=20),
    hidden=st.none() | st.integers(0, 39),
    empty_last=st.booleans(),
)


class SearchedCluster(Cluster):
    """Has `log`, of which a search finds what can be found by now."""

    def __init__(self, loop: PassingLoop, log: list[Written], habits: Habits) -> None:
        super().__init__(loop)
        self.log = [(wire_at(f"{number}", BEGIN - one.ago), one.late - one.ago) for number, one in enumerate(log)]
        self.habits = habits
        self.failures, self.keys = list(habits.failures), list(habits.keys)
        self.hidden = "" if habits.hidden is None else f"{habits.hidden}"

    async def search(
        self,
        since: float,
        until: float,
        *,
        limit: int,
        key: str = "",
        types: tuple[str, ...] = (),
        order: int = OLDEST_FIRST,
    ) -> tuple[list[bytes], str]:
        await self.listing()
        if self.habits.small and limit > 500:
            raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", f"limit {limit} exceeds 500")
        if self.failures and (code := self.failures.pop(0)):
            raise RpcError("GetUnstructuredEvents", code, "scripted")
        if key and order == OLDEST_FIRST and self.keys and (fate := self.keys.pop(0)):
            if fate == "lost":
                return [], ""
            raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: no such key")
        there = [event for event, visible in self.log if visible <= self.loop.time()]
        events, following = page_of(there, since, until, key, order, self.habits.size, self.hidden)
        return events, following or (event_id(events[-1]) if self.habits.empty_last and events else "")


@settings(max_examples=100)
@given(
    log=st.lists(WRITTEN, min_size=5, max_size=40),
    habits=HABITS,
    planned=interruptions(1500.0, 3 * 3600.0),
    delay=st.sampled_from([0.0, 0.1, 40.0]),
    ahead=st.sampled_from([0.0, 0.0, 0.0, -5 * 3600.0, 5 * 3600.0]),
)
def test_search_delivers_every_event(
    log: list[Written], habits: Habits, planned: list[Interruption], delay: float, ahead: float
) -> None:
    async def work(loop: PassingLoop) -> None:
        cluster, sink = SearchedCluster(loop, log, habits), SlowSink(delay)
        wanted = {event_id(event) for event, _ in cluster.log} - {cluster.hidden}

        def make(line: Pipeline, store: SqliteStore) -> SearchSource:
            return SearchSource(
                cluster,
                line,
                store,
                start=BEGIN - 4 * DAY,
                window=3600.0,
                page=0,
                types=(),
                look_back=LOOK_BACK,
                poll=20.0,
                until_caught_up=False,
            )

        with closing(SqliteStore(None)) as store:

            async def complete() -> bool:
                return set(sink.delivered) == wanted

            await read(cluster, sink, store, make, planned, complete)
            assert set(sink.delivered) == wanted
            if not any(one.kill for one in planned):
                assert len(sink.delivered) == len(wanted)

    run(work, ahead)
