"""Everything fails at once: a small run of `make chaos`, and the book by which it judges."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import monotonic

import pytest
from benchmarks.chaos import Expected, Outcome
from benchmarks.faulty_collector import REMEMBERED_WITHIN, Book, Memory

from event_handler.event import fingerprint

SMALL = ("--events=5000", "--recordings=10", "--kills=3", "--late=2", "--seed=1")


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_in_a_small_chaos_nothing_is_lost_and_every_repeat_has_a_reason(mode: str) -> None:
    command = (sys.executable, "-m", "benchmarks.chaos", f"--mode={mode}", *SMALL)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in output.decode().splitlines()
        if line.startswith("|")
    ]
    table = {row[0]: row[1] for row in rows}
    assert (table["events"], table["kills"], table["**lost**"], table["repeated: unexplained"]) == (
        "5,000",
        "3",
        "0",
        "0",
    )


def events(*uids: str) -> list[dict[str, object]]:
    return [{"uid": uid} for uid in uids]


def test_a_repeat_has_a_reason_only_when_the_killed_handler_could_not_know_the_answer() -> None:
    book, now = Book(), monotonic()
    book.take(events("lost"), "", 1)
    book.take(events("remembered", "not yet"), "", 1).answered = now
    book.take(events("too slow"), "", 1).answered = now - 2 * REMEMBERED_WITHIN
    book.take(events("to nobody"), "", 1).answered = now + 1
    book.killed(1, now + 0.1, Memory(frozenset({fingerprint("remembered")})))
    book.take(events("lost", "not yet", "to nobody"), "", 2)
    assert dict(book.repeats) == {"answer lost": 1, "in flight at a kill": 2}
    book.take(events("remembered", "too slow"), "", 2)
    assert book.repeats["unexplained"] == 2
    assert book.slowest == pytest.approx(2 * REMEMBERED_WITHIN + 0.1)


def test_a_repeat_within_one_run_has_a_reason_only_when_its_answer_was_not_sent() -> None:
    book = Book()
    book.take(events("a"), "", 1)
    book.take(events("a"), "", 1).answered = monotonic()
    assert dict(book.repeats) == {"answer lost": 1}
    book.take(events("a"), "", 1)
    assert book.repeats["unexplained"] == 1


def test_a_request_of_a_killed_handler_that_is_read_late_is_no_repeat_of_the_next_one() -> None:
    book, now = Book(), monotonic()
    book.killed(1, now, Memory())
    book.take(events("a"), "", 2).answered = now + 1
    book.take(events("a"), "", 1)
    assert dict(book.repeats) == {"in flight at a kill": 1}
    assert book.taken["a"].run == 2


def test_an_event_of_a_recording_is_remembered_by_its_index() -> None:
    memory = Memory(indexes={"s": 4})
    assert [memory.has(("s", index)) for index in (0, 4, 5)] == [True, True, False]
    assert not memory.has(("t", 0))


def test_an_event_that_never_came_and_a_hole_in_a_recording_are_losses() -> None:
    book = Book()
    book.take(events("a"), "", 1)
    book.take([{"ei": 0}, {"ei": 0}], "s", 1)
    wanted = Expected(frozenset({"a", "b"}), {"s": 2})
    assert wanted.missing(book) == (1, 1)
    assert Outcome("bulk", 2, 2, lost_events=1, book=book).failed
    assert not Outcome("bulk", 2, 2, book=Book()).failed
