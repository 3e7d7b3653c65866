"""Pages of a search: none is missing whatever becomes of the keys, and the time that goes with a page never promises too much."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from event_handler.errors import RpcError
from event_handler.sources.pages import LARGEST_PAGE, Search
from event_handler.teleport.client import Client
from event_handler.teleport.decode import event_id, event_time
from event_handler.teleport.messages import NEWEST_FIRST, OLDEST_FIRST
from tests.unit.sources.scripted import wire_at


class Paged(Client):
    """Gives two of `events` a page, with the id of the last as key. What `loses` holds of the keys of oldest-first pages is unknown.

    An event of `hides` ends an oldest-first search without it and without a key, as one that is too large does on PostgreSQL.
    """

    def __init__(self, *moments: float) -> None:
        self.events = [wire_at(f"e{number}", moment) for number, moment in enumerate(moments)]
        self.loses: set[str] = set()
        self.hides: set[str] = set()
        self.calls: list[tuple[str, int]] = []
        self.limits: list[int] = []

    async def search(
        self, since: float, until: float, *, limit: int, key: str = "", types: tuple[str, ...] = (), order: int = OLDEST_FIRST
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
    assert await read(Search(client).pages(0, 9)) == [("e0 e1", 3), ("e1 e2", 3), ("e6 e5", 3), ("e4 e3", 3), ("e2 e1", 3)]


async def test_what_a_hidden_event_hides_is_read_from_the_end() -> None:
    client = Paged(1, 2, 3, 4, 5, 6)
    client.hides = {"e2"}
    ids = {name for names, _ in await read(Search(client).pages(0, 9)) for name in names.split()}
    assert ids == {"e0", "e1", "e3", "e4", "e5"}


@pytest.mark.parametrize("order", [OLDEST_FIRST, NEWEST_FIRST])
async def test_a_key_that_leads_to_itself_ends_the_search(order: int) -> None:
    class Circular(Paged):
        async def search(self, since: float, until: float, **options: object) -> tuple[list[bytes], str]:
            self.calls.append(("", order))
            return self.events, "again"

    client = Circular(1)
    search = Search(client)
    if order == OLDEST_FIRST:
        assert await read(search.pages(0, 9)) == [("e0", 1)] * 2
    else:
        assert len([page async for page in search.newest_first(0, 9)]) == 2


async def test_a_key_that_is_refused_when_the_newest_come_first_is_an_error() -> None:
    class Refusing(Paged):
        async def search(self, since: float, until: float, **options: object) -> tuple[list[bytes], str]:
            if options["key"]:
                raise RpcError("GetUnstructuredEvents", "INVALID_ARGUMENT", "scripted: no such key")
            return self.events, "key"

    with pytest.raises(RpcError, match="no such key"):
        _ = [page async for page in Search(Refusing(1)).newest_first(0, 9)]


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
