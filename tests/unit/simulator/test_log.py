"""The log of the simulated cluster, against what a real one answered."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

import pytest

from event_handler.simulator.back_ends import BackEnd, BadRequest, DynamoBackEnd, FileBackEnd, PostgresBackEnd
from event_handler.simulator.events import Generator, LogEvent
from event_handler.simulator.log import PAGE_BYTES, AuditLog, day_of
from event_handler.simulator.messages import parse

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "grpc"
DAY = 86_400.0


def golden(name: str) -> tuple[Any, Any, dict[str, Any]]:
    recorded = json.loads((GOLDEN / f"{name}.json").read_text())
    answers = [base64.b64decode(answer) for answer in recorded["responses"]] or [b""]
    return (
        parse("SearchRequest", base64.b64decode(recorded["request"])),
        parse("EventsUnstructured", answers[0]),
        recorded,
    )


def real_log() -> AuditLog:
    log = AuditLog()
    for item in golden("search-all")[1].items:
        log.events.append(
            LogEvent(item.id, item.type, item.time.ToMicroseconds() / 1e6, item.SerializeToString(), item.index)
        )
    return log


def ask(log: AuditLog, request: Any) -> tuple[list[str], str]:
    since, until = (field.seconds + field.nanos / 1e9 for field in (request.start_date, request.end_date))
    page, key = log.page(
        since, until, request.limit, request.start_key, frozenset(request.event_types), request.order == 1
    )
    return [parse("EventUnstructured", event).id for event in page], key


@pytest.mark.parametrize(
    "name",
    [
        "search-all",
        "search-ascending-page1",
        "search-ascending-page2",
        "search-ascending-page3",
        "search-ascending-page4",
        "search-bad-key",
        "search-empty-window",
        "search-lost-key",
        "search-order1",
        "search-types",
    ],
)
def test_answers_a_search_as_the_real_cluster_did(name: str) -> None:
    request, answer, _ = golden(name)
    assert ask(real_log(), request) == ([item.id for item in answer.items], answer.last_key)


@pytest.mark.parametrize("name", ["search-limit-too-large", "search-inverted"])
def test_refuses_a_search_as_the_real_cluster_did(name: str) -> None:
    request, _, recorded = golden(name)
    with pytest.raises(BadRequest) as refused:
        ask(real_log(), request)
    assert str(refused.value) == recorded["message"]


def read_all(log: AuditLog, since: float, newest: bool = False) -> list[bytes]:
    read: list[bytes] = []
    key = ""
    while True:
        page, key = log.page(since, time(), 10_000, key, frozenset(), newest)
        assert sum(map(len, page)) <= PAGE_BYTES
        read += page
        if not key:
            return read


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize(
    "back_end", [FileBackEnd(), PostgresBackEnd(), DynamoBackEnd()], ids=["file", "postgres", "dynamodb"]
)
def test_pages_by_bytes_and_loses_nothing(back_end: BackEnd, newest: bool) -> None:
    generator, begin = Generator("c", 1), time() - DAY
    log = AuditLog(events=[generator.event(begin + number // 3) for number in range(3000)], back_end=back_end)
    log.events.sort(key=lambda event: (event.time, event.id))
    read, expected = read_all(log, begin - 1, newest), [event.wire for event in log.events]
    if isinstance(back_end, DynamoBackEnd):
        assert sorted(read) == sorted(expected), "the order within a second is its own"
        assert read[::-1] == read_all(log, begin - 1, not newest)
    else:
        assert read == (expected[::-1] if newest else expected)


@pytest.mark.parametrize("back_end", [PostgresBackEnd(), DynamoBackEnd()], ids=["postgres", "dynamodb"])
@pytest.mark.parametrize("newest", [False, True])
def test_databases_go_on_after_a_key_whose_event_is_gone(back_end: BackEnd, newest: bool) -> None:
    generator, begin = Generator("c", 1), time() - DAY
    log = AuditLog(events=[generator.event(begin + number * 10) for number in range(10)], back_end=back_end)
    gone = log.events.pop(4)
    page, _ = log.page(begin - 1, time(), 0, back_end.key(gone), frozenset(), newest)
    assert page == [event.wire for event in (log.events[:4][::-1] if newest else log.events[4:])]


def test_a_postgres_key_is_microseconds_and_a_row() -> None:
    event = Generator("c", 1).event(1_700_000_000.25)
    key = base64.urlsafe_b64decode(PostgresBackEnd().key(event))
    assert key == (1_700_000_000_250_000).to_bytes(8, "little") + uuid.UUID(event.id).bytes


def test_a_dynamodb_key_is_json_in_json() -> None:
    event = Generator("c", 1).event(1_700_000_000.25)
    key = json.loads(DynamoBackEnd().key(event))
    item = {"SessionID": event.id, "EventIndex": event.index, "CreatedAt": 1_700_000_000, "CreatedAtDate": "2023-11-14"}
    assert key == {"date": "2023-11-14", "iterator": json.dumps(item)}


@pytest.mark.parametrize("back_end", [PostgresBackEnd(), DynamoBackEnd()], ids=["postgres", "dynamodb"])
@pytest.mark.parametrize("key", ["x", "{}", '{"iterator":"{}"}', "[]", "AAAA", "0/1"])
def test_databases_refuse_keys_of_other_back_ends(back_end: BackEnd, key: str) -> None:
    log = AuditLog(events=[Generator("c", 1).event(time() - 60)], back_end=back_end)
    with pytest.raises(BadRequest):
        log.page(time() - DAY, time(), 0, key, frozenset(), False)


def test_a_window_in_dynamodb_has_whole_seconds() -> None:
    generator = Generator("c", 1)
    log = AuditLog(events=[generator.event(1000 + number / 4) for number in range(12)], back_end=DynamoBackEnd())
    page, _ = log.page(1000.5, 1001.5, 0, "", frozenset(), False)
    assert sorted(page) == sorted(event.wire for event in log.events[:8])


def test_an_event_too_large_for_a_page_ends_the_paging_without_a_word() -> None:
    generator, begin = Generator("c", 1), time() - DAY
    log = AuditLog(events=[generator.event(begin), generator.event(begin + 2)], back_end=PostgresBackEnd())
    log.add(generator.large_event(begin + 1, PAGE_BYTES))
    assert read_all(log, begin - 1) == [log.events[0].wire]
    assert read_all(log, begin + 1.5) == [log.events[2].wire]


def test_a_key_from_before_the_window_reads_from_the_start_of_the_window() -> None:
    generator, begin = Generator("c", 1), time() - DAY
    log = AuditLog(events=[generator.event(begin + number) for number in range(10)])
    old = f"{log.events[0].id}/{round(log.events[0].time * 1000) * 1_000_000}"
    page, _ = log.page(begin + 4.5, time(), 0, old, frozenset(), False)
    assert page == [event.wire for event in log.events[5:]]


def test_chunks_hold_every_event_of_their_day_under_uuid7_names() -> None:
    generator, begin = Generator("c", 1), time() - 3 * DAY
    log = AuditLog(events=[generator.event(begin + number * 2 * DAY / 2000) for number in range(2000)], seed=1)
    log.cut_chunks(300, late=2, late_seconds=60, duplicates=0.1)
    seen: list[str] = []
    for day, chunks in log.chunks.items():
        for chunk in chunks:
            assert uuid.UUID(chunk.name).version == 7
            for number, message in enumerate(chunk.messages, start=1):
                item = parse("ExportEventUnstructured", message)
                assert item.cursor == f"a1:{number}"
                assert day_of(item.event.time.seconds) == day
                seen.append(item.event.id)
    assert set(seen) == {event.id for event in log.events}
    assert 2000 * 1.05 < len(seen) < 2000 * 1.15
    late = [day for day, chunks in log.chunks.items() for chunk in chunks if chunk not in log.visible_chunks(day)]
    assert len(late) == 2
    assert day_of(time()) not in late


def test_the_same_seed_makes_the_same_events_of_many_types() -> None:
    begin = time()
    first, second = (Generator("c", 5) for _ in range(2))
    events = [first.event(begin) for _ in range(2000)]
    assert events == [second.event(begin) for _ in range(2000)]
    assert len({event.type for event in events}) >= 60


def test_an_event_tells_one_time_and_a_recording_is_as_a_real_one() -> None:
    sid, announced, recording = Generator("c", 5).session(time(), uploaded=True)
    kinds = [event.type for event in recording]
    assert [kinds[0], *kinds[-3:]] == ["session.start", "resize", "session.leave", "session.end"]
    assert [event.index for event in recording] == list(range(len(recording)))
    assert [event.type for event in announced] == ["session.start", "session.end", "session.upload"]
    for event in recording:
        message = parse("EventUnstructured", event.wire)
        assert (
            datetime.fromisoformat(message.unstructured["time"]).timestamp()
            == message.time.ToMilliseconds() / 1000
            == event.time
        )
        assert message.unstructured["sid"] == sid
        assert ("uid" in message.unstructured) == (event.type != "print")
        assert event.type != "print" or len(event.id) == 64


def test_a_copy_differs_from_its_model_in_id_and_time_only() -> None:
    generator, begin = Generator("c", 5), time()
    model = generator.event(begin)
    for later in (
        begin + 1.0,
        begin + DAY,
        float(int(begin)),
    ):  # the last has no nanoseconds, which shortens the message
        copy = generator.again(model, later)
        before, after = (parse("EventUnstructured", event.wire) for event in (model, copy))
        assert after.id == after.unstructured["uid"] == copy.id != model.id
        assert (
            datetime.fromisoformat(after.unstructured["time"]).timestamp()
            == after.time.ToMilliseconds() / 1000
            == copy.time
        )
        for one in (before, after):
            one.id, one.unstructured["uid"], one.unstructured["time"] = "", "", ""
            one.ClearField("time")
        assert before == after
