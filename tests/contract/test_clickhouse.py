"""What is ClickHouse's own, against its own engine: rows, repeats, refusals by code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Reject, Retry
from event_handler.sinks.clickhouse import ClickhouseOptions, ClickhouseSink, judge_clickhouse
from event_handler.sinks.http_answer import Answer
from tests.contract.clickhouse_server import Clickhouse, engine, no_clickhouse
from tests.contract.deliveries import events, verdict
from tests.event_samples import samples


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clickhouse]:
    if reason := no_clickhouse():
        pytest.skip(reason)
    with engine(tmp_path_factory.mktemp("clickhouse")) as started:
        yield started


@pytest.fixture
def server(running: Clickhouse) -> Iterator[Clickhouse]:
    yield running
    running.ask("DROP TABLE IF EXISTS default.teleport_events")


def event(
    body: dict[str, Any] | bytes, id_: str = "u1", session_id: str = "", moment: float = 1_790_000_000.5
) -> Event:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Event("user.login", id_, moment, 3, raw, session_id)


async def said(server: Clickhouse, batch: list[Event], **options: Any) -> Any:
    sink = server.sink(**options)
    try:
        return await verdict(sink, batch)
    finally:
        await sink.close()


async def test_an_event_is_a_row_with_its_columns(server: Clickhouse) -> None:
    body = {"event": "user.login", "code": "T1000W", "user": 'a "\\ {},\n\0', "success": False, "sid": "s"}
    assert await said(server, [event(body), event({"user": ["x"]}, "u2", "rec-1")]) == Delivered()
    first, second = server.ask("SELECT * FROM default.teleport_events ORDER BY uid")
    assert first | {"body": orjson.loads(first["body"])} == {
        "time": "2026-09-21 14:13:20.500000",
        "event": "user.login",
        "code": "T1000W",
        "uid": "u1",
        "session_id": "s",
        "event_index": 3,
        "username": 'a "\\ {},\n\0',
        "cluster": "",
        "success": False,
        "body": body,
    }
    assert (second["session_id"], second["success"]) == ("rec-1", None)
    assert orjson.loads(second["body"]) == {"user": ["x"], "teleport_session_id": "rec-1"}


async def test_an_event_of_every_type_is_taken_and_stored_once(server: Clickhouse) -> None:
    batch = [event(body, body["uid"]) for body in samples()]
    sink = server.sink()
    for _ in range(2):
        assert await verdict(sink, batch) == Delivered()
    assert await verdict(sink, batch[:7]) == Delivered()
    await sink.close()
    assert server.ask("SELECT count() AS n FROM default.teleport_events FINAL") == [{"n": len(batch)}]


@pytest.mark.parametrize("moment", [0.0, 1_790_000_000.123456, 4_000_000_000.0])
async def test_times_are_kept_to_the_microsecond(server: Clickhouse, moment: float) -> None:
    assert await said(server, [event({}, moment=moment)]) == Delivered()
    assert server.ask("SELECT toFloat64(time) AS t FROM default.teleport_events") == [{"t": moment}]


async def test_a_table_that_is_not_there_is_named(server: Clickhouse) -> None:
    answer = await said(server, events(), create_table=False)
    assert isinstance(answer, Denied)
    assert "UNKNOWN_TABLE" in answer.reason
    assert answer.reason.endswith("check sinks.click.database and sinks.click.table")


async def test_a_database_that_is_not_there_is_named(server: Clickhouse) -> None:
    answer = await said(server, events(), database="nowhere")
    assert isinstance(answer, Denied)
    assert "UNKNOWN_DATABASE" in answer.reason


async def test_a_wrong_password_is_said(server: Clickhouse) -> None:
    answer = await said(server, events(), password="wrong")
    assert isinstance(answer, Denied)
    assert answer.reason.endswith("check sinks.click.username and sinks.click.password")


async def test_a_row_that_does_not_fit_is_refused_and_not_quoted(server: Clickhouse) -> None:
    server.ask(
        "CREATE TABLE default.teleport_events (time Date, event UInt8, code String, uid String, session_id String,"
        " event_index UInt64, username String, cluster String, success Bool, body String) ENGINE = Memory"
    )
    answer = await said(server, [event({"user": "alice"})], create_table=False)
    assert isinstance(answer, Reject)
    assert "user.login" not in answer.reason


async def test_a_column_that_is_missing_is_the_tables_fault(server: Clickhouse) -> None:
    server.ask("CREATE TABLE default.teleport_events (time DateTime) ENGINE = Memory")
    answer = await said(server, events(), create_table=False)
    assert isinstance(answer, Denied)
    assert "NO_SUCH_COLUMN_IN_TABLE" in answer.reason


def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(SinkError, match=r"sinks.click.table is no name of a table"):
        ClickhouseSink(ClickhouseOptions(url="http://127.0.0.1:1", table="a`; DROP"), "click", "sinks.click")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (500, 252, Retry),  # too many parts
        (500, 241, Retry),  # memory
        (404, 242, Retry),  # the table is read-only for a while
        (400, 159, Retry),
        (403, 497, Denied),
        (500, 164, Denied),
        (400, 115, Denied),
        (500, 117, Reject),
        (400, 62, Reject),  # by the status
        (500, 1000, Retry),  # by the status
    ],
)
def test_the_code_counts_before_the_status(status: int, code: int, expected: type) -> None:
    answer = Answer(status, "", b"Code: %d. DB::Exception: Something. (NAME)" % code, complete=True)
    assert isinstance(judge_clickhouse(answer, "sinks.click"), expected)
