"""The tracker moves over the contiguous finished prefix only, whatever the order of acknowledgements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from event_handler.checkpoint import Checkpoint, SearchCheckpoint
from event_handler.pipeline.tracker import CheckpointTracker, Span


def at(number: int) -> Checkpoint:
    return SearchCheckpoint(float(number))


def place(checkpoint: Checkpoint) -> int:
    assert isinstance(checkpoint, SearchCheckpoint)
    return int(checkpoint.time)


@given(st.permutations(list(range(8))))
def test_the_position_never_passes_an_unfinished_span(order: list[int]) -> None:
    tracker = CheckpointTracker()
    spans = [Span(tracker, at(number), pending=1) for number in range(8)]
    for span in spans:
        tracker.add(span)
    reached = -1
    done: set[int] = set()
    for number in order:
        spans[number].pending -= 1
        done.add(number)
        checkpoint, finished = tracker.finished()
        tracker.advance(finished)
        if checkpoint is not None:
            reached = place(checkpoint)
        assert reached == max((n for n in range(8) if set(range(n + 1)) <= done), default=-1)
    assert tracker.drained


def test_a_span_without_a_checkpoint_keeps_the_older_one() -> None:
    tracker = CheckpointTracker()
    tracker.add(Span(tracker, at(1)))
    tracker.add(Span(tracker, None))
    checkpoint, finished = tracker.finished()
    assert checkpoint == at(1)
    tracker.advance(finished)
    assert tracker.drained
    assert tracker.finished() == (None, [])


def test_what_is_being_remembered_changes_no_more() -> None:
    tracker = CheckpointTracker()
    tracker.add(Span(tracker, at(1)))
    tracker.add(Span(tracker, at(2)))  # brings nothing else, so it is part of the one before
    checkpoint, finished = tracker.finished()
    tracker.add(Span(tracker, at(3)))  # while the state writes
    assert (checkpoint, len(finished)) == (at(2), 1)
    tracker.advance(finished)
    assert tracker.finished()[0] == at(3)


@given(st.data())
def test_parts_that_are_read_side_by_side_are_passed_in_their_order_only(data: st.DataObject) -> None:
    """Whatever is split, added, closed and acknowledged when, the checkpoint is that of the prefix in which all is
    delivered.
    """
    first = CheckpointTracker()
    parts, spans, closed = [first], {first: list[Span]()}, set[CheckpointTracker]()
    reached = -1
    for number in range(data.draw(st.integers(1, 40))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        step = data.draw(st.sampled_from(["split", "add", "add", "close", "deliver", "deliver", "deliver"]))
        waiting = [one for some in spans.values() for one in some if one.pending]
        if step == "split" and part not in closed:
            parts.insert(parts.index(part) + 1, part.split())
            spans[parts[parts.index(part) + 1]] = []
        elif step == "add":
            span = Span(part, at(number), pending=1)
            part.add(span)
            spans[parts[-1] if part in closed else part].append(span)
        elif step == "close" and part is not parts[-1]:
            part.close()
            closed.add(part)
        elif step == "deliver" and waiting:
            data.draw(st.sampled_from(waiting)).pending = 0
        checkpoint, finished = parts[data.draw(st.integers(0, len(parts) - 1))].finished()
        first.advance(finished)
        reached = reached if checkpoint is None else place(checkpoint)
        assert reached == prefix([(spans[part], part in closed) for part in parts])
    if first.drained:
        assert not any(one.pending for some in spans.values() for one in some)


def prefix(parts: list[tuple[list[Span], bool]]) -> int:
    """The position of the last span before the first that is not delivered, or that may still get others before
    it.
    """
    reached = -1
    for spans, closed in parts:
        for span in spans:
            if span.pending:
                return reached
            reached = reached if span.checkpoint is None else place(span.checkpoint)
        if not closed:
            break
    return reached


def test_what_belongs_into_a_part_that_is_closed_comes_behind_all_parts() -> None:
    first = CheckpointTracker()
    last = first.split()
    first.close()
    last.add(Span(last, at(1), pending=1))
    first.add(Span(first, at(2)))
    assert first.finished() == (None, [])
    assert not first.drained
