"""An event that is larger than its receiver takes is cut, split, or refused, and holds up no other."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.event import Event
from event_handler.pipeline.oversize import FittingSink, OverLimit, split, truncated
from event_handler.ports import Delivered, Denied, Limits, Partial, Reject, Retry, Split, Verdict

LARGEST = 2000


class Taking:
    """Keeps what it takes, and answers what it is told for batches with a word in them."""

    name = "taking"
    limits = Limits(10, 5000, 1, 0.0, event_bytes=LARGEST)

    def __init__(self, **answers: Verdict) -> None:
        self.answers = answers
        self.taken: list[Event] = []
        self.batches: list[int] = []

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        self.batches.append(sum(len(event.body) for event in events))
        for word, verdict in self.answers.items():
            if any(word.encode() in event.body for event in events):
                return verdict
        self.taken += events
        return Delivered()

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


def event(number: int, **fields: object) -> Event:
    return Event("exec", f"e{number}", 0.0, number, orjson.dumps({"uid": f"e{number}", **fields}))


LARGE = event(1, command="c" * 9000, path="/bin/sh")


def fitting(policy: OverLimit, sink: Taking) -> FittingSink:
    return FittingSink(sink, LARGEST, policy)


async def test_by_default_it_is_refused_and_the_others_are_delivered() -> None:
    sink = Taking()
    said = await fitting("dead-letter", sink).deliver([event(0), LARGE, event(2)])
    assert isinstance(said, Partial)
    assert not said.retry
    assert list(said.rejected) == [1]
    assert "more than the 2,000" in said.rejected[1]
    assert [one.id for one in sink.taken] == ["e0", "e2"]


async def test_alone_it_is_refused_and_nothing_is_sent() -> None:
    sink = Taking()
    said = await fitting("dead-letter", sink).deliver([LARGE])
    assert isinstance(said, Partial)
    assert list(said.rejected) == [0]
    assert not sink.batches


async def test_what_fits_goes_through_untouched() -> None:
    sink = Taking()
    small = [event(0), event(1)]
    assert await fitting("truncate", sink).deliver(small) == Delivered()
    assert sink.taken == small


async def test_truncate_cuts_the_longest_string_and_says_so() -> None:
    sink = Taking()
    assert await fitting("truncate", sink).deliver([event(0), LARGE]) == Delivered()
    body = orjson.loads(sink.taken[1].body)
    assert sink.taken[1].id == "e1"
    assert body["teleport_truncated"] is True
    assert body["path"] == "/bin/sh"
    assert body["command"].startswith("ccc")
    assert body["command"].endswith("characters cut]")
    assert LARGEST - 50 < len(sink.taken[1].body) <= LARGEST


async def test_split_sends_the_pieces_in_order_within_the_limits() -> None:
    sink = Taking()
    assert await fitting("split", sink).deliver([event(0), LARGE]) == Delivered()
    parts = [one for one in sink.taken if one.id != "e0"]
    bodies = [orjson.loads(one.body) for one in parts]
    assert "".join(body["command"] for body in bodies) == "c" * 9000
    assert [body["teleport_part"] for body in bodies] == list(range(1, len(parts) + 1))
    assert {body["teleport_parts"] for body in bodies} == {len(parts)}
    assert [one.id for one in parts] == [f"e1#{number}" for number in range(1, len(parts) + 1)]
    assert all(len(one.body) <= LARGEST for one in parts)
    assert max(sink.batches) <= Taking.limits.bytes


@pytest.mark.parametrize("policy", ["truncate", "split"])
async def test_what_cannot_be_made_smaller_is_refused(policy: OverLimit) -> None:
    numbers = event(1, numbers=list(range(2000)))
    said = await fitting(policy, Taking()).deliver([numbers])
    assert isinstance(said, Partial)
    assert f"over-limit={policy}" in said.rejected[0]


async def test_what_the_receiver_says_of_the_others_is_handed_on() -> None:
    sink = Taking(later=Denied("no access", after=7.0))
    said = await fitting("dead-letter", sink).deliver([event(0, why="later"), LARGE])
    assert said == Partial(
        frozenset({0}), {1: said.rejected[1]} if isinstance(said, Partial) else {}, "no access", 7.0, True
    )


async def test_a_refusal_of_the_others_is_for_the_whole_batch_so_that_it_is_halved() -> None:
    for verdict in (Reject("bad"), Split("large")):
        assert await fitting("dead-letter", Taking(bad=verdict)).deliver([event(0, why="bad"), LARGE]) == verdict


async def test_a_cut_event_that_is_refused_alone_is_named() -> None:
    said = await fitting("truncate", Taking(ccc=Reject("bad"))).deliver([LARGE])
    assert said == Partial(frozenset(), {0: "bad"})


async def test_places_of_a_partial_answer_are_those_of_the_whole_batch() -> None:
    sink = Taking(odd=Partial(frozenset({0}), {1: "bad"}, "busy", 3.0))
    said = await fitting("dead-letter", sink).deliver([LARGE, event(2, why="odd"), event(3)])
    assert isinstance(said, Partial)
    assert said.retry == {1}
    assert said.rejected[2] == "bad"
    assert said.after == 3.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Retry("down", 2.0), Retry("down", 2.0)),
        (Reject("bad"), Partial(frozenset(), {0: "bad"})),
        (Partial(frozenset(), {0: "bad"}), Partial(frozenset(), {0: "bad"})),
        (Partial(frozenset({0}), {}, "busy", 1.0), Retry("busy", 1.0)),
    ],
)
async def test_an_event_of_which_a_part_is_not_taken_is_not_delivered(answer: Verdict, expected: Verdict) -> None:
    assert await fitting("split", Taking(teleport_part=answer)).deliver([LARGE]) == expected


TEXTS = st.text(max_size=3000)
CONTENTS = st.dictionaries(
    st.text(min_size=1, max_size=10), st.one_of(TEXTS, st.integers(0, 2**53), st.lists(TEXTS, max_size=3)), min_size=1
)


@given(CONTENTS)
def test_whatever_is_cut_or_split_fits_and_pieces_make_the_whole(content: dict[str, object]) -> None:
    large = Event("exec", "e1", 0.0, 0, orjson.dumps(content))
    assert all(len(one.body) <= LARGEST for one in truncated(large, LARGEST))
    parts = split(large, LARGEST)
    assert all(len(one.body) <= LARGEST for one in parts)
    if parts:
        total = sum(len(text) for text in _texts(content))
        bodies = [orjson.loads(part.body) for part in parts]
        same = [sum(len(text) for text in _texts(body)) for body in bodies]
        longest = max(len(text) for text in _texts(content))
        assert sum(same) - (len(parts) - 1) * (total - longest) == total


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []
