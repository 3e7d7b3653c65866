"""How the sinks of AWS are built, and how the services that speak JSON talk."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import orjson

from event_handler.ports import Sink
from event_handler.sinks.aws_cloudwatch import AwsCloudwatchOptions, AwsCloudwatchSink
from event_handler.sinks.aws_firehose import AwsFirehoseOptions, AwsFirehoseSink
from event_handler.sinks.aws_kinesis import AwsKinesisOptions, AwsKinesisSink
from event_handler.sinks.aws_sqs import AwsSqsOptions, AwsSqsSink
from event_handler.sinks.http import TlsFiles
from event_handler.sinks.s3 import S3Options, S3Sink
from tests.contract.http_adapter import HttpAdapter
from tests.contract.receiver import Reply, Request

QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/teleport"


def given(url: str, files: TlsFiles, timeout: float) -> dict[str, Any]:
    """The options that are the same for all services."""
    return {
        "url": f"{url}/",
        "region": "eu-central-1",
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "ca": files.ca,
        "cert": files.cert,
        "key": files.key,
        "timeout": timeout,
    }


def _kinesis(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = AwsKinesisOptions(stream="teleport", **given(url, files, timeout))
    return AwsKinesisSink(options, "kinesis", "sinks.kinesis", keepalive=keepalive)


def _firehose(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = AwsFirehoseOptions(stream="teleport", **given(url, files, timeout))
    return AwsFirehoseSink(options, "firehose", "sinks.firehose", keepalive=keepalive)


def _sqs(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = AwsSqsOptions(queue_url=QUEUE, **given(url, files, timeout))
    return AwsSqsSink(options, "sqs", "sinks.sqs", keepalive=keepalive)


def _cloudwatch(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = AwsCloudwatchOptions(log_group="teleport", **given(url, files, timeout))
    return AwsCloudwatchSink(options, "cloudwatch", "sinks.cloudwatch", keepalive=keepalive)


def _s3(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = S3Options(bucket="audit", compression="none", max_connections=8, **given(url, files, timeout))
    return S3Sink(options, "s3", "sinks.s3", keepalive=keepalive)


def s3_ids(request: Request) -> list[str]:
    return [orjson.loads(line)["uid"] for line in request.body.splitlines()]


def record_ids(request: Request) -> list[str]:
    return [orjson.loads(b64decode(one["Data"]))["uid"] for one in orjson.loads(request.body)["Records"]]


def message_ids(request: Request) -> list[str]:
    return [orjson.loads(one["MessageBody"])["uid"] for one in orjson.loads(request.body)["Entries"]]


def log_ids(request: Request) -> list[str]:
    return [orjson.loads(one["message"])["uid"] for one in orjson.loads(request.body)["logEvents"]]


def kinesis_answer(request: Request) -> Reply:
    records = [{"SequenceNumber": "4", "ShardId": "shardId-000000000000"} for _ in record_ids(request)]
    return Reply(200, orjson.dumps({"FailedRecordCount": 0, "Records": records}))


def firehose_answer(request: Request) -> Reply:
    records = [{"RecordId": "r"} for _ in record_ids(request)]
    return Reply(200, orjson.dumps({"Encrypted": False, "FailedPutCount": 0, "RequestResponses": records}))


def sqs_items(request: Request, statuses: Mapping[int, int]) -> Reply:
    places = range(len(message_ids(request)))
    taken = [{"Id": str(place), "MessageId": "m", "MD5OfMessageBody": "d"} for place in places if place not in statuses]
    failed = [
        {"Id": str(place), "SenderFault": status == 400, "Code": f"E{status}", "Message": f"because of {place}"}
        for place, status in statuses.items()
    ]
    return Reply(200, orjson.dumps({"Successful": taken, "Failed": failed}))


AWS_ADAPTERS = [
    HttpAdapter("s3", _s3, s3_ids, lambda _: Reply(200), False, "sinks.s3"),
    HttpAdapter("aws-kinesis", _kinesis, record_ids, kinesis_answer, True, "sinks.kinesis"),
    HttpAdapter("aws-firehose", _firehose, record_ids, firehose_answer, True, "sinks.firehose"),
    HttpAdapter("aws-sqs", _sqs, message_ids, lambda request: sqs_items(request, {}), True, "sinks.sqs", sqs_items),
    HttpAdapter(
        "aws-cloudwatch",
        _cloudwatch,
        log_ids,
        lambda _: Reply(200, b'{"nextSequenceToken":"4"}'),
        True,
        "sinks.cloudwatch",
    ),
]
