"""The window of delivered ids remembers the newest ones, as many as it promises, in little memory."""

from __future__ import annotations

import tracemalloc
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from event_handler.pipeline.duplicates import DuplicateWindow, fingerprint

GENERATION = 4


@given(st.lists(st.tuples(st.sampled_from(["add", "discard"]), st.integers(0, 15)), max_size=60))
def test_it_knows_the_newest_ids_and_none_that_was_never_added_or_was_forgotten(steps: list[tuple[str, int]]) -> None:
    window = DuplicateWindow(GENERATION)
    newest: deque[int] = deque(maxlen=GENERATION)
    known: set[int] = set()
    for step, number in steps:
        if step == "add":
            window.add(fingerprint(str(number)))
            newest.append(number)
            known.add(number)
        else:
            window.discard(fingerprint(str(number)))
            known.discard(number)
        remembered = {number for number in range(16) if fingerprint(str(number)) in window}
        assert known & set(newest) <= remembered <= known


def test_what_was_remembered_is_loaded_oldest_first() -> None:
    window = DuplicateWindow(GENERATION)
    window.load([b"".join(fingerprint(str(number)) for number in range(6)), fingerprint("6")])
    assert [number for number in range(7) if fingerprint(str(number)) in window] == list(range(7))
    window.load([fingerprint("7")])
    assert [number for number in range(8) if fingerprint(str(number)) in window] == [4, 5, 6, 7]


def test_a_full_window_takes_less_than_twelve_megabytes() -> None:
    tracemalloc.start()
    try:
        window = DuplicateWindow()
        for number in range(250_000 - 1):
            window.add(fingerprint(str(number)))
        assert tracemalloc.get_traced_memory()[0] < 14_000_000
    finally:
        tracemalloc.stop()
    assert fingerprint("0") in window
