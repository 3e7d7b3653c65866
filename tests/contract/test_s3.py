"""What is the bucket's own: names, what is in an object, no event in two, refusals by code."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from hypothesis import given as with_examples
from hypothesis import settings
from hypothesis import strategies as st
from yarl import URL

from event_handler.errors import SinkError, StateError
from event_handler.event import Event
from event_handler.ports import Commit, Delivered, Denied, Partial, Retry, Split
from event_handler.sinks.http_answer import Answer
from event_handler.sinks.s3 import S3Options, S3Sink
from event_handler.sinks.s3.answers import judge_put
from event_handler.sinks.s3.intents import FORGOTTEN_AFTER, SLOTS, Intent, Slot, read, written
from event_handler.sinks.s3.objects import DIGEST_BYTES, checked_prefix, groups, period_of
from event_handler.sinks.s3.sink import OBJECTS_A_BATCH, bucket_url
from tests.contract.deliveries import verdict
from tests.contract.receiver import Exchange, Receiver, answer, cut_without_answer, receiving
from tests.contract.s3_bucket import Bucket

HOUR = 1_790_000_000.0 // 3600 * 3600  # 2026-09-21 13:00
REQUIRED = {"bucket": "audit", "region": "eu-central-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"}


class Notebook:
    """The notes of a sink, which outlive it."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.full = False
        self.delivered: list[bytes] = []

    async def note(self, name: str) -> str:
        return self.notes.get(name, "")

    async def commit(self, group: Commit) -> None:
        if self.full:
            raise StateError("the disk is full", "Make room.")
        self.notes |= group.notes

    async def delivered_ids(self) -> list[bytes]:
        return self.delivered


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def event(number: int, moment: float = HOUR, session_id: str = "") -> Event:
    body = orjson.dumps({"event": "user.login", "uid": f"e{number}", "user": "alice"})
    return Event("user.login", f"e{number}", moment, number, body, session_id)


def some(first: int, end: int, moment: float = HOUR) -> list[Event]:
    return [event(number, moment) for number in range(first, end)]


def ids(events: list[Event]) -> list[str]:
    return sorted(one.id for one in events)


def made(receiver: Receiver, clock: Clock | None = None, **options: Any) -> S3Sink:
    given = S3Options(**{**REQUIRED, "url": receiver.url, "timeout": 1.5, **options})
    return S3Sink(given, "s3", "sinks.s3", clock=clock or Clock())


@asynccontextmanager
async def bucket() -> AsyncIterator[tuple[Bucket, Receiver]]:
    kept = Bucket()
    async with receiving(kept, None) as receiver:
        yield kept, receiver


async def test_an_object_has_the_events_of_one_hour_and_is_named_by_it() -> None:
    batch = [event(1, HOUR + 5.5), event(2, HOUR + 3599.9), event(3, HOUR + 3600.0)]
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        assert await verdict(sink, batch) == Delivered()
        assert await verdict(sink, [event(4, HOUR, "5f0c")]) == Delivered()
        await sink.close()
    names = [name.rpartition("-")[0] for name in kept.objects]
    assert names == [
        "/audit/teleport/audit/2026-09-21/14/20260921T140005Z",
        "/audit/teleport/audit/2026-09-21/15/20260921T150000Z",
        "/audit/teleport/session/2026-09-21/14/20260921T140000Z",
    ]
    assert all(name.endswith(".ndjson.gz") for name in kept.objects)
    assert sorted(kept.ids()) == ["e1", "e2", "e3", "e4"]


async def test_the_same_events_are_the_same_object_in_whatever_order() -> None:
    async with bucket() as (kept, receiver):
        for batch in (some(0, 20), some(0, 20)[::-1]):
            sink = made(receiver)
            assert await verdict(sink, batch) == Delivered()
            await sink.close()
    assert len(kept.objects) == 1
    assert kept.puts == 2


async def test_what_an_object_of_before_the_crash_has_is_in_no_other() -> None:
    notebook, clock = Notebook(), Clock()
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        receiver.script.append(kept.stored_and_lost)
        assert isinstance(await verdict(sink, some(0, 10)), Retry)
        await sink.close()  # as a killed process does, before it hears of the object

        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        assert await verdict(sink, some(5, 15)) == Delivered()
        assert await verdict(sink, some(0, 5)) == Delivered()
        await sink.close()
    assert len(kept.objects) == 2
    assert sorted(kept.ids()) == ids(some(0, 15))


