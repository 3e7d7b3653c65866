"""What is each service's own: the form of its requests, answers record by record, and what its errors mean."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Partial, Reject, Retry, Sink, Split, Verdict
from event_handler.sinks.aws_cloudwatch import (
    LOG_BYTES,
    LOG_EVENT,
    LOG_EVENTS,
    LOG_REQUEST,
    AwsCloudwatchOptions,
    AwsCloudwatchSink,
    judge_times,
    within_days,
)
from event_handler.sinks.aws_firehose import AwsFirehoseOptions, AwsFirehoseSink
from event_handler.sinks.aws_kinesis import AwsKinesisOptions, AwsKinesisSink
from event_handler.sinks.aws_sqs import SQS_BYTES, AwsSqsOptions, AwsSqsSink
from event_handler.sinks.http import TlsFiles
from tests.contract.deliveries import events, verdict
from tests.contract.http_adapters_aws import (
    QUEUE,
    firehose_answer,
    given,
    kinesis_answer,
    log_ids,
    message_ids,
    sqs_items,
)
from tests.contract.receiver import Exchange, Receiver, Reply, Request, Success, answer, receiving

AT = 1_790_000_000.0
DAY = 24 * 3600.0
ALL = {
    "kinesis": (AwsKinesisSink, AwsKinesisOptions, {"stream": "audit"}, "stream"),
    "firehose": (AwsFirehoseSink, AwsFirehoseOptions, {"stream": "audit"}, "stream"),
    "sqs": (AwsSqsSink, AwsSqsOptions, {"queue_url": QUEUE}, "queue-url"),
    "cloudwatch": (AwsCloudwatchSink, AwsCloudwatchOptions, {"log_group": "audit"}, "log-group"),
}


@asynccontextmanager
async def service(name: str, success: Success, **more: Any) -> AsyncIterator[tuple[Receiver, Sink]]:
    make, options, named, _ = ALL[name]
    async with receiving(success, None) as receiver:
        chosen: Any = options(**{**given(receiver.url, TlsFiles(), 5.0), **named, **more})
        sink: Sink = make(chosen, name, f"sinks.{name}")
        yield receiver, sink
        await sink.close()


def error(code: str, message: str = "scripted", space: str = "com.amazonaws.x#") -> bytes:
    return orjson.dumps({"__type": f"{space}{code}", "message": message})


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, error("ThrottlingException"), Retry, "ThrottlingException: scripted"),
        (400, error("ProvisionedThroughputExceededException", space=""), Retry, "Provisioned"),
        (500, error("InternalFailure"), Retry, "InternalFailure"),
        (503, error("SomethingNew"), Retry, "SomethingNew"),
        (400, error("AccessDeniedException:http://internal"), Denied, "AccessDeniedException: scripted"),
        (400, error("UnrecognizedClientException"), Denied, "access-key-id"),
        (400, error("KMSAccessDeniedException"), Denied, "policy"),
        (400, error("SomethingNew"), Denied, "SomethingNew"),
        (400, error("ValidationException"), Reject, "scripted"),
        (400, error("InvalidParameterException"), Reject, "scripted"),
        (400, error("RequestEntityTooLarge"), Split, "scripted"),
        (
            403,
            b"<?xml version='1.0'?><E><Code>SignatureDoesNotMatch</Code><Message>no</Message></E>",
            Denied,
            "no; check",
        ),
        (400, error("InvalidSignatureException", "Signature expired: it is now later"), Retry, "clock of this machine"),
    ],
)
async def test_each_error_has_its_verdict(name: str, status: int, body: bytes, kind: type[Verdict], words: str) -> None:
    async with service(name, lambda _: Reply(status, body)) as (_, sink):
        said = await verdict(sink)
    assert type(said) is kind
    assert words in said.reason  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ALL)
async def test_what_is_not_there_is_named_with_its_option(name: str) -> None:
    code = "AWS.SimpleQueueService.NonExistentQueue" if name == "sqs" else "ResourceNotFoundException"
    async with service(name, lambda _: Reply(400, error(code))) as (_, sink):
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert f"check sinks.{name}.{ALL[name][3]} and sinks.{name}.region" in said.reason


async def test_credentials_that_have_ended_are_looked_for_anew() -> None:
    async with service("kinesis", kinesis_answer) as (receiver, sink):
        receiver.script.append(answer(400, error("ExpiredTokenException")))
        assert await verdict(sink) == Delivered()
        receiver.script.extend([answer(400, error("ExpiredTokenException"))] * 2)
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert "renew the credentials of sinks.kinesis" in said.reason


async def test_requests_that_are_refused_together_renew_credentials_once(tmp_path: Path) -> None:
    options = {"access_key_id": "", "secret_access_key": "", "profile": "audit"}
    (tmp_path / "credentials").write_text("[audit]\naws_access_key_id=AKIA\naws_secret_access_key=the-secret\n")
    together = asyncio.Barrier(4)

    async def expired(exchange: Exchange) -> None:
        await exchange.read_body()
        await together.wait()
        await answer(400, error("ExpiredTokenException"))(exchange)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        async with service("kinesis", kinesis_answer, **options) as (receiver, sink):
            receiver.script.extend([expired] * 4)
            said = await asyncio.gather(*(sink.deliver(events(1)) for _ in range(4)))
            assert said == [Delivered()] * 4
            assert isinstance(sink, AwsKinesisSink)
            assert sink._service._client.access.number == 2


async def test_a_key_that_was_taken_away_is_replaced_as_soon_as_there_is_another(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[audit]\naws_access_key_id=AKIAOLD\naws_secret_access_key=the-secret\n")
    login = {"access_key_id": "", "secret_access_key": "", "profile": "audit"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        async with service("kinesis", kinesis_answer, **login) as (receiver, sink):
            receiver.script.append(answer(400, error("UnrecognizedClientException")))
            assert isinstance(await verdict(sink), Denied)
            file.write_text("[audit]\naws_access_key_id=AKIANEW\naws_secret_access_key=the-secret\n")
            assert await verdict(sink) == Delivered()
    keys = [request.headers["authorization"].partition("Credential=")[2][:7] for request in receiver.requests]
    assert keys == ["AKIAOLD", "AKIANEW"]


def of(name: str, places: Mapping[int, str], count: int) -> bytes:
    done, records = ("SequenceNumber", "Records") if name == "kinesis" else ("RecordId", "RequestResponses")
    found = [{"ErrorCode": places[n], "ErrorMessage": f"at {n}"} if n in places else {done: "1"} for n in range(count)]
    return orjson.dumps({records: found})


@pytest.mark.parametrize("name", ["kinesis", "firehose"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({1: "ProvisionedThroughputExceededException"}, {1}),
        ({0: "InternalFailure", 2: "ServiceUnavailableException"}, {0, 2}),
        ({2: "", 1: "KMSDisabledException"}, {1, 2}),
    ],
)
async def test_only_the_records_that_failed_are_sent_again(name: str, body: dict[int, str], expected: set[int]) -> None:
    async with service(name, lambda _: Reply(200, of(name, body, 3))) as (_, sink):
        said = await verdict(sink, events(3))
    assert isinstance(said, Partial)
    assert said.retry == expected
    assert not said.rejected
    assert said.misconfigured is ("KMSDisabledException" in body.values())
    assert f"{len(body)} of 3 records were not taken" in said.reason


@pytest.mark.parametrize("name", ["kinesis", "firehose"])
async def test_when_all_records_fail_nothing_is_delivered(name: str) -> None:
    failing = of(name, dict.fromkeys(range(3), "InternalFailure"), 3)
    async with service(name, lambda _: Reply(200, failing)) as (_, sink):
        assert await verdict(sink, events(3)) == Retry("3 of 3 records were not taken: InternalFailure at 0")


@pytest.mark.parametrize("name", ["kinesis", "firehose", "sqs"])
@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"Records":[{}],"RequestResponses":7}', b"<html>", b'{"Failed":[3]}'])
async def test_an_answer_that_does_not_name_every_event_proves_nothing(name: str, body: bytes) -> None:
    async with service(name, lambda _: Reply(200, body)) as (_, sink):
        said = await verdict(sink, events(3))
    assert isinstance(said, Retry)
    assert said.misconfigured


async def test_records_of_a_session_share_a_key() -> None:
    async with service("kinesis", kinesis_answer, stream="arn:aws:kinesis:x:1:stream/audit") as (receiver, sink):
        await verdict(sink, events(2))
        await verdict(sink, events(2, session_id="s1"))
    first, second = (orjson.loads(request.body) for request in receiver.requests)
    assert first["StreamARN"] == "arn:aws:kinesis:x:1:stream/audit"
    assert [one["PartitionKey"] for one in first["Records"]] == ["e0", "e1"]
    assert [one["PartitionKey"] for one in second["Records"]] == ["s1", "s1"]
    assert orjson.loads(b64decode(second["Records"][0]["Data"]))["teleport_session_id"] == "s1"
    assert receiver.requests[0].headers["x-amz-target"] == "Kinesis_20131202.PutRecords"
    assert receiver.requests[0].headers["content-type"] == "application/x-amz-json-1.1"


async def test_records_of_a_firehose_are_lines() -> None:
    async with service("firehose", firehose_answer) as (receiver, sink):
        await verdict(sink, events(1))
    (record,) = orjson.loads(receiver.requests[0].body)["Records"]
    assert b64decode(record["Data"]) == events(1)[0].body + b"\n"


async def test_messages_of_a_standard_queue_have_no_group() -> None:
    async with service("sqs", lambda request: sqs_items(request, {})) as (receiver, sink):
        await verdict(sink, events(1))
    (entry,) = orjson.loads(receiver.requests[0].body)["Entries"]
    assert set(entry) == {"Id", "MessageBody"}
    assert receiver.requests[0].headers["content-type"] == "application/x-amz-json-1.0"


async def test_messages_of_a_fifo_queue_are_in_groups_and_told_apart() -> None:
    async with service("sqs", lambda request: sqs_items(request, {}), queue_url=f"{QUEUE}.fifo") as (receiver, sink):
        assert sink.limits.ordered
        await verdict(sink, [*events(1), Event("x", 'odd "id" ' + "é" * 200, AT, 0, b"{}")])
        await verdict(sink, events(2, session_id="s1"))
    first, second = (orjson.loads(request.body)["Entries"] for request in receiver.requests)
    assert [one["MessageGroupId"] for one in (*first, *second)] == ["audit", "audit", "s1", "s1"]
    assert [one["MessageDeduplicationId"] for one in (first[0], *second)] == ["e0", "s1/0/e0", "s1/1/e1"]
    assert len(first[1]["MessageDeduplicationId"]) == 64


async def test_messages_that_the_queue_refuses_are_judged_each() -> None:
    failed = [
        {"Id": "0", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "odd"},
        {"Id": "1", "SenderFault": False, "Code": "InternalError"},
        {"Id": "2", "SenderFault": True, "Code": "KMS.AccessDeniedException", "Message": "no"},
        {"Id": "3", "SenderFault": True, "Code": "RequestThrottled"},
    ]
    body = orjson.dumps({"Successful": [{"Id": "4"}], "Failed": failed})
    async with service("sqs", lambda _: Reply(200, body)) as (_, sink):
        said = await verdict(sink, events(6))
    assert isinstance(said, Partial)
    assert said.retry == {1, 2, 3, 5}
    assert dict(said.rejected) == {0: "the queue did not take a message: InvalidMessageContents odd"}
    assert said.misconfigured


async def test_characters_that_no_message_may_have_are_written_as_json_does() -> None:
    body = '{"uid":"u","data":"\ufffe\uffff é"}'
    async with service("sqs", lambda request: sqs_items(request, {})) as (receiver, sink):
        await verdict(sink, [Event("x", "u", AT, 0, body.encode())])
    (entry,) = orjson.loads(receiver.requests[0].body)["Entries"]
    assert "\ufffe" not in entry["MessageBody"]
    assert "\uffff" not in entry["MessageBody"]
    assert orjson.loads(entry["MessageBody"]) == orjson.loads(body)


@pytest.mark.parametrize("options", [{"group": "a b", "queue_url": f"{QUEUE}.fifo"}, {"group": "audit"}])
def test_a_group_that_cannot_be_is_refused(options: dict[str, str]) -> None:
    common = given("https://localhost", TlsFiles(), 5.0)
    with pytest.raises(SinkError, match=r"sinks\.q\.group"):
        AwsSqsSink(AwsSqsOptions(**{"queue_url": QUEUE, **common, **options}), "q", "sinks.q")


def at(*seconds: float) -> list[Event]:
    return [Event("x", f"e{n}", second, n, b'{"uid":"e%d"}' % n) for n, second in enumerate(seconds)]


async def test_log_events_are_in_order_and_no_request_is_longer_than_a_day() -> None:
    async with service("cloudwatch", lambda _: Reply(200, b"{}")) as (receiver, sink):
        assert await verdict(sink, at(AT + 2 * DAY, AT + 0.0015, AT, AT + DAY, AT + DAY + 0.002)) == Delivered()
    assert [log_ids(request) for request in receiver.requests] == [["e2", "e1", "e3"], ["e4", "e0"]]
    times = [one["timestamp"] for one in orjson.loads(receiver.requests[0].body)["logEvents"]]
    assert times == [1_790_000_000_000, 1_790_000_000_002, 1_790_086_400_000]


async def test_of_several_requests_what_was_not_sent_is_sent_again() -> None:
    async with service("cloudwatch", lambda _: Reply(200, b"{}")) as (receiver, sink):
        receiver.script.extend([answer(200, b"{}"), answer(400, error("ThrottlingException"))])
        said = await verdict(sink, at(AT, AT + 2 * DAY, AT + 4 * DAY))
        assert len(receiver.requests) == 2
    assert isinstance(said, Partial)
    assert said.retry == {1, 2}
    assert "ThrottlingException" in said.reason


async def test_of_several_requests_one_that_is_refused_is_halved() -> None:
    def odd(request: Request) -> Reply:
        return Reply(400, error("InvalidParameterException")) if "e3" in log_ids(request) else Reply(200, b"{}")

    async with service("cloudwatch", odd) as (_, sink):
        said = await verdict(sink, at(AT, *(AT + 2 * DAY + n for n in range(4))))
        assert isinstance(await verdict(sink, at(*(AT + n for n in range(4)))), Reject)
    assert isinstance(said, Partial)
    assert not said.retry
    assert list(said.rejected) == [3]


@for_all(st.lists(st.integers(-5, 200).map(lambda hour: AT + hour * 3600.0), min_size=1, max_size=30))
def test_each_event_is_in_one_request_and_none_is_too_long(seconds: list[float]) -> None:
    groups = list(within_days(at(*seconds)))
    assert sorted(place for group in groups for place in group) == list(range(len(seconds)))
    ordered = [[seconds[place] for place in group] for group in groups]
    assert all(group == sorted(group) and group[-1] - group[0] <= DAY for group in ordered)
    assert [second for group in ordered for second in group] == sorted(seconds)


@pytest.mark.parametrize(
    ("info", "rejected", "retry"),
    [
        (None, [], set()),
        ({"tooOldLogEventEndIndex": 2}, [0, 1], {2}),
        ({"tooOldLogEventEndIndex": 0}, [0], set()),
        ({"expiredLogEventEndIndex": 5}, [0, 1, 2, 3, 4], set()),
        ({"tooNewLogEventStartIndex": 3}, [3, 4], set()),
        ({"tooOldLogEventEndIndex": 3, "tooNewLogEventStartIndex": 3}, [0, 1, 2, 3, 4], set()),
        ({"tooOldLogEventEndIndex": 1, "expiredLogEventEndIndex": 3}, [0, 1, 2], {3}),
    ],
)
def test_events_that_are_refused_for_their_time(info: object, rejected: list[int], retry: set[int]) -> None:
    said = judge_times(info, 5)
    if not rejected:
        assert said == Delivered()
        return
    assert isinstance(said, Partial)
    assert (sorted(said.rejected), set(said.retry)) == (rejected, retry)


class Logs:
    """CloudWatch Logs with groups and streams that are made."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.denied = ""

    def __call__(self, request: Request) -> Reply:
        action = request.headers["x-amz-target"].partition(".")[2]
        if action == self.denied:
            return Reply(400, error("AccessDeniedException"))
        if action == "PutLogEvents":
            return (
                Reply(200, b"{}") if "CreateLogStream" in self.made else Reply(400, error("ResourceNotFoundException"))
            )
        if action == "CreateLogStream" and "CreateLogGroup" not in self.made:
            return Reply(400, error("ResourceNotFoundException"))
        if action in self.made:
            return Reply(400, error("ResourceAlreadyExistsException"))
        self.made.append(action)
        return Reply(200)


