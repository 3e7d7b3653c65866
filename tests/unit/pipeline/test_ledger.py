"""The ledger moves over the contiguous finished prefix only, whatever the order of acknowledgements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from event_handler.pipeline.ledger import Ledger, Segment


@given(st.permutations(list(range(8))))
def test_the_position_never_passes_an_unfinished_segment(order: list[int]) -> None:
    ledger = Ledger("chunk")
    segments = [Segment(ledger, str(number), pending=1) for number in range(8)]
    for segment in segments:
        ledger.add(segment)
    reached = -1
    done: set[int] = set()
    for number in order:
        segments[number].pending -= 1
        done.add(number)
        position, _ = ledger.peek()
        ledger.advance()
        if position is not None:
            reached = int(position)
        assert reached == max((n for n in range(8) if set(range(n + 1)) <= done), default=-1)
    assert ledger.drained


def test_a_segment_without_a_position_keeps_the_older_one() -> None:
    ledger = Ledger("search")
    ledger.add(Segment(ledger, "a"))
    ledger.add(Segment(ledger, None))
    assert ledger.peek()[0] == "a"
    ledger.advance()
    assert ledger.drained
    assert ledger.peek() == (None, [])
