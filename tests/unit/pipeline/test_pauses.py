"""Pauses grow with each failure up to their limit, and end when the receiver takes something."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from event_handler.pipeline.pauses import RETRY, Pauses, RetryPolicy
from tests.support.passing_time import in_passing_time


@given(st.integers(0, 10_000), st.floats(0.0, 600.0))
def test_a_pause_is_never_longer_than_its_limit(attempt: int, longest: float) -> None:
    assert 0.0 <= RETRY.pause(attempt, longest) <= min(longest, RETRY.first * 2.0 ** min(attempt, 16))


def passed() -> float:
    return asyncio.get_running_loop().time()


@in_passing_time
async def test_a_pause_ends_soon_after_something_was_taken() -> None:
    pauses = Pauses(RetryPolicy(first=0.5))
    waiting = asyncio.create_task(pauses.until_taken(100.0))
    await asyncio.sleep(10.0)
    pauses.taken()
    await waiting
    assert 10.0 <= passed() <= 10.5


@in_passing_time
async def test_a_pause_that_nothing_ends_takes_its_time() -> None:
    await Pauses(RETRY).until_taken(100.0)
    assert passed() == 100.0


@in_passing_time
async def test_of_a_long_pause_that_was_asked_for_only_the_first_part_passes_whatever_is_taken() -> None:
    pauses = Pauses(RetryPolicy(first=0.5, longest=30.0))
    waiting = asyncio.create_task(pauses.for_all_of(300.0))
    await asyncio.sleep(10.0)
    pauses.taken()
    await waiting
    assert passed() == 30.0


@in_passing_time
async def test_the_rest_of_a_long_pause_ends_when_something_is_taken() -> None:
    pauses = Pauses(RetryPolicy(first=0.5, longest=30.0))
    waiting = asyncio.create_task(pauses.for_all_of(300.0))
    await asyncio.sleep(100.0)
    pauses.taken()
    await waiting
    assert 100.0 <= passed() <= 100.5
