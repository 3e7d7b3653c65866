"""The pace of a simulated server."""

from __future__ import annotations

import asyncio
from time import monotonic

from event_handler.simulator.pace import BURST, Pace


async def test_all_who_ask_share_one_pace() -> None:
    pace, begun = Pace(1000.0), monotonic()

    async def stream() -> None:
        for _ in range(10):
            await pace.take(10)

    await asyncio.gather(stream(), stream())
    assert monotonic() - begun >= 0.2 - BURST


async def test_a_rest_does_not_count_as_time_to_catch_up() -> None:
    pace = Pace(1000.0)
    await asyncio.sleep(0.1)
    begun = monotonic()
    await pace.take(100)
    assert monotonic() - begun >= 0.1 - BURST


async def test_without_a_pace_nobody_waits() -> None:
    others = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(others.set_result, None)
    await Pace(0.0).take(1_000_000_000)
    assert not others.done(), "the event loop got a turn"
    await others
