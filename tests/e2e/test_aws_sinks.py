"""The real process delivers to the services of AWS as a role whose credentials end, through kills and refusals."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.receiver import Reply, Request, receiving
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLES = """
[sinks.{name}]
type = "aws-{name}"
{where}
url = "{url}"
sts-endpoint = "{url}/sts"
region = "eu-central-1"
access-key-id = "AKIDEXAMPLE"
secret-access-key = "hunter2-of-the-user"
role-arn = "arn:aws:iam::123456789012:role/writer"
"""
# Enough for some requests between two kills; one to SQS holds ten.
EVENTS_A_KILL, FEW_A_KILL = 3000, 300
WHERE = {
    "kinesis": 'stream = "audit"',
    "firehose": 'stream = "audit"',
    "sqs": 'queue-url = "https://sqs.eu-central-1.amazonaws.com/123456789012/audit"',
    "cloudwatch": 'log-group = "audit"',
}
GOOD_FOR = 8  # requests that the credentials of the role are taken for
DAY = 24 * 3600 * 1000  # milliseconds
SOAK = 900  # seconds for many kills; each run begins with a start of the process on a machine that may be busy


@dataclass(slots=True)
class Aws:
    """All services at one address. One answer in `fault` is a refusal that passes, and of the events one in `fault` is
    not taken.
    """

    fault: int
    answers: int = 0
    given: int = 0
    left: dict[str, int] = field(default_factory=dict)  # requests that an access key is still good for
    taken: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in WHERE})

    def __call__(self, request: Request) -> Reply:
        self.answers += 1
        if request.target == "/sts":
            return self._role()
        if self.answers % self.fault == 0:
            return Reply(400, b'{"__type":"ThrottlingException","message":"slower"}')
        key = request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        if not self.left.get(key):
            return Reply(400, b'{"__type":"ExpiredTokenException","message":"too late"}')
        self.left[key] -= 1
        service, _, _ = request.headers["x-amz-target"].partition(".")
        return getattr(self, f"_{service.partition('_')[0].lower()}")(json.loads(request.body))  # type: ignore[no-any-return]

    def _role(self) -> Reply:
        self.given += 1
        key, end = f"ASIA{self.given}", datetime.now(UTC) + timedelta(hours=1)
        self.left[key] = GOOD_FOR
        parts = f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>hunter2-of-the-role</SecretAccessKey>"
        parts += f"<SessionToken>hunter2-token</SessionToken><Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
        return Reply(200, f"<AssumeRoleResponse>{parts}</AssumeRoleResponse>".encode())

    def _some(self, name: str, ids: list[str]) -> list[bool]:
        taken = [(place + self.answers) % self.fault > 0 for place in range(len(ids))]
        self.taken[name] += [uid for uid, yes in zip(ids, taken, strict=True) if yes]
        return taken

    def _records(self, name: str, request: dict[str, list[dict[str, str]]], done: str, records: str) -> Reply:
        ids = [json.loads(b64decode(one["Data"]))["uid"] for one in request["Records"]]
        answers = [{done: "1"} if yes else {"ErrorCode": "InternalFailure"} for yes in self._some(name, ids)]
        return Reply(200, json.dumps({records: answers}).encode())

    def _kinesis(self, request: dict[str, list[dict[str, str]]]) -> Reply:
        return self._records("kinesis", request, "SequenceNumber", "Records")

    def _firehose(self, request: dict[str, list[dict[str, str]]]) -> Reply:
        return self._records("firehose", request, "RecordId", "RequestResponses")

    def _amazonsqs(self, request: dict[str, list[dict[str, str]]]) -> Reply:
        ids = [json.loads(one["MessageBody"])["uid"] for one in request["Entries"]]
        answer: dict[str, list[dict[str, object]]] = {"Successful": [], "Failed": []}
        for place, yes in enumerate(self._some("sqs", ids)):
            one = {"Id": str(place), "SenderFault": False, "Code": "InternalError"}
            answer["Successful" if yes else "Failed"].append(one)
        return Reply(200, json.dumps(answer).encode())

    def _logs(self, request: dict[str, list[dict[str, str]]]) -> Reply:
        times = [int(one["timestamp"]) for one in request["logEvents"]]
        assert times == sorted(times)
        assert times[-1] - times[0] <= DAY
        self.taken["cloudwatch"] += [json.loads(one["message"])["uid"] for one in request["logEvents"]]
        return Reply(200, b'{"nextSequenceToken":"1"}')


@pytest.mark.parametrize("name", WHERE)
@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK)])])
async def test_nothing_is_lost_while_credentials_end_and_the_process_is_killed(
    tmp_path: Path, name: str, kills: int
) -> None:
    aws = Aws(fault=40 if name == "sqs" else 7)
    events = kills * (FEW_A_KILL if name == "sqs" else EVENTS_A_KILL)
    async with receiving(aws, None) as receiver:
        tables = TABLES.format(name=name, where=WHERE[name], url=receiver.url)
        expected, log = await deliver_through_kills(
            tmp_path, tables, lambda: aws.answers, kills, events=events, apart=3
        )
    assert set(aws.taken[name]) == expected
    assert aws.given > kills
    assert "hunter2" not in log