async def test_group_and_stream_are_made_where_they_may_be() -> None:
    logs = Logs()
    async with service("cloudwatch", logs) as (_, sink):
        said = await verdict(sink)
        assert isinstance(said, Retry)
        assert "sinks.cloudwatch.create-group" in said.reason
        assert logs.made == []
    async with service("cloudwatch", logs, create_group=True) as (_, sink):
        assert await verdict(sink) == Delivered()
        assert logs.made == ["CreateLogGroup", "CreateLogStream"]
    logs.made.remove("CreateLogStream")
    async with service("cloudwatch", logs) as (_, sink):
        assert await verdict(sink) == Delivered()
    logs.made.remove("CreateLogStream")
    logs.denied = "CreateLogStream"
    async with service("cloudwatch", logs, create_group=True) as (_, sink):
        said = await verdict(sink)
    assert isinstance(said, Denied)
    assert "CreateLogStream is needed for sinks.cloudwatch.log-group" in said.reason


def test_requests_at_the_limits_of_the_sinks_are_within_those_of_the_services() -> None:
    session = len('"teleport_session_id":"",') + 64
    assert LOG_BYTES + LOG_EVENTS * (26 + session) <= LOG_REQUEST
    assert LOG_EVENT + 26 + session <= LOG_REQUEST
    assert SQS_BYTES + 10 * session <= 256 * 1024


@pytest.mark.parametrize("name", ALL)
def test_a_stream_or_queue_must_be_named(name: str) -> None:
    make, options, _, option = ALL[name]
    common = given("https://localhost", TlsFiles(), 5.0)
    with pytest.raises(SinkError, match=option):
        make(options(**common), name, f"sinks.{name}")


async def test_what_is_asked_of_sqs_is_taken() -> None:
    async with service("sqs", lambda request: sqs_items(request, {})) as (receiver, sink):
        assert await verdict(sink, events(10)) == Delivered()
    assert message_ids(receiver.requests[0]) == [f"e{n}" for n in range(10)]
