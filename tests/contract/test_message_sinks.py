"""Every sink that does not speak HTTP delivers whole events in order, and loses none while its receiver is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from event_handler.ports import Delivered, Partial, Retry
from tests.contract.deliveries import events, verdict
from tests.contract.message_adapter import MessageAdapter, Receiving
from tests.contract.message_adapters import ADAPTERS
from tests.support.required_metrics import assert_told, delivering


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.name)
async def receiving(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[MessageAdapter, Receiving]]:
    adapter: MessageAdapter = request.param
    if reason := adapter.skip():
        pytest.skip(reason)
    async with adapter.receiving(tmp_path) as started:
        yield adapter, started


async def ids(receiver: Receiving, count: int) -> list[str]:
    """The ids of what the receiver has, as soon as it has so many events."""
    async with asyncio.timeout(20):
        while len(found := [str(body["uid"]) for body in await receiver.taken()]) < count:
            await asyncio.sleep(0.02)
    return found


async def test_events_arrive_whole_and_in_order(receiving: tuple[MessageAdapter, Receiving]) -> None:
    adapter, receiver = receiving
    sink = receiver.sink()
    batch = events(min(300, sink.limits.events), size=500)
    assert await verdict(sink, batch) == Delivered()
    found, expected = await ids(receiver, len(batch)), [event.id for event in batch]
    assert found == expected if adapter.in_order else sorted(found) == sorted(expected)
    assert {len(str(body["pad"])) for body in await receiver.taken()} == {500}
    await sink.close()


async def test_a_recorded_event_names_its_session(receiving: tuple[MessageAdapter, Receiving]) -> None:
    _, receiver = receiving
    sink = receiver.sink()
    assert await verdict(sink, events(1, session_id="5f0c-1")) == Delivered()
    await ids(receiver, 1)
    assert (await receiver.taken())[0]["teleport_session_id"] == "5f0c-1"
    await sink.close()


async def test_batches_at_once_arrive_all(receiving: tuple[MessageAdapter, Receiving]) -> None:
    _, receiver = receiving
    sink = receiver.sink()
    said = await asyncio.gather(*(verdict(sink, events(5, first=5 * number)) for number in range(8)))
    assert said == [Delivered()] * 8
    assert sorted(await ids(receiver, 40)) == sorted(f"e{number}" for number in range(40))
    await sink.close()


async def test_a_cancelled_delivery_spoils_nothing(receiving: tuple[MessageAdapter, Receiving]) -> None:
    _, receiver = receiving
    sink = receiver.sink()
    sending = asyncio.create_task(sink.deliver(events(20, size=2000)))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert await verdict(sink, events(1, first=900)) == Delivered()
    async with asyncio.timeout(20):
        while "e900" not in await ids(receiver, 1):
            await asyncio.sleep(0.02)
    await sink.close()


async def test_a_receiver_that_is_away_is_an_outage_with_the_option_to_check_and_then_goes_on(
    receiving: tuple[MessageAdapter, Receiving],
) -> None:
    adapter, receiver = receiving
    if not adapter.restarts:
        pytest.skip("its receiver cannot be stopped and started")
    await receiver.stop()
    sink = receiver.sink()
    said = await verdict(sink, events(2))
    assert isinstance(said, Retry)
    assert not said.misconfigured
    assert receiver.option in said.reason
    await receiver.start()
    async with asyncio.timeout(30):
        while not isinstance(said := await verdict(sink, events(2)), Delivered):
            assert isinstance(said, Retry | Partial)
            await asyncio.sleep(0.05)
    assert set(await ids(receiver, 2)) == {"e0", "e1"}
    await sink.close()


async def test_it_can_be_closed_without_having_delivered_and_twice(
    receiving: tuple[MessageAdapter, Receiving],
) -> None:
    _, receiver = receiving
    sink = receiver.sink()
    await sink.reopen()
    await sink.close()
    await sink.close()


async def test_what_it_did_is_in_the_metrics(receiving: tuple[MessageAdapter, Receiving]) -> None:
    _, receiver = receiving
    sink = receiver.sink()
    assert_told(await delivering(sink))
    await sink.close()
