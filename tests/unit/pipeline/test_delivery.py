"""A bad event is told from a bad receiver: nothing good is held up or put aside for ever, whatever is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from event_handler.pipeline.verdicts import SEVERAL_REFUSED
from event_handler.ports import Denied, Partial, Retry, Verdict
from tests.support.passing_time import in_passing_time
from tests.unit.pipeline.delivering import NO_ANSWER, NO_CONNECTION, Receiver, delivering, ids, status

pytestmark = pytest.mark.proof

HOUR = 3600.0  # seconds
# One of each kind; which status is of which kind is in test_answers.
CONTENT = [400, 413]
DENIALS = [403]
PASSING = [429, 500]
FORMATS = [pytest.param(1, id="single"), pytest.param(500, id="array")]


def bad_ones(count: int) -> list[str]:
    """One among 500."""
    return [f"e{number}" for number in range(250, count, 500)]


@pytest.mark.parametrize("events", FORMATS)
@pytest.mark.parametrize("number", CONTENT + DENIALS)
@in_passing_time
async def test_an_event_that_is_refused_holds_up_no_other_and_becomes_a_dead_letter(number: int, events: int) -> None:
    receiver = Receiver(events)
    receiver.refuse(bad_ones(6000), status(number))
    async with delivering(receiver) as run:
        run.put(ids(6000))
        await run.until(lambda: len(run.done) == 6000 - 12, 60)
        await run.finished(300)
    assert sorted(run.dead) == sorted(bad_ones(6000))
    assert all(str(number) in reason for reason in run.dead.values())
    assert set(receiver.taken.values()) == {1}
    assert len(receiver.requests) < 6000 // events + 12 * 50


@pytest.mark.parametrize("events", FORMATS)
@pytest.mark.parametrize("failure", [*map(status, PASSING), NO_ANSWER], ids=lambda v: v.reason)
@in_passing_time
async def test_an_event_at_which_the_receiver_fails_holds_up_no_other_and_is_a_dead_letter_after_long(
    failure: Verdict, events: int
) -> None:
    receiver = Receiver(events)
    receiver.refuse(bad_ones(6000), failure)
    async with delivering(receiver) as run:
        run.put(ids(6000))
        await run.until(lambda: len(run.done) == 6000 - 12, 600)
        await run.others_come(2 * HOUR)
        assert len(run.dead) == 12
    assert sorted(run.dead) == sorted(bad_ones(6000))
    assert set(receiver.taken.values()) == {1}


@pytest.mark.parametrize("events", FORMATS)
@pytest.mark.parametrize(
    "answer", [*map(status, CONTENT + DENIALS + PASSING), NO_ANSWER, NO_CONNECTION], ids=lambda v: v.reason
)
@in_passing_time
async def test_a_receiver_that_takes_nothing_makes_no_dead_letter_and_gets_all_when_it_does(
    answer: Verdict, events: int
) -> None:
    receiver = Receiver(events)
    receiver.rule = lambda _: answer
    async with delivering(receiver) as run:
        run.put(ids(3000))
        await asyncio.sleep(HOUR)
        assert run.dead == {}
        assert run.delivery.failing
        assert len(receiver.requests) < 6 * HOUR
        receiver.rule = lambda _: None
        await run.finished(120)
    assert run.dead == {}
    assert set(receiver.taken) == set(ids(3000))


@pytest.mark.parametrize("events", FORMATS)
@pytest.mark.parametrize("number", CONTENT + DENIALS)
@in_passing_time
async def test_a_receiver_that_stops_taking_anything_makes_no_dead_letter(number: int, events: int) -> None:
    receiver = Receiver(events)
    async with delivering(receiver) as run:
        run.put(ids(1000))
        await run.finished(60)
        receiver.rule = lambda _: status(number)
        run.put(ids(1000, "later"))
        await asyncio.sleep(HOUR)
        assert run.dead == {}
        receiver.rule = lambda _: None
        await run.finished(120)
    assert run.dead == {}


@pytest.mark.parametrize("events", FORMATS)
@pytest.mark.parametrize("number", [400, 403])
@in_passing_time
async def test_bad_events_in_front_of_all_others_do_not_hide_them(number: int, events: int) -> None:
    receiver = Receiver(events)
    bad = ids(300, "bad")
    receiver.refuse(bad, status(number))
    async with delivering(receiver) as run:
        run.put(bad + ids(1200))
        await run.until(lambda: len(run.done) == 1200, HOUR)
        await run.others_come(HOUR)  # in their place the receiver might as well refuse everything by now
    assert sorted(run.dead) == sorted(bad)


@in_passing_time
async def test_the_only_event_of_a_log_waits_an_hour_for_proof() -> None:
    receiver = Receiver()
    receiver.rule = lambda _: status(400)
    async with delivering(receiver) as run:
        run.put(["only"])
        await asyncio.sleep(0.9 * HOUR)
        assert run.dead == {}
        assert "every event is refused" in run.delivery.failing
        await run.until(lambda: bool(run.dead), 0.3 * HOUR)


@in_passing_time
async def test_a_bad_event_at_the_end_of_a_log_is_a_dead_letter_within_seconds() -> None:
    receiver = Receiver()
    receiver.refuse(["last"], status(400))
    async with delivering(receiver) as run:
        run.put([*ids(10), "last"])
        assert await run.finished(60) < 20


@in_passing_time
async def test_on_a_quiet_log_an_event_that_is_refused_waits_two_minutes_for_others() -> None:
    receiver = Receiver()
    receiver.refuse(["odd"], status(400))
    async with delivering(receiver) as run:
        run.put(ids(10))
        await asyncio.sleep(1.0)
        run.put(["odd"])
        assert await run.until(lambda: bool(run.dead), HOUR) > 100


@in_passing_time
async def test_when_another_event_passes_those_held_back_are_dead_letters_at_once() -> None:
    receiver = Receiver()
    receiver.refuse(ids(SEVERAL_REFUSED, "bad"), status(400))
    async with delivering(receiver) as run:
        run.put(ids(SEVERAL_REFUSED, "bad"))
        await asyncio.sleep(2 * HOUR)
        assert run.dead == {}
        for number in range(20):
            run.put([f"good{number}"])
            await asyncio.sleep(0.5)
        assert len(run.dead) == SEVERAL_REFUSED


@in_passing_time
async def test_a_refused_token_that_works_again_loses_nothing_though_others_are_taken() -> None:
    """One of two receivers behind an address knows the token."""
    receiver, answers = Receiver(1), 0

    def every_other(ids: Sequence[str]) -> Verdict | None:
        nonlocal answers
        answers += 1
        return status(401) if answers % 2 else None

    receiver.rule = every_other
    async with delivering(receiver) as run:
        run.put(ids(2000))
        await run.finished(HOUR)
    assert run.dead == {}


@in_passing_time
async def test_what_is_not_about_events_never_makes_a_dead_letter() -> None:
    receiver = Receiver(1)
    receiver.refuse(["e5"], Retry("scripted TLS fault", misconfigured=True))
    async with delivering(receiver) as run:
        run.put(ids(100))
        await run.others_come(5 * HOUR)
        assert run.dead == {}
        receiver.rule = lambda _: None
        await run.finished(120)


@in_passing_time
async def test_a_receiver_that_is_overloaded_makes_no_dead_letter_and_is_not_flooded_with_single_events() -> None:
    receiver, calls = Receiver(500), 0

    def one_of_four(ids: Sequence[str]) -> Verdict | None:
        nonlocal calls
        calls += 1
        return None if calls % 4 == 0 else status(429)

    receiver.rule = one_of_four
    async with delivering(receiver) as run:
        run.put(ids(50_000))
        await run.finished(HOUR)
    assert run.dead == {}
    assert len(receiver.requests) < 4 * 50_000 / 20


@in_passing_time
async def test_answers_event_by_event_are_judged_event_by_event() -> None:
    receiver = Receiver(500)
    bad = {"e7": (400, False), "e8": (403, True)}

    def bulk(ids: Sequence[str]) -> Verdict | None:
        retry = frozenset(place for place, uid in enumerate(ids) if uid in bad and bad[uid][1])
        rejected = {
            place: f"scripted refusal of {uid}" for place, uid in enumerate(ids) if uid in bad and not bad[uid][1]
        }
        left = retry | rejected.keys()
        receiver.taken.update(uid for place, uid in enumerate(ids) if place not in left)
        return Partial(retry, rejected, "scripted 403", misconfigured=bool(retry)) if left else None

    receiver.rule = bulk
    async with delivering(receiver) as run:
        run.put(ids(500))
        await run.until(lambda: len(run.done) == 498, 10)
        assert list(run.dead) == ["e7"]
        await run.finished(300)
    assert set(run.dead) == {"e7", "e8"}


@in_passing_time
async def test_a_bulk_whose_every_event_is_refused_is_waited_out() -> None:
    receiver = Receiver(500)
    receiver.rule = lambda ids: Partial(frozenset(), dict.fromkeys(range(len(ids)), "this cluster has too many shards"))
    async with delivering(receiver) as run:
        run.put(ids(2000))
        await asyncio.sleep(HOUR)
        assert run.dead == {}
        assert "every event is refused: this cluster has too many shards" in run.delivery.failing
        receiver.rule = lambda _: None
        await run.finished(120)
    assert run.dead == {}


@in_passing_time
async def test_a_pause_of_an_hour_for_one_batch_ends_earlier_when_others_are_taken() -> None:
    receiver = Receiver(1)
    receiver.rule = lambda ids: status(429, "3600") if ids == ["e0"] and len(receiver.taken) < 90 else None
    async with delivering(receiver) as run:
        run.put(ids(50))
        await asyncio.sleep(1.0)
        run.put(ids(50, "later"))
        assert await run.finished(HOUR) < 60


@in_passing_time
async def test_a_pause_that_is_asked_for_is_kept_up_to_five_minutes() -> None:
    for asked, kept in ((17, 17), (3600, 300)):
        receiver = Receiver()
        receiver.rule = lambda _, r=receiver, a=asked: status(503, str(a)) if len(r.requests) == 1 else None  # type: ignore[misc]
        async with delivering(receiver) as run:
            run.put(["a"])
            await run.finished(HOUR)
        assert kept <= receiver.requests[1][0] - receiver.requests[0][0] < kept + 31


@pytest.mark.parametrize("most", [10_000, 50_000, 1_000_000])
@pytest.mark.parametrize("patience", [0.02, 30.0], ids=["resets", "hangs"])
@in_passing_time
async def test_a_receiver_that_never_answers_large_batches_gets_smaller_ones(most: int, patience: float) -> None:
    receiver = Receiver(2000)
    stored = 0

    def drop(ids: Sequence[str]) -> Verdict | None:
        nonlocal stored
        stored += len(ids)
        return NO_ANSWER if 200 * len(ids) > most else None

    receiver.rule = drop
    receiver.seconds = lambda ids: patience if 200 * len(ids) > most else 0.01
    async with delivering(receiver) as run:
        run.put(ids(20_000))
        await run.finished(HOUR)
    assert stored < 2 * 20_000
    assert run.dead == {}


@in_passing_time
async def test_after_an_outage_without_answers_batches_are_large_again_within_seconds() -> None:
    receiver = Receiver()
    async with delivering(receiver) as run:
        run.put(ids(20_000))
        await run.finished(60)
        usual = max(len(ids) for _, ids in receiver.requests)
        receiver.rule, receiver.seconds = (lambda _: NO_ANSWER), (lambda _: 30.0)
        run.put(ids(20_000, "later"))
        await asyncio.sleep(HOUR)
        receiver.rule, receiver.seconds = (lambda _: None), (lambda _: 0.01)
        await run.until(lambda: "later0" in receiver.taken, 60)
        healed = len(receiver.requests)
        await run.finished(60)
        assert len(receiver.requests) - healed < 600
        run.put(ids(20_000, "newest"))
        await run.finished(60)
    assert max(len(ids) for _, ids in receiver.requests[healed:]) >= usual
    assert run.dead == {}


@pytest.mark.parametrize("number", [400, 403, 503])
@in_passing_time
async def test_where_order_is_kept_a_refused_event_is_waited_for(number: int) -> None:
    receiver = Receiver(7, ordered=True)
    receiver.rule = lambda ids: status(number) if "e31" in ids and len(receiver.requests) < 60 else None
    async with delivering(receiver) as run:
        run.put(ids(200))
        await run.finished(HOUR)
    if not run.dead:
        assert receiver.order == ids(200)
    assert [uid for uid in receiver.order if uid != "e31"] == [uid for uid in ids(200) if uid != "e31"]


@in_passing_time
async def test_where_order_is_kept_the_first_event_may_be_bad() -> None:
    receiver = Receiver(7, ordered=True)
    receiver.refuse(["e0"], status(400))
    async with delivering(receiver) as run:
        run.put(ids(200))
        await run.finished(300)
    assert receiver.order == ids(200)[1:]
    assert list(run.dead) == ["e0"]


@in_passing_time
async def test_an_exception_of_the_sink_for_one_event_is_no_outage() -> None:
    receiver = Receiver()

    def fail(ids: Sequence[str]) -> Verdict | None:
        if "e250" in ids:
            raise ZeroDivisionError("scripted fault")
        return None

    receiver.rule = fail
    async with delivering(receiver) as run:
        run.put(ids(500))
        await run.until(lambda: len(run.done) == 499, 60)


def test_a_denial_is_a_failure_that_a_person_corrects() -> None:
    said = status(403)
    assert isinstance(said, Denied)
    assert said.misconfigured
