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


@given(st.data())
def test_parts_that_are_read_side_by_side_are_passed_in_their_order_only(data: st.DataObject) -> None:
    """Whatever is split, added, closed and acknowledged when: the position is that of the prefix in which all is delivered."""
    first = Ledger("search")
    parts, segments, closed = [first], {first: list[Segment]()}, set[Ledger]()
    reached = ""
    for number in range(data.draw(st.integers(1, 40))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        step = data.draw(st.sampled_from(["split", "add", "add", "close", "deliver", "deliver", "deliver"]))
        waiting = [one for some in segments.values() for one in some if one.pending]
        if step == "split" and part not in closed:
            parts.insert(parts.index(part) + 1, part.split())
            segments[parts[parts.index(part) + 1]] = []
        elif step == "add":
            segment = Segment(part, str(number), pending=1)
            part.add(segment)
            segments[parts[-1] if part in closed else part].append(segment)
        elif step == "close" and part is not parts[-1]:
            part.close()
            closed.add(part)
        elif step == "deliver" and waiting:
            data.draw(st.sampled_from(waiting)).pending = 0
        position = parts[data.draw(st.integers(0, len(parts) - 1))].peek()[0]
        first.advance()
        reached = reached if position is None else position
        assert reached == prefix([(segments[part], part in closed) for part in parts])
    if first.drained:
        assert not any(one.pending for some in segments.values() for one in some)


def prefix(parts: list[tuple[list[Segment], bool]]) -> str:
    """The position of the last segment before the first that is not delivered, or that may still get others before it."""
    reached = ""
    for segments, closed in parts:
        for segment in segments:
            if segment.pending:
                return reached
            reached = segment.position or reached
        if not closed:
            break
    return reached


def test_what_belongs_into_a_part_that_is_closed_comes_behind_all_parts() -> None:
    first = Ledger("search")
    last = first.split()
    first.close()
    last.add(Segment(last, "1", pending=1))
    first.add(Segment(first, "2"))
    assert first.peek() == (None, [])
    assert not first.drained
