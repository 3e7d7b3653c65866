"""The sinks of AWS against moto, which checks their signatures, and signatures against those of AWS's own library."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from time import time
from typing import Any

import orjson
import pytest
from yarl import URL

from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Retry
from event_handler.sinks.aws_cloudwatch import AwsCloudwatchOptions, AwsCloudwatchSink
from event_handler.sinks.aws_firehose import AwsFirehoseOptions, AwsFirehoseSink
from event_handler.sinks.aws_kinesis import AwsKinesisOptions, AwsKinesisSink
from event_handler.sinks.aws_signing import AwsCredentials, signed
from event_handler.sinks.aws_sqs import AwsSqsOptions, AwsSqsSink
from tests.contract.deliveries import events, verdict
from tests.contract.moto_server import PYTHON, REGION, Moto, no_moto, running

pytestmark = pytest.mark.skipif(bool(no_moto()), reason=no_moto())

DAY = 24 * 3600.0
BOTOCORE = """
import json, sys
from botocore.auth import SigV4Auth, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
import botocore.auth, datetime
from unittest import mock
found = []
for case in json.load(sys.stdin):
    request = AWSRequest(case["method"], case["url"], headers=case["headers"], data=case["body"].encode())
    signer = (S3SigV4Auth if case["service"] == "s3" else SigV4Auth)
    signer = signer(Credentials("AKIDEXAMPLE", "secret", case["token"] or None), case["service"], "eu-central-1")
    moment = datetime.datetime(2026, 11, 27, 10, 20, 30, tzinfo=datetime.timezone.utc)
    names = [name for name in ("get_current_datetime",) if hasattr(botocore.auth, name)]
    assert names, "botocore has another clock"
    with mock.patch.object(botocore.auth, names[0], lambda *_, **__: moment.replace(tzinfo=None)):
        signer.add_auth(request)
    found.append(request.headers["Authorization"])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with running(tmp_path_factory.mktemp("moto")) as server:
        yield server


def now(count: int, session_id: str = "", age: float = 0.0) -> list[Event]:
    """Events of these seconds: CloudWatch Logs looks at their time."""
    at = time() - age
    return [Event(e.type, e.id, at + n / 1000, e.index, e.body, session_id) for n, e in enumerate(events(count))]


async def test_records_are_in_the_stream(moto: Moto) -> None:
    moto.ask("kinesis", "CreateStream", StreamName="audit", ShardCount=1)
    sink = AwsKinesisSink(AwsKinesisOptions(stream="audit", **moto.options()), "kinesis", "sinks.kinesis")
    assert await verdict(sink, events(500)) == Delivered()
    assert await verdict(sink, events(2, 500, session_id="s1")) == Delivered()
    await sink.close()
    found = await moto.asked(
        "kinesis",
        "GetShardIterator",
        StreamName="audit",
        ShardId="shardId-000000000000",
        ShardIteratorType="TRIM_HORIZON",
    )
    records = (await moto.asked("kinesis", "GetRecords", ShardIterator=found["ShardIterator"]))["Records"]
    assert [orjson.loads(b64decode(one["Data"]))["uid"] for one in records] == [f"e{n}" for n in range(502)]
    assert [one["PartitionKey"] for one in records[-3:]] == ["e499", "s1", "s1"]


async def test_a_stream_that_is_not_there_is_named(moto: Moto) -> None:
    sink = AwsKinesisSink(AwsKinesisOptions(stream="absent", **moto.options()), "kinesis", "sinks.kinesis")
    said = await verdict(sink)
    await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "ResourceNotFoundException" in said.reason
    assert "check sinks.kinesis.stream and sinks.kinesis.region" in said.reason


async def test_a_wrong_secret_is_told_by_its_signature(moto: Moto) -> None:
    given = {**moto.options(), "secret_access_key": "another-secret"}
    sink = AwsKinesisSink(AwsKinesisOptions(stream="audit", **given), "kinesis", "sinks.kinesis")
    said = await verdict(sink)
    await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "sinks.kinesis.access-key-id" in said.reason


async def test_an_assumed_role_signs(moto: Moto) -> None:
    version = "2010-05-08"
    trust = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}'
    )
    moto.query("iam", "CreateRole", version, RoleName="writer", AssumeRolePolicyDocument=trust)
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sqs:*","Resource":"*"}]}'
    moto.query("iam", "PutRolePolicy", version, RoleName="writer", PolicyName="p", PolicyDocument=policy)
    queue = moto.ask("sqs", "CreateQueue", QueueName="by-role")["QueueUrl"]
    options = AwsSqsOptions(queue_url=queue, role_arn="arn:aws:iam::123456789012:role/writer", **moto.options())
    sink = AwsSqsSink(options, "sqs", "sinks.sqs")
    assert await verdict(sink, events(3)) == Delivered()
    await sink.close()


