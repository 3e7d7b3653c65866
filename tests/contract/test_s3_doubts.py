"""Nothing makes the s3 sink forget that an object may be in the bucket, nor take one event for another."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import given as with_examples
from hypothesis import settings
from hypothesis import strategies as st

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Partial, Retry, Sink
from event_handler.sinks.s3.intents import FORGOTTEN_AFTER, SLOTS, Intents
from event_handler.sinks.s3.objects import DIGEST_BYTES, checked_prefix, digest_of
from tests.contract.deliveries import verdict
from tests.contract.receiver import Step, answer
from tests.contract.s3_bucket import unpacked
from tests.contract.test_s3 import HOUR, Clock, Notebook, bucket, event, ids, made, some

MANY = 2 * SLOTS  # batches


def refused(status: int, code: str) -> Step:
    return answer(status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode())


async def test_an_object_in_doubt_is_not_forgotten_while_others_are_delivered() -> None:
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        receiver.script.append(kept.stored_and_lost)
        assert isinstance(await verdict(sink, some(0, 10)), Retry)
        for number in range(100, 100 + MANY):
            assert await verdict(sink, [event(number)]) == Delivered()
        assert await verdict(sink, some(0, 5)) == Delivered()
        assert await verdict(sink, some(5, 10)) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(some(0, 10) + some(100, 100 + MANY))


async def test_an_object_in_doubt_is_remembered_over_a_crash_while_others_are_delivered() -> None:
    notebook, clock = Notebook(), Clock()
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        receiver.script.append(kept.stored_and_lost)
        assert isinstance(await verdict(sink, some(0, 10)), Retry)
        for number in range(100, 100 + MANY):
            assert await verdict(sink, [event(number)]) == Delivered()
        await sink.close()
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        assert await verdict(sink, some(0, 5)) == Delivered()
        assert await verdict(sink, some(5, 10)) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(some(0, 10) + some(100, 100 + MANY))


async def test_what_is_answered_late_is_not_forgotten_before_it_can_be_remembered_as_delivered() -> None:
    notebook, intents = Notebook(), Intents()
    await intents.load(notebook, 0.0)
    (slow,) = await intents.begin({"slow": [b"0" * DIGEST_BYTES]})
    for number in range(MANY):
        (quick,) = await intents.begin({f"quick{number}": [number.to_bytes(DIGEST_BYTES)]})
        quick.settle()
    slow.settle()
    kept = 0
    while any("slow" in text for text in notebook.notes.values()):
        (quick,) = await intents.begin({f"later{kept}": [kept.to_bytes(DIGEST_BYTES)]})
        quick.settle()
        kept += 1
    assert kept >= FORGOTTEN_AFTER


async def test_what_comes_again_only_after_many_kills_is_still_in_one_object() -> None:
    notebook, clock = Notebook(), Clock()
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        assert await verdict(sink, some(0, 10)) == Delivered()
        for run in range(1, 2 * SLOTS // FORGOTTEN_AFTER + 1):  # each killed when all of its own was remembered
            await sink.close()
            sink = made(receiver, clock)
            await sink.remember_in(notebook)
            own = some(run * 100, run * 100 + FORGOTTEN_AFTER)
            for one in own:
                assert await verdict(sink, [one]) == Delivered()
            notebook.delivered.append(b"".join(map(digest_of, own)))
        assert await verdict(sink, some(0, 5)) == Delivered()
        assert await verdict(sink, some(5, 12)) == Delivered()
        await sink.close()
    assert len(kept.ids()) == len(set(kept.ids()))


@pytest.mark.parametrize("later", ["refused", "unreachable"])
async def test_what_becomes_of_a_second_try_says_nothing_of_the_first(later: str) -> None:
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        receiver.script.append(kept.stored_and_refused)  # by the 504 of a load balancer, for example
        assert isinstance(await verdict(sink, some(0, 10)), Retry)
        if later == "refused":
            receiver.script.append(refused(403, "AccessDenied"))
            assert isinstance(await verdict(sink, some(0, 10)), Denied)
        else:
            await receiver.stop()
            assert isinstance(await verdict(sink, some(0, 10)), Retry)
            await receiver.start(None)
        assert await verdict(sink, some(0, 5)) == Delivered()
        assert await verdict(sink, some(5, 10)) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(some(0, 10))


async def test_an_hour_of_before_the_crash_is_not_forgotten_when_it_cannot_be_sent_again() -> None:
    notebook, clock = Notebook(), Clock()
    batch = some(0, 4) + some(4, 10, HOUR + 3600)
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        assert await verdict(sink, batch) == Delivered()
        await sink.close()  # killed before it is remembered as delivered
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        receiver.script.append(refused(403, "AllAccessDisabled"))
        said = await verdict(sink, batch)
        assert isinstance(said, Partial)
        clock.now += 60.0
        left = [batch[place] for place in sorted(said.retry)]
        assert await verdict(sink, left[:2]) == Delivered()
        assert await verdict(sink, left[2:]) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(batch)


@pytest.mark.parametrize(
    ("status", "code", "named"),
    [
        (403, "InvalidAccessKeyId", "sinks.s3.access-key-id"),
        (403, "SignatureDoesNotMatch", "sinks.s3.access-key-id"),
        (403, "RequestTimeTooSkewed", "check the clock of this machine"),
        (404, "NoSuchBucket", "sinks.s3.bucket"),
        (503, "SlowDown", "SlowDown"),
    ],
)
async def test_a_refused_question_says_nothing_of_an_object(status: int, code: str, named: str) -> None:
    notebook, clock = Notebook(), Clock()
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        assert await verdict(sink, some(0, 10)) == Delivered()
        await sink.close()  # killed before it is remembered as delivered
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        clock.now += 60.0
        receiver.script.append(refused(status, code))
        said = await verdict(sink, some(0, 5))
        assert isinstance(said, Retry)
        assert named in said.reason
        assert await verdict(sink, some(0, 5)) == Delivered()
        assert await verdict(sink, some(5, 10)) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(some(0, 10))


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
@pytest.mark.parametrize(("time", "date"), [(-7e10, "0001-01-01"), (1e12, "9999-12-31")])
async def test_an_event_of_an_impossible_time_is_delivered(time: float, date: str, form: str) -> None:
    async with bucket() as (kept, receiver):
        sink = made(receiver, format=form)
        assert await verdict(sink, [event(1, time)]) == Delivered()
        await sink.close()
    (name,) = kept.objects
    assert name.startswith(f"/audit/teleport/audit/{date}/")


@pytest.mark.parametrize("session_id", ["", "5f0c"], ids=["transforms left out what differs", "recorded"])
async def test_events_of_equal_content_are_told_apart(session_id: str) -> None:
    notebook, clock = Notebook(), Clock()
    body = orjson.dumps({"event": "print", "uid": "one"})
    first, second = (
        Event("print", "the same" if session_id else f"uid {place}", HOUR, place, body, session_id) for place in (3, 9)
    )
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        assert await verdict(sink, [first]) == Delivered()
        await sink.close()  # killed before it is remembered as delivered
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        assert await verdict(sink, [first, second]) == Delivered()
        await sink.close()
    assert len([line for one in kept.objects.values() for line in unpacked(one)]) == 2


@pytest.mark.parametrize("prefix", ["a/../b/", "./a/", ".."])
def test_a_prefix_that_would_become_another_one_is_refused(prefix: str) -> None:
    with pytest.raises(SinkError, match=r"sinks\.s3\.prefix cannot begin a name"):
        checked_prefix(prefix, "sinks.s3.prefix")


async def left_over(sink: Sink, batch: list[Event]) -> list[Event]:
    """What the sink wants again, as the pipeline takes its answer."""
    said = await verdict(sink, batch)
    if isinstance(said, Partial):
        return [batch[place] for place in sorted(said.retry)]
    return [] if said == Delivered() else batch


FATES = st.sampled_from(["taken", "stored", "lost", "denied", "no key", "others"])


@settings(max_examples=60, deadline=None)
@with_examples(st.lists(st.tuples(st.integers(1, 9), FATES, st.booleans()), max_size=12))
def test_each_event_is_in_one_object_whatever_a_later_try_is_told(steps: list[tuple[int, str, bool]]) -> None:
    """Batches over two hours, cut anew after each failure; `True` is a kill, which forgets what was delivered last.

    Many others come between, each remembered as delivered.
    """

    async def live() -> list[str]:
        notebook, clock, others = Notebook(), Clock(), 100
        waiting = some(0, 12) + some(12, 25, HOUR + 3600)
        async with bucket() as (kept, receiver):
            sink = made(receiver, clock)
            await sink.remember_in(notebook)
            for size, fate, killed in steps:
                scripts: dict[str, list[Step]] = {
                    "stored": [kept.stored_and_refused],
                    "lost": [kept.busy],
                    "denied": [refused(403, "AllAccessDisabled")] * 2,
                    "no key": [refused(403, "InvalidAccessKeyId")] * 2,
                }
                receiver.script.clear()
                receiver.script.extend(scripts.get(fate, []))
                if fate == "others":
                    for number in range(others, others + FORGOTTEN_AFTER):
                        await verdict(sink, [event(number)])
                        notebook.delivered.append(digest_of(event(number)))
                    others += FORGOTTEN_AFTER
                elif waiting:
                    left = await left_over(sink, waiting[:size])
                    if not killed:
                        notebook.delivered += [digest_of(one) for one in waiting[:size] if one not in left]
                        waiting = left + waiting[size:]
                clock.now += 1.0
                if killed:
                    await sink.close()
                    sink = made(receiver, clock)
                    await sink.remember_in(notebook)
            receiver.script.clear()
            while waiting:
                waiting = await left_over(sink, waiting[:8]) + waiting[8:]
                clock.now += 1.0
            await sink.close()
            return sorted(uid for uid in kept.ids() if int(uid[1:]) < 100)

    assert asyncio.run(live()) == ids(some(0, 25))
