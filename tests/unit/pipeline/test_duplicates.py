"""The window of ids knows the newest ones, and forgets one that was not delivered wherever it stands."""

from __future__ import annotations

from event_handler.pipeline.duplicates import DuplicateWindow, fingerprint

MARKS = [fingerprint(str(number)) for number in range(10)]


def test_it_holds_between_one_and_two_generations_of_the_newest() -> None:
    window = DuplicateWindow(generation=4)
    for mark in MARKS:
        window.add(mark)
    assert [mark in window for mark in MARKS] == [False] * 4 + [True] * 6


def test_an_id_that_was_not_delivered_is_forgotten_also_in_the_older_generation() -> None:
    window = DuplicateWindow(generation=4)
    for mark in MARKS[:6]:
        window.add(mark)
    window.discard(MARKS[0])
    window.discard(MARKS[5])
    assert [mark in window for mark in MARKS[:6]] == [False, True, True, True, True, False]


def test_it_is_filled_from_packed_groups() -> None:
    window = DuplicateWindow()
    window.load([b"".join(MARKS[:3]), MARKS[3]])
    assert [mark in window for mark in MARKS[:5]] == [True] * 4 + [False]