async def test_lines_are_behind_the_firehose(moto: Moto) -> None:
    moto.make_bucket("archive")
    place = {"RoleARN": "arn:aws:iam::123456789012:role/firehose", "BucketARN": "arn:aws:s3:::archive"}
    moto.ask("firehose", "CreateDeliveryStream", DeliveryStreamName="audit", ExtendedS3DestinationConfiguration=place)
    sink = AwsFirehoseSink(AwsFirehoseOptions(stream="audit", **moto.options()), "firehose", "sinks.firehose")
    assert await verdict(sink, events(500)) == Delivered()
    await sink.close()
    keys = _elements(moto.send("s3", "GET", "/archive", b"", {}), b"Key")
    content = b"".join(moto.send("s3", "GET", f"/archive/{key.decode()}", b"", {}) for key in keys)
    assert [orjson.loads(line)["uid"] for line in content.splitlines()] == [f"e{n}" for n in range(500)]


async def test_messages_are_in_the_queue_once(moto: Moto) -> None:
    queue = moto.ask("sqs", "CreateQueue", QueueName="audit.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    sink = AwsSqsSink(AwsSqsOptions(queue_url=queue, **moto.options()), "sqs", "sinks.sqs")
    assert await verdict(sink, events(10)) == Delivered()
    assert await verdict(sink, events(10)) == Delivered()
    await sink.close()
    found: list[dict[str, Any]] = []
    while messages := (
        await moto.asked("sqs", "ReceiveMessage", QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"])
    ).get("Messages"):
        found += messages
    assert [orjson.loads(one["Body"])["uid"] for one in found] == [f"e{n}" for n in range(10)]
    assert {one["Attributes"]["MessageGroupId"] for one in found} == {"audit"}


async def test_log_events_are_in_a_stream_that_was_made_and_old_ones_are_refused(moto: Moto) -> None:
    options = AwsCloudwatchOptions(log_group="teleport", create_group=True, **moto.options())
    sink = AwsCloudwatchSink(options, "cloudwatch", "sinks.cloudwatch")
    assert await verdict(sink, now(5, session_id="s1")) == Delivered()
    said = await verdict(sink, [*now(1), *now(3, age=30 * DAY)])
    assert isinstance(said, Partial)
    refused = dict(said.rejected)
    for place in said.retry:  # what was left open is plain when it comes alone
        alone = await verdict(sink, now(3, age=30 * DAY)[place - 1 : place])
        assert isinstance(alone, Partial)
        refused[place] = alone.rejected[0]
    await sink.close()
    assert sorted(refused) == [1, 2, 3]
    assert {"CloudWatch Logs refused the event: it is more than 14 days old, or older than the log group"} == {
        *refused.values()
    }
    where = {"logGroupName": "teleport", "logStreamName": "teleport"}
    kept = (await moto.asked("logs", "GetLogEvents", startFromHead=True, **where))["events"]
    assert [orjson.loads(one["message"])["uid"] for one in kept[:5]] == [f"e{n}" for n in range(5)]
    assert orjson.loads(kept[0]["message"])["teleport_session_id"] == "s1"


def test_signatures_are_those_of_botocore() -> None:
    bulk = "https://search.eu-central-1.es.amazonaws.com/logs-teleport.audit-default/_bulk"
    cases: list[dict[str, Any]] = [
        {"service": "es", "url": f"{bulk}?filter_path=errors%2Citems.%2A.status", "body": "{}\n"},
        {"service": "aoss", "url": f"{bulk}?a=b%20c%2Bd", "body": "{}\n"},
        {"service": "kinesis", "url": "https://kinesis.eu-central-1.amazonaws.com/", "body": "{}"},
        {"service": "s3", "url": "https://b.s3.amazonaws.com/dt%3D2026-11-27/a%20b%2Bc//d.gz", "body": "x"},
        {"service": "s3", "url": "https://b.s3.amazonaws.com/k?partNumber=1&uploadId=a%2Fb", "body": "x"},
    ]
    moment, found = datetime(2026, 11, 27, 10, 20, 30, tzinfo=UTC), []
    for number, case in enumerate(cases):
        headers = {"Content-Type": "application/json", "X-Amz-Target": "Kinesis_20131202.PutRecords"}
        token = "the-token" if number % 2 else ""
        url = URL(case["url"].replace("%2C", ",").replace("%2A", "*"), encoded=True)  # as we send it
        credentials = AwsCredentials("AKIDEXAMPLE", "secret", token)
        made = signed(credentials, REGION, case["service"], moment, "POST", url, case["body"].encode(), headers)
        found.append(made.pop("Authorization"))
        kept = headers | {k: v for k, v in made.items() if k == "X-Amz-Content-Sha256"}
        case |= {"method": "POST", "headers": kept, "token": token}
    run = subprocess.run([PYTHON, "-c", BOTOCORE], input=json.dumps(cases).encode(), capture_output=True, check=True)
    assert found == json.loads(run.stdout)


def _elements(text: bytes, name: bytes) -> list[bytes]:
    return [part.partition(b"<")[0] for part in text.split(b"<%b>" % name)[1:]]
