"""Delivers to a table of ClickHouse over HTTP, in which rows that are sent again merge into one.

Facts: ClickHouse's documentation, "HTTP interface", "JSONEachRow", "Deduplicating inserts on retries" and
"ReplacingMergeTree"; the codes of its errors are in the answer's text and in src/Common/ErrorCodes.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Limits, Reject, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge, readable
from event_handler.sinks.columns import COLUMNS, json_lines
from event_handler.sinks.http import KEEPALIVE, Answer
from event_handler.sinks.http_login import LoginClient, LoginOptions
from event_handler.sinks.registry import SinkType
from event_handler.sinks.repeat_key import repeat_key

BLOCK_EVENTS = (
    10_000  # of an insert; ClickHouse asks for 1,000 rows at least, each insert is a part that must be merged
)
BLOCK_BYTES = 8 * 1024 * 1024  # of the events of an insert
BLOCK_ROOM = 3  # times the bytes in flight of others, so that large inserts go out side by side
BLOCK_AGE = 1.0  # seconds an incomplete batch waits for more events; ClickHouse asks for one insert a second
IDENTIFIER = re.compile(r"[^\0`\\.]{1,100}")  # of a database or table
# The time is first, so that searches by time skip what is older. ReplacingMergeTree keeps one of several rows with the
# same key when it merges parts, and at once in a SELECT with FINAL.
CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    time DateTime64(6, 'UTC'),
    event LowCardinality(String),
    code LowCardinality(String),
    uid String,
    session_id String,
    event_index UInt64,
    username String,
    cluster LowCardinality(String),
    success Nullable(Bool),
    body String CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, uid, session_id, event_index)
"""
# A profile of the server may have other values: an answer must mean that the rows are stored, whole, and a time is
# written as RFC 3339 has it.
SETTINGS = {
    "date_time_input_format": "best_effort",
    "input_format_skip_unknown_fields": "0",
    "wait_end_of_query": "1",
    "wait_for_async_insert": "1",
}
CODE = re.compile(rb"Code: (\d{1,5})")
# Of its several hundred codes, those that tell whom they are for; the status decides about all others.
ROW_CODES = frozenset({6, 25, 26, 27, 38, 41, 53, 69, 70, 72, 117, 130, 131, 321, 349, 469})  # of one row, or of more
TABLE_CODES = frozenset({8, 16, 47, 60, 81})  # no such column, table or database
LOGIN_CODES = frozenset({192, 193, 194, 516})
RIGHTS_CODES = frozenset({164, 291, 497})
SETTING_CODES = frozenset({115, 452})  # an unknown one, or one that the profile has fixed
BUSY_CODES = frozenset({159, 201, 202, 209, 210, 241, 242, 243, 252, 285, 319, 439, 999})


class ClickhouseOptions(LoginOptions):
    """Which server, database and table, and how to sign in."""

    url: Annotated[str, Setting("url", "address of the HTTP interface, as https://host:8443", required=True)] = ""
    database: Annotated[str, Setting("text", "database of the table")] = "default"
    table: Annotated[str, Setting("text", "table of the events")] = "teleport_events"
    create_table: Annotated[bool, Setting("flag", "create the table when there is none")] = False
    max_connections: Annotated[
        int, Setting("number", "inserts in flight at most; few large ones suit ClickHouse"), Field(ge=1, le=100)
    ] = 4


class ClickhouseSink:
    """A `clickhouse` sink. Raises SinkError when a name, the login or the TLS files cannot be used."""

    def __init__(self, options: ClickhouseOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        self.name = name
        self.limits = Limits(BLOCK_EVENTS, BLOCK_BYTES, options.max_connections, BLOCK_AGE, room=BLOCK_ROOM)
        for option, text in (("database", options.database), ("table", options.table)):
            if not IDENTIFIER.fullmatch(text):
                raise SinkError(f"{section}.{option} is no name of a {option}", f"It must look like {option}_1.")
        self._section = section
        self._table = f"`{options.database}`.`{options.table}`"
        self._wants_table = options.create_table
        self._url = options.address(options.url, f"{section}.url").with_query(
            {**SETTINGS, "query": f"INSERT INTO {self._table} ({', '.join(COLUMNS)}) FORMAT JSONEachRow"}
        )
        headers = {"Content-Type": "application/x-ndjson"}
        self._client = LoginClient(options, section, headers, keepalive=keepalive, status_only=True)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if self._wants_table:
            said = await self._post(self._url.with_query(None), CREATE.format(table=self._table).encode())
            if not isinstance(said, Delivered):
                return said
            self._wants_table = False
        # A replicated table, and any with non_replicated_deduplication_window, drops a block whose token it knows.
        url = self._url.update_query(insert_deduplication_token=repeat_key(events))
        return await self._post(url, json_lines(events))

    async def _post(self, url: URL, body: bytes) -> Verdict:
        answer = await self._client.post(url, body)
        return answer if isinstance(answer, Retry) else judge_clickhouse(answer, self._section)

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


def judge_clickhouse(answer: Answer, section: str) -> Verdict:
    """Most errors have status 500 or 404, whatever they are about: the code in the text tells."""
    found = CODE.search(answer.body)
    if 200 <= answer.status < 300 or not found:
        return judge(answer)
    code, said = int(found[1]), f"the receiver answered {answer.status} {readable(answer.body)}"
    if code in ROW_CODES:
        # The text goes on with what stands in the row, which is the event's.
        return Reject(f"the receiver answered {answer.status}, code {code}: a row does not fit the table")
    if code in TABLE_CODES:
        return Denied(f"{said}; create the table or set create-table, and check {section}.database and {section}.table")
    if code in LOGIN_CODES:
        return Denied(f"{said}; check {section}.username and {section}.password")
    if code in RIGHTS_CODES:
        return Denied(f"{said}; grant INSERT on the table to the user: check {section}.username")
    if code in SETTING_CODES:
        return Denied(f"{said}; the user's profile must let these settings be changed: {', '.join(SETTINGS)}")
    if code in BUSY_CODES:
        return Retry(said)
    return judge(answer)


SINK = SinkType("a table of ClickHouse, or ClickHouse Cloud", ClickhouseOptions, ClickhouseSink)
