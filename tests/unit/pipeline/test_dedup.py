"""The window of delivered ids remembers the newest ones, as many as it promises, in little memory."""

from __future__ import annotations

import tracemalloc
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.event import fingerprint
from event_handler.pipeline.dedup import BUCKETS, DuplicateWindow
from event_handler.ports import REMEMBERED_IDS

KEPT = 4


@given(
    st.lists(st.tuples(st.sampled_from(["add", "discard"]), st.integers(0, 15)), max_size=60),
    st.sampled_from([1, 2, 16]),
)
def test_it_knows_the_newest_ids_and_none_that_was_never_added_or_was_forgotten(
    steps: list[tuple[str, int]], buckets: int
) -> None:
    window = DuplicateWindow(buckets, KEPT)
    newest: deque[int] = deque(maxlen=KEPT)
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
    window = DuplicateWindow(1, KEPT)
    window.load([b"".join(fingerprint(str(number)) for number in range(4)), fingerprint("4")])
    assert [number for number in range(5) if fingerprint(str(number)) in window] == list(range(5))
    window.load([fingerprint("5")])
    assert [number for number in range(6) if fingerprint(str(number)) in window] == [2, 3, 4, 5]


@pytest.mark.soak
def test_the_newest_two_million_ids_are_known_in_forty_megabytes() -> None:
    """Of an eighth of the window, which fills it as the whole window would be."""
    dedup_keys = [fingerprint(str(number)) for number in range(600_000)]
    tracemalloc.start()
    try:
        window = DuplicateWindow(BUCKETS // 8)
        window.load([b"".join(dedup_keys)])
        assert tracemalloc.get_traced_memory()[0] < 44_000_000 / 8
    finally:
        tracemalloc.stop()
    assert all(dedup_key in window for dedup_key in dedup_keys[-REMEMBERED_IDS // 8 :])
    assert dedup_keys[0] not in window
