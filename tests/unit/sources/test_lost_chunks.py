"""Chunks whose events only a search brings: they are found whatever fails on the way, and stop nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from event_handler.checkpoint import DONE
from event_handler.errors import RpcError
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import positions
from tests.support.events import wire
from tests.support.scripted_cluster import ScriptedClient, wire_at
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until
from tests.unit.sources.test_export import chunk_name, day, noon, reading


async def test_an_empty_chunk_is_not_done_while_what_a_search_that_failed_had_found_for_it_is_in_flight() -> None:
    class FailingLater(ScriptedClient):
        async def search(self, since: float, until: float, *, key: str = "", **options: Any) -> tuple[list[bytes], str]:
            if key:
                raise RpcError("GetUnstructuredEvents", "UNAVAILABLE", "scripted")
            events, _ = await super().search(since, until, **options)
            return events, "" if len(self.searched) > 1 else "key"

    client, sink, store = FailingLater(), ScriptedSink(), SqliteStore(None)
    name = chunk_name(noon(2))
    client.days[day(2)] = [name]
    client.exports[name] = []
    client.log = [wire_at("e1", noon(2) - 30)]
    sink.hold = asyncio.Event()
    async with reading(client, sink, store, days=2):
        await until(lambda: sink.calls == 1)
        await asyncio.sleep(0.2)
        assert await positions(store, "bulk/") == {}
        sink.hold.set()
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert sink.delivered == ["e1"]


async def test_where_order_is_kept_a_chunk_that_can_neither_be_read_nor_searched_for_stops_no_other_for_ever() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(requests=1), SqliteStore(None)
    sink.limits = replace(sink.limits, ordered=True)
    client.days = {day(1): ["missing"], day(0): ["whole"]}
    client.exports["whole"] = [wire("e1")]
    client.breaks["search"] = ["PERMISSION_DENIED"] * 10_000
    async with reading(client, sink, store, days=1):
        await until(lambda: sink.delivered == ["e1"])
        assert await positions(store, "bulk/") in ({}, {f"bulk/{day(0)}/whole": DONE})


async def test_a_chunk_that_always_ends_with_a_refusal_is_searched_for_though_its_beginning_can_be_read() -> None:
    client, sink, store = ScriptedClient(), ScriptedSink(), SqliteStore(None)
    client.days[day(0)] = ["chunk"]
    client.exports["chunk"] = [wire("a")]
    client.breaks["chunk"] = ["INVALID_ARGUMENT"] * 1000
    client.log = [wire_at("a", noon(0)), wire_at("b", noon(0))]
    async with reading(client, sink, store):
        await until(lambda: positions(store, "bulk/"), lambda found: list(found.values()) == [DONE])
    assert sink.delivered == ["a", "b"]
