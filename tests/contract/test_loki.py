"""What is Loki's own: labels, times, structured metadata, and what the text of a refusal means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Reject, Retry, Verdict
from event_handler.sinks.loki import LINE_BYTES, LokiOptions, LokiSink
from tests.contract.deliveries import events, verdict
from tests.contract.receiver import Receiver, Reply, answer, receiving


@asynccontextmanager
async def loki(**options: Any) -> AsyncIterator[tuple[Receiver, LokiSink]]:
    async with receiving(lambda _: Reply(204), None) as receiver:
        sink = LokiSink(LokiOptions(url=receiver.url, **options), "loki", "sinks.loki")
        yield receiver, sink
        await sink.close()


def event(number: int, moment: float, kind: str = "user.login", session_id: str = "", **more: object) -> Event:
    body = orjson.dumps({"cluster_name": "example.com", "code": "T1000I", "uid": f"e{number}", "user": "alice", **more})
    return Event(kind, f"e{number}", moment, number, body, session_id)


def streams(receiver: Receiver) -> list[dict[str, Any]]:
    return [stream for request in receiver.requests for stream in orjson.loads(request.body)["streams"]]


async def test_streams_have_few_labels_and_lines_in_the_order_of_their_times() -> None:
    batch = [event(1, 20.5), event(2, 10.123456), event(3, 15.0, "session.start")]
    async with loki(labels={"env": "test"}) as (receiver, sink):
        assert await verdict(sink, batch) == Delivered()
    logins, starts = sorted(streams(receiver), key=lambda stream: -len(stream["values"]))
    assert logins["stream"] == {"env": "test", "job": "teleport", "event": "user.login", "cluster": "example.com"}
    assert starts["stream"]["event"] == "session.start"
    assert [value[0] for value in logins["values"]] == ["10123456000", "20500000000"]
    assert logins["values"][0][1].encode() == batch[1].body
    assert logins["values"][0][2] == {"uid": "e2", "code": "T1000I", "user": "alice"}


async def test_recorded_events_have_a_job_of_their_own_and_name_their_session() -> None:
    async with loki() as (receiver, sink):
        await verdict(sink, [event(1, 1.0, "print", "5f0c")])
    (stream,) = streams(receiver)
    assert stream["stream"]["job"] == "teleport-session"
    assert stream["values"][0][2]["session_id"] == "5f0c"
    assert orjson.loads(stream["values"][0][1])["teleport_session_id"] == "5f0c"


async def test_an_older_loki_gets_neither_metadata_nor_a_label_that_was_not_wanted() -> None:
    async with loki(structured_metadata=False, label_event=False) as (receiver, sink):
        await verdict(sink, [event(1, 1.0), event(2, 2.0, "session.start")])
    (stream,) = streams(receiver)
    assert "event" not in stream["stream"]
    assert [len(value) for value in stream["values"]] == [2, 2]


async def test_tenant_and_token_are_sent() -> None:
    async with loki(tenant="security", bearer="a-token") as (receiver, sink):
        await verdict(sink)
    assert receiver.requests[0].headers["x-scope-orgid"] == "security"
    assert receiver.requests[0].headers["authorization"] == "Bearer a-token"


@pytest.mark.parametrize(
    ("status", "text", "kind", "words"),
    [
        (400, "entry for stream '{}' has timestamp too old: 2020", Reject, "too old"),
        (400, "entry too far behind, entry timestamp is", Reject, "too far behind"),
        (400, "max entry size 262144 bytes exceeded", Reject, "max entry size"),
        (400, "stream '{}' has label name with 1025 chars", Reject, "label name"),
        (400, "Ingestion rate limit exceeded for user x", Retry, "rate limit"),
        (429, "Ingestion rate limit exceeded", Retry, "rate limit"),
        (429, "Maximum active stream limit exceeded", Retry, "stream limit"),
        (401, "no org id", Denied, "sinks.loki.tenant"),
        (400, "no org id", Denied, "sinks.loki.tenant"),
        (400, "structured metadata is disallowed by tenant", Denied, "structured-metadata = false"),
        (500, "", Retry, "500"),
    ],
)
async def test_the_text_of_an_answer_tells_whom_it_is_about(
    status: int, text: str, kind: type[Verdict], words: str
) -> None:
    async with loki(compression="none") as (receiver, sink):
        receiver.script.append(answer(status, text.encode()))
        said = await verdict(sink)
    assert type(said) is kind
    assert not isinstance(said, Delivered)
    assert words in getattr(said, "reason", "")


@pytest.mark.parametrize("labels", [{"uid": "x"}, {"user": "x"}, {"a-b": "x"}, {"": "x"}])
def test_labels_that_would_make_a_stream_of_each_event_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(SinkError, match=r"sinks\.loki\.labels has"):
        LokiSink(LokiOptions(url="http://loki:3100", labels=labels), "loki", "sinks.loki")


def test_the_largest_line_is_the_sinks_limit() -> None:
    assert LokiSink(LokiOptions(url="http://loki:3100"), "l", "s").limits.event_bytes == LINE_BYTES
    assert len(events(1, size=LINE_BYTES)[0].body) > LINE_BYTES