async def test_what_never_arrived_is_sent_once_it_surely_does_not_any_more() -> None:
    notebook, clock = Notebook(), Clock()
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        receiver.script.append(cut_without_answer)
        assert isinstance(await verdict(sink, some(0, 10)), Retry)
        await sink.close()

        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        clock.now += 3.0
        said = await verdict(sink, some(5, 15))
        assert said == Retry("it is not known yet whether the last object has arrived", after=2.0)
        clock.now += 2.0
        assert await verdict(sink, some(5, 15)) == Delivered()
        assert await verdict(sink, some(0, 5)) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(some(0, 15))


async def test_an_answer_that_was_lost_is_asked_for_when_the_batch_comes_in_another_cut() -> None:
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        receiver.script.append(kept.stored_and_lost)
        assert isinstance(await verdict(sink, some(0, 10)), Retry)
        assert await verdict(sink, some(0, 5)) == Delivered()
        assert await verdict(sink, some(5, 12)) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(some(0, 12))


async def test_the_same_batch_again_is_sent_again_without_a_question() -> None:
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        receiver.script.extend([kept.stored_and_lost, kept.busy])
        assert [type(await verdict(sink, some(0, 10))) for _ in range(3)] == [Retry, Retry, Delivered]
        await sink.close()
    assert [request.method for request in receiver.requests] == ["PUT", "PUT", "PUT"]
    assert len(kept.objects) == 1


async def test_nothing_is_sent_that_could_not_be_remembered() -> None:
    notebook = Notebook()
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        await sink.remember_in(notebook)
        notebook.full = True
        said = await verdict(sink, some(0, 3))
        await sink.close()
    assert isinstance(said, Retry)
    assert "the disk is full" in said.reason
    assert not kept.puts


async def test_without_a_time_in_the_prefix_a_batch_is_one_object() -> None:
    async with bucket() as (kept, receiver):
        sink = made(receiver, prefix="all/")
        assert await verdict(sink, some(0, 3) + some(3, 5, HOUR + 86_400)) == Delivered()
        await sink.close()
    assert len(kept.objects) == 1


async def test_an_hour_that_fails_leaves_the_others_delivered() -> None:
    batch = some(0, 3) + some(3, 5, HOUR + 3600) + some(5, 6, HOUR + 7200)
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        receiver.script.append(kept.busy)  # whichever comes first
        said = await verdict(sink, batch)
        assert isinstance(said, Partial)
        assert said.retry in ({0, 1, 2}, {3, 4}, {5})
        assert "503 SlowDown" in said.reason
        assert len(kept.ids()) == 6 - len(said.retry)
        assert await verdict(sink, [batch[place] for place in sorted(said.retry)]) == Delivered()
        await sink.close()
    assert sorted(kept.ids()) == ids(batch)


async def test_a_bucket_that_tells_nothing_gets_the_events_again() -> None:
    notebook, clock = Notebook(), Clock()
    async with bucket() as (kept, receiver):
        sink = made(receiver, clock)
        await sink.remember_in(notebook)
        receiver.script.append(kept.stored_and_lost)
        await verdict(sink, some(0, 10))
        receiver.script.append(answer(403))
        assert await verdict(sink, some(0, 5)) == Delivered()
        await sink.close()
    assert set(kept.ids()) == {f"e{number}" for number in range(10)}


async def test_of_many_objects_the_last_are_remembered_in_a_few_notes() -> None:
    notebook, count = Notebook(), 2 * SLOTS
    async with bucket() as (kept, receiver):
        sink = made(receiver)
        await sink.remember_in(notebook)
        for number in range(count):
            assert await verdict(sink, [event(number)]) == Delivered()
        await sink.close()
        sink = made(receiver)
        await sink.remember_in(notebook)
        assert await verdict(sink, some(count - FORGOTTEN_AFTER, count)) == Delivered()
        await sink.close()
    assert len(kept.ids()) == len(set(kept.ids())) == count
    assert len(notebook.notes) <= FORGOTTEN_AFTER + 2


