"""The real process delivers OTLP over HTTP and gRPC through kills and refusals: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from tests.contract.http_adapters_observability import otlp_records
from tests.contract.receiver import Reply, Request, receiving
from tests.contract.test_otlp import collecting
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLE = '[sinks.otel]\ntype = "otlp"\nurl = "{url}"\nprotocol = "{protocol}"\nbearer = "a-bearer-token"\n'
KILLS = [FEW, pytest.param(MANY, marks=pytest.mark.soak)]


@pytest.mark.parametrize("kills", KILLS)
async def test_nothing_is_lost_over_http(tmp_path: Path, kills: int) -> None:
    answers = 0
    taken: set[str] = set()

    def answer(request: Request) -> Reply:
        nonlocal answers
        answers += 1
        if answers % 10 == 0:
            return Reply(503)
        taken.update(orjson.loads(record.body.string_value)["uid"] for record in otlp_records(request.body))
        return Reply(200)

    async with receiving(answer, None) as receiver:
        tables = TABLE.format(url=receiver.url, protocol="http")
        expected, log = await deliver_through_kills(tmp_path, tables, lambda: answers, kills, apart=1)
    assert taken == expected
    assert "a-bearer-token" not in log


@pytest.mark.parametrize("kills", KILLS)
async def test_nothing_is_lost_over_grpc(tmp_path: Path, kills: int) -> None:
    answers = 0

    def answer() -> ExportLogsServiceResponse:
        nonlocal answers
        answers += 1
        if answers % 10 == 0:
            raise GRPCError(Status.UNAVAILABLE, "busy")
        return ExportLogsServiceResponse()

    async with collecting(None) as (collector, _, port):
        collector.answer = answer
        tables = TABLE.format(url=f"http://127.0.0.1:{port}", protocol="grpc")
        expected, log = await deliver_through_kills(tmp_path, tables, lambda: answers, kills, apart=1)
        taken = set(collector.ids)
    assert taken == expected
    assert "a-bearer-token" not in log
