"""The real process delivers straight to receivers over HTTP, all from one reading, through kills and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.receiver import Reply, Request, receiving
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLES = """
[sinks.splunk]
type = "splunk-hec"
url = "{url}"
token-file = "{directory}/token"
acknowledge = true
acknowledge-timeout = "5s"

[sinks.plain]
type = "splunk-hec"
url = "{url}"
host = "not-acknowledged"
token-file = "{directory}/token"

[sinks.datadog]
type = "datadog"
url = "{url}/api/v2/logs"
api-key = "0123456789abcdef"

[sinks.panther]
type = "panther"
url = "{url}/panther"
bearer = "a-bearer-token"
"""


EVENTS = {FEW: 4_000, MANY: 40_000}  # four sinks have an answer each before a kill
SOAK = 900  # seconds


class Receivers:
    """All of them at one address. Every tenth answer is a refusal; half of what Splunk takes is acknowledged late."""

    def __init__(self) -> None:
        self.answers = self.number = 0
        self.taken: dict[str, list[str]] = {"splunk": [], "plain": [], "datadog": [], "panther": []}
        self.waiting: dict[int, list[str]] = {}  # taken by Splunk and not acknowledged
        self.asked: dict[int, int] = {}

    def __call__(self, request: Request) -> Reply:
        self.answers += 1
        if self.answers % 10 == 0:
            return Reply(503)
        if request.target.startswith("/services/collector/ack"):
            return self.acknowledged(json.loads(request.body)["acks"])
        if request.target == "/services/collector/event":
            lines = [json.loads(line) for line in request.body.splitlines()]
            ids = [line["event"]["uid"] for line in lines]
            if lines[0].get("host"):  # which the sink has that asks for no acknowledgements
                self.taken["plain"] += ids
                return Reply(200, json.dumps({"code": 0, "text": "Success"}).encode())
            self.number += 1
            self.waiting[self.number] = ids
            return Reply(200, json.dumps({"code": 0, "text": "Success", "ackId": self.number}).encode())
        name = "panther" if request.target == "/panther" else "datadog"
        events = request.body.splitlines() if name == "panther" else [json.dumps(e) for e in json.loads(request.body)]
        self.taken[name] += [json.loads(event)["uid"] for event in events]
        return Reply(202)

    def acknowledged(self, numbers: list[int]) -> Reply:
        said = {}
        for number in numbers:
            self.asked[number] = self.asked.get(number, 0) + 1
            said[str(number)] = number in self.waiting and self.asked[number] > number % 2
            if said[str(number)]:
                self.taken["splunk"] += self.waiting.pop(number)
        return Reply(200, json.dumps({"acks": said}).encode())


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK)])])
async def test_nothing_is_lost_on_the_way_to_any_of_them(tmp_path: Path, kills: int) -> None:
    receivers = Receivers()
    (tmp_path / "token").write_text("0e1c2b3a-0000-4000-8000-00000000hec1\n")
    async with receiving(receivers, None) as receiver:
        tables = TABLES.format(url=receiver.url, directory=tmp_path)
        expected, log = await deliver_through_kills(
            tmp_path, tables, lambda: receivers.answers, kills, events=EVENTS[kills]
        )
    for name, ids in receivers.taken.items():
        assert set(ids) == expected, name
    assert "00000000hec1" not in log
    assert "0123456789abcdef" not in log
    assert "a-bearer-token" not in log