async def test_an_object_says_how_it_is_to_be_kept_and_proves_what_it_holds() -> None:
    more: dict[str, Any] = {
        "encryption": "kms",
        "kms_key": "alias/audit",
        "storage_class": "STANDARD_IA",
        "bucket_key": True,
    }
    async with bucket() as (_, receiver):
        sink = made(receiver, **more, bucket_owner="123456789012")
        await verdict(sink, some(0, 1))
        await sink.close()
    (request,) = receiver.requests
    expected = {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "alias/audit",
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-expected-bucket-owner": "123456789012",
        "content-type": "application/gzip",
        "content-md5": base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode(),
        "x-amz-content-sha256": hashlib.sha256(request.body).hexdigest(),
    }
    assert {name: request.headers[name] for name in expected} == expected


async def test_parquet_has_one_schema_for_all_events() -> None:
    async with bucket() as (kept, receiver):
        sink = made(receiver, format="parquet", compression="zstd")
        other = Event("print", "e2", HOUR + 0.25, 7, b'{"event":"print","success":false}', "5f0c")
        assert await verdict(sink, [event(1)]) == Delivered()
        assert await verdict(sink, [other]) == Delivered()
        await sink.close()
    first, second = (pyarrow.parquet.read_table(io.BytesIO(body)) for body in kept.objects.values())
    assert first.schema == second.schema
    assert str(first.schema.field("time").type) == "timestamp[us, tz=UTC]"
    row = second.to_pylist()[0]
    assert row["time"].timestamp() == HOUR + 0.25
    assert (row["event"], row["session_id"], row["event_index"], row["success"]) == ("print", "5f0c", 7, False)
    assert orjson.loads(row["body"])["teleport_session_id"] == "5f0c"


@pytest.mark.parametrize(
    ("status", "code", "expected", "named"),
    [
        (503, "SlowDown", Retry, ""),
        (500, "InternalError", Retry, ""),
        (400, "EntityTooLarge", Split, ""),
        (403, "RequestTimeTooSkewed", Retry, "check the clock of this machine"),
        (403, "SignatureDoesNotMatch", Denied, "sinks.s3.access-key-id"),
        (400, "ExpiredToken", Denied, "sinks.s3.access-key-id"),
        (403, "AccessDenied", Denied, "s3:PutObject"),
        (404, "NoSuchBucket", Denied, "sinks.s3.bucket"),
        (301, "PermanentRedirect", Denied, "sinks.s3.region"),
        (400, "AuthorizationHeaderMalformed", Denied, "sinks.s3.region"),
        (400, "KMS.NotFoundException", Denied, "sinks.s3.kms-key"),
        (400, "InvalidStorageClass", Denied, "sinks.s3.storage-class"),
        (400, "SomethingNew", Denied, "sinks.s3.url"),
    ],
)
def test_an_error_is_judged_by_its_code(status: int, code: str, expected: type, named: str) -> None:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>So it is.</Message></Error>'
    said = judge_put(Answer(status, "", body.encode(), complete=True), "sinks.s3")
    assert type(said) is expected
    assert isinstance(said, Retry | Split)
    assert f"{status} {code}: So it is." in said.reason
    assert named in said.reason


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "https://audit.s3.eu-central-1.amazonaws.com/"),
        ({"path_style": True}, "https://s3.eu-central-1.amazonaws.com/audit"),
        ({"bucket": "audit.example"}, "https://s3.eu-central-1.amazonaws.com/audit.example"),
        ({"url": "https://minio.example.com:9000"}, "https://minio.example.com:9000/audit"),
        ({"url": "https://minio.example.com:9000", "path_style": False}, "https://audit.minio.example.com:9000/"),
    ],
)
def test_a_bucket_is_in_the_host_or_in_the_path(options: dict[str, Any], expected: str) -> None:
    given = S3Options(**{**REQUIRED, **options})
    service = URL(given.url or "https://s3.eu-central-1.amazonaws.com/").with_path("/")
    assert str(bucket_url(service, given)) == expected


