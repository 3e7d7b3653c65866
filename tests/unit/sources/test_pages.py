"""Pages of a search: none is missing whatever becomes of the keys, and the time that goes with a page never promises
too much.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from structlog.testing import capture_logs

from event_handler.errors import RpcError
from event_handler.sources import pages as pages_module
from event_handler.sources.pages import EMPTY_PAGES, LARGEST_PAGE, Search
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import event_id, event_time
from event_handler.teleport.wire.messages import NEWEST_FIRST, OLDEST_FIRST
from tests.support.scripted_cluster import wire_at


class Paged(Client):
    """Gives two of `events` a page, with the id of the last as key. What `loses` holds of the keys of oldest-first
    pages is unknown.

    An event of `hides` ends an oldest-first search without it and without a key, as one that is too large does on
    PostgreSQL.
    """

    def __init__(self, *moments: float) -> None:
        self.events = [wire_at(f"e{number}", moment) for number, moment in enumerate(moments)]
        self.loses: set[str] = set()
        self.hides: set[str] = set()
        self.calls: list[tuple[str, int]] = []
        self.limits: list[int] = []

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
        self.calls.append((key, order))
        self.limits.append(limit)
        found = [event for event in self.events if since <= event_time(event) <= until]
        if order == NEWEST_FIRST:
            found.reverse()
        ids = [event_id(event) for event in found]
        if key in self.loses and order == OLDEST_FIRST:
            return [], ""
        begin = ids.index(key) + 1 if key else 0
        page = found[begin : begin + 2]
        for place, name in enumerate(ids[begin : begin + 2]):
            if name in self.hides:
                return page[:place], ids[begin + place - 1] if place else ""
        return page, ids[begin + 1] if len(found) > begin + 2 else ""


async def read(pages: AsyncGenerator[tuple[list[bytes], float]]) -> list[tuple[str, float]]:
    return [(" ".join(map(event_id, events)), reached) async for events, reached in pages]


async def test_a_page_comes_with_the_time_of_its_last_event() -> None:
    client = Paged(1, 2, 3, 4, 5)
    assert await read(Search(client).pages(0, 9)) == [("e0 e1", 2), ("e2 e3", 4), ("e4", 5)]
    assert client.limits == [LARGEST_PAGE] * 3


async def test_more_events_than_a_server_gives_at_a_time_are_not_asked_for() -> None:
    client = Paged(1)
    await read(Search(client, page=50_000).pages(0, 9))
    assert client.limits == [LARGEST_PAGE]


async def test_a_span_without_events_costs_one_call() -> None:
    client = Paged()
    assert await read(Search(client).pages(0, 9)) == []
    assert len(client.calls) == 1


async def test_behind_a_lost_key_it_goes_on_from_the_last_event() -> None:
    client = Paged(1, 2, 3, 4, 5)
    client.loses = {"e1"}
    assert await read(Search(client).pages(0, 9)) == [("e0 e1", 2), ("e1 e2", 3), ("e3 e4", 5)]


async def test_where_a_lost_key_leaves_no_other_way_the_rest_is_read_from_its_end_and_promises_nothing() -> None:
    client = Paged(1, 3, 3, 3, 3, 3, 7)
    client.loses = {"e2", "e1"}
    assert await read(Search(client).pages(0, 9)) == [
        ("e0 e1", 3),
        ("e1 e2", 3),
        ("e6 e5", 3),
        ("e4 e3", 3),
        ("e2 e1", 3),
    ]


async def test_what_a_hidden_event_hides_is_read_from_the_end() -> None:
    client = Paged(1, 2, 3, 4, 5, 6)
    client.hides = {"e2"}
    ids = {name for names, _ in await read(Search(client).pages(0, 9)) for name in names.split()}
    assert ids == {"e0", "e1", "e3", "e4", "e5"}


class Rings(Paged):
    """Two events a page, and of the keys that follow, by order, a cycle of `ring` pages: the key behind its last is
    that of its first.

    With `new_keys` no key is ever given twice.
    """

    def __init__(self, ring: int, order: int, *moments: float, new_keys: bool = False) -> None:
        super().__init__(*moments)
        self._ring, self._order, self._new_keys = ring, order, new_keys

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
        self.calls.append((key, order))
        assert len(self.calls) < 200, "a search without end"
        found = [event for event in self.events if since <= event_time(event) <= until]
        if order == NEWEST_FIRST:
            found.reverse()
        number = int(key.partition(" ")[0] or 0)
        page, following = found[2 * number : 2 * number + 2], number + 1
        if order == self._order and following == self._ring:
            following = 0
        more = 2 * following < len(found)
        return page, f"{following} {len(self.calls) if self._new_keys else ''}" if more else ""


@pytest.mark.parametrize("new_keys", [False, True])
@pytest.mark.parametrize("order", [OLDEST_FIRST, NEWEST_FIRST])
@pytest.mark.parametrize("ring", [1, 2, 3, 4])
async def test_keys_that_form_a_ring_end_and_hide_nothing(ring: int, order: int, new_keys: bool) -> None:
    client = Rings(ring, order, *range(1, 18), new_keys=new_keys)
    with capture_logs() as lines:
        pages = await read(Search(client).pages(0, 20))
    assert {name for names, _ in pages for name in names.split()} == {f"e{number}" for number in range(17)}
    told = [line for line in lines if "leads no further" in line["event"]]
    assert len(told) == (order == OLDEST_FIRST)  # the other order is not needed then, and one line a minute is enough
    client.calls.clear()
    names = [event_id(event) async for page in Search(client).newest_first(0, 20) for event in page]
    assert set(names) == {f"e{number}" for number in range(17)}


class Dynamo(Client):
    """DynamoDB before gravitational/teleport pull request 44246: at most `size` events a page; one that ends with the
    last event of a day (the first, newest first) is followed by the key of that day's beginning. Both ends of a search
    count in whole seconds.
    """

    def __init__(self, size: int, *moments: float) -> None:
        self.events = [wire_at(f"e{number}", moment) for number, moment in enumerate(moments)]
        self.size = size
        self.calls = 0

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
        self.calls += 1
        assert self.calls < 500, "a search without end"
        found = [event for event in self.events if int(since) <= event_time(event) < int(until) + 1]
        if order == NEWEST_FIRST:
            found.reverse()
        first, _, uid = key.partition(" ")
        if first:
            found = [e for e in found if (_day(e) <= int(first) if order == NEWEST_FIRST else _day(e) >= int(first))]
        if uid:
            found = found[[event_id(event) for event in found].index(uid) :]
        page, rest = found[: self.size], found[self.size :]
        if not rest:
            return page, ""
        return page, f"{_day(rest[0])} {event_id(rest[0])}" if _day(rest[0]) == _day(page[-1]) else f"{_day(page[-1])}"


def _day(event: bytes) -> int:
    return int(event_time(event) // 86_400.0)


@pytest.mark.parametrize("begin", [0.0, 3 * 3600.0])
@pytest.mark.parametrize("size", [1, 2, 5, 20])
async def test_a_page_that_is_followed_by_the_key_of_its_days_beginning_ends_no_search(size: int, begin: float) -> None:
    client = Dynamo(size, *(day * 86_400.0 + hour * 3600.0 for day in range(4) for hour in range(20)))
    pages = await read(Search(client).pages(begin, 9 * 86_400.0))
    wanted = {event_id(event) for event in client.events if event_time(event) >= begin}
    assert {name for names, _ in pages for name in names.split()} == wanted
    assert all(reached <= event_time(client.events[-1]) for _, reached in pages)
    client.calls = 0
    found = {event_id(event) async for page in Search(client).newest_first(begin, 9 * 86_400.0) for event in page}
    assert found == wanted or size == 1  # a page of one event begins again with itself


async def test_events_of_one_second_that_end_a_day_with_a_full_page_hide_none_of_the_next_day() -> None:
    day = 86_400.0
    client = Dynamo(5, *(day - 1 + number / 10 for number in range(5)), *(day + 60.0 * number for number in range(12)))
    pages = await read(Search(client).pages(0, 9 * day))
    assert {name for names, _ in pages for name in names.split()} == {f"e{number}" for number in range(17)}


class Barren(Paged):
    """Answers every key, and each search that does not begin with its first event, with an empty page and a key
    never seen before.
    """

    async def search(self, since: float, until: float, **options: object) -> tuple[list[bytes], str]:
        self.calls.append((str(options["key"]), 0))
        assert len(self.calls) < 1000, "a search without end"
        first = not options["key"] and since == 0 and options["order"] == OLDEST_FIRST
        return (self.events if first else []), f"key {len(self.calls)}"


@pytest.mark.parametrize("moments", [(), (1.0, 2.0)])
async def test_empty_pages_without_end_are_asked_for_ever_more_slowly_then_given_up_and_told(
    monkeypatch: pytest.MonkeyPatch, moments: tuple[float, ...]
) -> None:
    monkeypatch.setattr(pages_module, "FRUITLESS_PAUSE", 0.0)
    client = Barren(*moments)
    search = Search(client)
    with capture_logs() as lines:
        pages = await read(search.pages(0, 9))
    assert [names for names, _ in pages] == (["e0 e1"] if moments else [])
    assert len(client.calls) <= 4 * EMPTY_PAGES
    assert search.fruitless == 1
    assert [line["log_level"] for line in lines if "do not reach every event" in line["event"]] == ["warning"]


async def test_what_lies_between_two_hidden_events_is_found_and_not_looked_for_at_every_poll() -> None:
    client = Paged(*(100.0 * number for number in range(1, 40)))
    client.hides = {"e9", "e29"}
    search = Search(client)
    ids = {name for names, _ in await read(search.pages(0, 9000)) for name in names.split()}
    assert ids == {f"e{number}" for number in range(39)} - client.hides
    calls = len(client.calls)
    await read(search.pages(0, 9000))
    assert len(client.calls) < 2 * calls


async def test_keys_that_are_lost_in_both_orders_hide_nothing() -> None:
    class Forgetful(Paged):
        async def search(self, since: float, until: float, *, key: str = "", **options: Any) -> tuple[list[bytes], str]:
            if key:
                raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: no such key")
            return await super().search(since, until, **options)

    client = Forgetful(1, 3, 3, 9, 9, 12)
    ids = {name for names, _ in await read(Search(client).pages(0, 20)) for name in names.split()}
    assert ids == {f"e{number}" for number in range(6)}


async def test_a_first_page_that_is_refused_is_an_error() -> None:
    class Refusing(Paged):
        async def search(self, since: float, until: float, **options: object) -> tuple[list[bytes], str]:
            raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: from after to")

    with pytest.raises(RpcError, match="from after to"):
        await read(Search(Refusing()).pages(9, 0))


async def test_a_server_that_refuses_even_small_pages_is_not_asked_for_ever() -> None:
    class Refusing(Paged):
        async def search(self, since: float, until: float, *, limit: int, **options: object) -> tuple[list[bytes], str]:
            self.limits.append(limit)
            raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: limit")

    client = Refusing()
    with pytest.raises(RpcError, match="scripted: limit"):
        await read(Search(client).pages(0, 9))
    assert client.limits == [LARGEST_PAGE, 500]


@pytest.mark.parametrize("failing", [False, True])
async def test_a_page_requested_ahead_ends_with_its_reader_and_its_failure_is_nobodys(failing: bool) -> None:
    class Slow(Paged):
        async def search(self, since: float, until: float, *, key: str = "", **options: Any) -> tuple[list[bytes], str]:
            if key:
                requested.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(key)
                    if failing:
                        raise RpcError("GetUnstructuredEvents", "UNAVAILABLE", "scripted: cut")
            return await super().search(since, until, **options)

    requested, unseen = asyncio.Event(), []
    ended: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["message"]))
    async with aclosing(Search(Slow(1, 2, 3)).pages(0, 9)) as pages:
        await anext(pages)
        await requested.wait()
    assert ended == ["e1"]
    gc.collect()
    assert unseen == []
