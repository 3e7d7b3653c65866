"""A bulk export that lists nothing new although the log goes on is noticed, told and connected to anew.

A quiet one costs little.
"""

from __future__ import annotations

from time import monotonic, time

import pytest

from event_handler.errors import ConnectError
from event_handler.sources import stall_detector
from event_handler.sources.stall_detector import LONGEST_QUIET, MARGIN, QUIET, VISIBLE_AFTER, StallDetector
from tests.support.scripted_cluster import ScriptedClient, wire_at


class Clock:
    """Both clocks of the module, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        begun, began = time(), monotonic()
        monkeypatch.setattr(stall_detector, "time", lambda: begun + self.passed)
        monkeypatch.setattr(stall_detector, "monotonic", lambda: began + self.passed)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_events_that_no_chunk_brings_are_told_with_their_time_and_what_to_do(clock: Clock) -> None:
    client = ScriptedClient()
    watch = StallDetector(client)
    client.log = [wire_at("e1", time() + MARGIN + 1.0, "db.session.start")]
    clock.passed = QUIET + 1.0
    with pytest.raises(ConnectError, match=r"(?s)no new chunk for 15 minutes.*db\.session\.start.*cache"):
        await watch.look()


async def test_a_log_without_newer_events_is_searched_ever_less_often(clock: Clock) -> None:
    client = ScriptedClient()
    watch = StallDetector(client)
    client.log = [wire_at("old", time() - 10.0)]
    for _ in range(6 * 390):  # six and a half hours of polls
        clock.passed += 10.0
        await watch.look()
    assert len(client.searched) == 8  # after 15, 30, 60 and 120 minutes, then every hour
    assert client.searched[-1][1] - client.searched[-2][1] == pytest.approx(LONGEST_QUIET, abs=11.0)


async def test_events_that_may_still_become_a_chunk_are_no_standstill(clock: Clock) -> None:
    client = ScriptedClient()
    watch = StallDetector(client)
    clock.passed = QUIET + 1.0
    client.log = [wire_at("e1", time() + clock.passed - VISIBLE_AFTER + 1.0)]
    await watch.look()
    assert len(client.searched) == 1


async def test_a_new_chunk_puts_the_search_off(clock: Clock) -> None:
    client = ScriptedClient()
    watch = StallDetector(client)
    client.log = [wire_at("e1", time() + MARGIN + 1.0)]
    for _ in range(10):
        clock.passed += QUIET - 1.0
        watch.progress()
        await watch.look()
    assert client.searched == []


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"])
async def test_a_cluster_that_does_not_let_us_search_is_left_alone(clock: Clock, code: str) -> None:
    client = ScriptedClient()
    client.breaks["search"] = [code]
    watch = StallDetector(client)
    clock.passed = QUIET + 1.0
    await watch.look()
    await watch.look()
    assert len(client.searched) == 1