@pytest.mark.parametrize("prefix", ["/a/", "a//b/", "{when}/", "{date/", "a}/", "x" * 600])
def test_a_prefix_that_cannot_begin_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(SinkError, match=r"sinks\.s3\.prefix"):
        checked_prefix(prefix, "sinks.s3.prefix")


def test_a_key_without_its_encryption_is_refused() -> None:
    with pytest.raises(SinkError, match=r"sinks\.s3\.kms-key is set"):
        S3Sink(S3Options(**REQUIRED, kms_key="k"), "s3", "sinks.s3")
    with pytest.raises(SinkError, match=r"sinks\.s3\.bucket-key is set"):
        S3Sink(S3Options(**REQUIRED, bucket_key=True), "s3", "sinks.s3")


async def test_a_batch_of_many_hours_asks_for_few_objects_at_once() -> None:
    together, most = 0, 0

    async def slow(exchange: Exchange) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        kept(await exchange.read_body())
        await asyncio.sleep(0.01)
        together -= 1
        await answer(200)(exchange)

    async with bucket() as (kept, receiver):
        receiver.otherwise = slow
        sink = made(receiver, max_connections=2)
        hours = [Event("print", f"h{n}", 1_790_000_000.0 + 3600 * n, 0, b'{"uid":"h%d"}' % n) for n in range(60)]
        assert await verdict(sink, hours) == Delivered()
        await sink.close()
    assert len(kept.objects) == 60
    assert 2 <= most <= 2 * OBJECTS_A_BATCH


@with_examples(
    st.text("abc/.-", min_size=1), st.frozensets(st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES), min_size=1)
)
def test_an_intent_is_read_as_it_was_written(name: str, digests: frozenset[bytes]) -> None:
    slot = Slot(7, (Intent(name, digests), Intent(f"{name}2", digests)))
    found = read(written(slot), 5.0)
    assert found.number == 7
    assert [(one.name, one.digests, one.unknown_since) for one in found.intents] == [
        (name, digests, 5.0),
        (f"{name}2", digests, 5.0),
    ]


FATES = st.sampled_from(["taken", "stored", "lost", "killed after it was stored", "killed before"])


@settings(max_examples=40, deadline=None)
@with_examples(st.lists(st.tuples(st.integers(1, 7), FATES), max_size=12))
def test_whatever_happens_each_event_is_in_one_object(steps: list[tuple[int, str]]) -> None:
    """Batches of any size, cut anew after each failure, with kills in between: the pipeline's worst day."""

    async def live() -> list[str]:
        notebook, clock, waiting = Notebook(), Clock(), some(0, 25)
        async with bucket() as (kept, receiver):
            steps_of = {
                "stored": kept.stored_and_refused,
                "killed after it was stored": kept.stored_and_refused,
                "lost": kept.busy,
                "killed before": kept.busy,
            }
            sink = made(receiver, clock)
            await sink.remember_in(notebook)
            for size, fate in steps:
                receiver.script.clear()
                if fate != "taken":
                    receiver.script.append(steps_of[fate])
                if waiting and isinstance(await verdict(sink, waiting[:size]), Delivered):
                    waiting = waiting[size:]
                clock.now += 1.0
                if fate.startswith("killed"):
                    await sink.close()
                    sink = made(receiver, clock)
                    await sink.remember_in(notebook)
            receiver.script.clear()
            while waiting:
                if isinstance(await verdict(sink, waiting[:9]), Delivered):
                    waiting = waiting[9:]
                clock.now += 1.0
            await sink.close()
            return sorted(kept.ids())

    assert asyncio.run(live()) == ids(some(0, 25))


@with_examples(st.text())
def test_a_note_that_is_no_intent_is_none(text: str) -> None:
    assert all(intent.name is not None and intent.digests for intent in read(text, 0.0).intents)


@with_examples(st.lists(st.floats(0, 400_000)), st.sampled_from(["{date}/{hour}/", "{year}/{month}/{day}/", "all/"]))
def test_every_event_is_in_one_group_of_its_time(times: list[float], prefix: str) -> None:
    events = [event(number, moment) for number, moment in enumerate(times)]
    period = period_of(prefix)
    found = groups(events, period)
    assert sorted(place for group in found for place in group) == list(range(len(events)))
    assert not period or all(len({events[place].time // period for place in group}) == 1 for group in found)
