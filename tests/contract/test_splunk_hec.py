"""What is Splunk's own: envelopes, codes, and acknowledgement by the indexers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Partial, Reject, Retry, Split, Verdict
from event_handler.sinks.http import Answer
from event_handler.sinks.splunk_hec import SplunkHecOptions, SplunkHecSink, judge_hec
from tests.contract.deliveries import events, verdict
from tests.contract.receiver import Receiver, Reply, Request, answer, receiving

TOKEN = "0e1c2b3a-0000-4000-8000-00000000hec1"


class Indexers:
    """Gives each request a number, and says what is acknowledged."""

    def __init__(self) -> None:
        self.number = -1
        self.acknowledged: set[int] = set()
        self.asked: list[list[int]] = []

    def __call__(self, request: Request) -> Reply:
        if request.target.startswith("/services/collector/ack"):
            numbers = orjson.loads(request.body)["acks"]
            self.asked.append(numbers)
            return Reply(200, orjson.dumps({"acks": {str(n): n in self.acknowledged for n in numbers}}))
        self.number += 1
        return Reply(200, orjson.dumps({"text": "Success", "code": 0, "ackId": self.number}))


@asynccontextmanager
async def collector(indexers: Indexers, **options: Any) -> AsyncIterator[tuple[Receiver, SplunkHecSink]]:
    async with receiving(indexers, None) as receiver:
        given = {"token": TOKEN, "compression": "none", **options}
        sink = SplunkHecSink(SplunkHecOptions(url=receiver.url, **given), "splunk", "sinks.splunk", poll_every=0.02)
        yield receiver, sink
        await sink.close()


def objects(request: Request) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in request.body.splitlines()]


async def test_each_event_has_an_envelope_with_its_own_time() -> None:
    async with collector(Indexers(), index="security", host="teleport.example.com") as (receiver, sink):
        await verdict(sink, [Event("user.login", "u", 1_790_000_000.5, 0, b'{"uid":"u"}')])
    (request,) = receiver.requests
    assert request.target == "/services/collector/event"
    assert request.headers["authorization"] == f"Splunk {TOKEN}"
    assert objects(request) == [
        {
            "time": 1_790_000_000.5,
            "host": "teleport.example.com",
            "source": "teleport",
            "sourcetype": "teleport:audit",
            "index": "security",
            "event": {"uid": "u"},
        }
    ]
    assert b'"time":1790000000.500,' in request.body


async def test_recorded_events_have_a_source_type_of_their_own_and_their_session() -> None:
    async with collector(Indexers()) as (receiver, sink):
        await verdict(sink, events(2, session_id="5f0c"))
    found = objects(receiver.requests[0])
    assert {one["sourcetype"] for one in found} == {"teleport:session"}
    assert [one["fields"] for one in found] == [{"teleport_session_id": "5f0c"}] * 2


def code(number: int, status: int = 400, **more: object) -> Answer:
    return Answer(status, "", orjson.dumps({"text": "scripted", "code": number, **more}), True)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (code(0, 200), Delivered),
        (code(1, 403), Denied),
        (code(4, 403), Denied),
        (code(6), Reject),
        (code(7), Denied),
        (code(8, 500), Retry),
        (code(9, 503), Retry),
        (code(10), Denied),
        (code(12), Reject),
        (code(14), Denied),
        (code(23, 503), Retry),
        (code(27, 413), Split),
        (code(99, 400), Reject),
        (Answer(503, "", b"a load balancer's page", True), Retry),
    ],
)
def test_each_code_has_its_verdict(said: Answer, kind: type[Verdict]) -> None:
    assert type(judge_hec(said, 3)) is kind


def test_of_a_batch_with_a_bad_event_those_before_it_are_taken_and_those_behind_it_sent_again() -> None:
    said = judge_hec(code(6, **{"invalid-event-number": 1}), 4)
    assert isinstance(said, Partial)
    assert said.retry == {2, 3}
    assert list(said.rejected) == [1]
    assert isinstance(judge_hec(code(6, **{"invalid-event-number": 9}), 4), Reject)


async def test_events_count_as_delivered_when_the_indexers_have_them() -> None:
    indexers = Indexers()
    async with collector(indexers, acknowledge=True) as (receiver, sink):
        first, second = (asyncio.create_task(sink.deliver(events(1, first=number))) for number in (0, 1))
        while len(indexers.asked) < 3 or indexers.number < 1:
            await asyncio.sleep(0.01)
        assert not first.done()
        assert not second.done()
        indexers.acknowledged = {0, 1}
        assert {await first, await second} == {Delivered()}
    assert {0, 1} in [set(asked) for asked in indexers.asked]  # one question for both
    channels = {request.headers["x-splunk-request-channel"] for request in receiver.requests}
    assert len(channels) == 1


async def test_what_is_not_acknowledged_in_time_is_sent_again() -> None:
    async with collector(Indexers(), acknowledge=True, acknowledge_timeout=2.0) as (_, sink):
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.unanswered
    assert "did not acknowledge events within 2 s" in said.reason


async def test_a_number_that_is_given_again_frees_who_waited_for_it() -> None:
    indexers = Indexers()
    async with collector(indexers, acknowledge=True) as (_, sink):
        first = asyncio.create_task(sink.deliver(events(1)))
        while not indexers.asked:
            await asyncio.sleep(0.01)
        indexers.number = -1  # started again
        second = asyncio.create_task(sink.deliver(events(1, first=1)))
        said = await first
        assert isinstance(said, Retry)
        assert "started again" in said.reason
        indexers.acknowledged = {0}
        assert await second == Delivered()


async def test_a_token_without_acknowledgement_is_a_setting_to_correct() -> None:
    async with collector(Indexers(), acknowledge=True) as (receiver, sink):
        receiver.script.append(answer(200, b'{"text":"Success","code":0}'))
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "acknowledge = false" in said.reason


async def test_a_token_that_is_replaced_in_its_file_is_used_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    async with collector(Indexers(), token="", token_file=str(file)) as (receiver, sink):
        await verdict(sink)
        file.write_text("the-second-token\n")
        await verdict(sink)
        file.unlink()
        assert await verdict(sink) == Delivered()
    said = [request.headers["authorization"] for request in receiver.requests]
    assert said == ["Splunk first-token", "Splunk the-second-token", "Splunk the-second-token"]


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "are missing"), ({"token": "x", "token_file": "y"}, "both set"), ({"token": "a\nb"}, "cannot hold")],
)
def test_a_token_that_cannot_be_used_is_refused_without_showing_it(given: dict[str, str], words: str) -> None:
    with pytest.raises(SinkError, match=words) as raised:
        SplunkHecSink(SplunkHecOptions(url="https://localhost:8088", **given), "splunk", "sinks.splunk")
    assert "a\nb" not in str(raised.value)
