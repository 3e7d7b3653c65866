"""The ledger moves over the contiguous finished prefix only, whatever the order of acknowledgements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from event_handler.pipeline.tracker import CheckpointTracker, Span


@given(st.permutations(list(range(8))))
def test_the_position_never_passes_an_unfinished_segment(order: list[int]) -> None:
    tracker = CheckpointTracker("chunk")
    spans = [Span(tracker, str(number), pending=1) for number in range(8)]
    for span in spans:
        tracker.add(span)
    reached = -1
    done: set[int] = set()
    for number in order:
        spans[number].pending -= 1
        done.add(number)
        position, _ = tracker.peek()
        tracker.advance()
        if position is not None:
            reached = int(position)
        assert reached == max((n for n in range(8) if set(range(n + 1)) <= done), default=-1)
    assert tracker.drained


def test_a_segment_without_a_position_keeps_the_older_one() -> None:
    tracker = CheckpointTracker("search")
    tracker.add(Span(tracker, "a"))
    tracker.add(Span(tracker, None))
    assert tracker.peek()[0] == "a"
    tracker.advance()
    assert tracker.drained
    assert tracker.peek() == (None, [])


@given(st.data())
def test_parts_that_are_read_side_by_side_are_passed_in_their_order_only(data: st.DataObject) -> None:
    """Whatever is split, added, closed and acknowledged when.

    the position is that of the prefix in which all is delivered.
    """
    first = CheckpointTracker("search")
    parts, spans, closed = [first], {first: list[Span]()}, set[CheckpointTracker]()
    reached = ""
    for number in range(data.draw(st.integers(1, 40))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        step = data.draw(st.sampled_from(["split", "add", "add", "close", "deliver", "deliver", "deliver"]))
        waiting = [one for some in spans.values() for one in some if one.pending]
        if step == "split" and part not in closed:
            parts.insert(parts.index(part) + 1, part.split())
            spans[parts[parts.index(part) + 1]] = []
        elif step == "add":
            span = Span(part, str(number), pending=1)
            part.add(span)
            spans[parts[-1] if part in closed else part].append(span)
        elif step == "close" and part is not parts[-1]:
            part.close()
            closed.add(part)
        elif step == "deliver" and waiting:
            data.draw(st.sampled_from(waiting)).pending = 0
        position = parts[data.draw(st.integers(0, len(parts) - 1))].peek()[0]
        first.advance()
        reached = reached if position is None else position
        assert reached == prefix([(spans[part], part in closed) for part in parts])
    if first.drained:
        assert not any(one.pending for some in spans.values() for one in some)


def prefix(parts: list[tuple[list[Span], bool]]) -> str:
    """The position of the last segment before the first that is not delivered, or that may still get others before
    it.
    """
    reached = ""
    for spans, closed in parts:
        for span in spans:
            if span.pending:
                return reached
            reached = span.position or reached
        if not closed:
            break
    return reached


def test_what_belongs_into_a_part_that_is_closed_comes_behind_all_parts() -> None:
    first = CheckpointTracker("search")
    last = first.split()
    first.close()
    last.add(Span(last, "1", pending=1))
    first.add(Span(first, "2"))
    assert first.peek() == (None, [])
    assert not first.drained
