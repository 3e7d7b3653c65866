"""What is Datadog's own: reserved attributes, its limits, and what a refused key means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from event_handler.event import Event
from event_handler.ports import Denied
from event_handler.sinks.datadog import EVENT_BYTES, DatadogOptions, DatadogSink
from tests.contract.deliveries import verdict
from tests.contract.receiver import Receiver, Reply, answer, receiving


@asynccontextmanager
async def intake(**options: Any) -> AsyncIterator[tuple[Receiver, DatadogSink]]:
    async with receiving(lambda _: Reply(202, b"{}"), None) as receiver:
        given = {"api_key": "0123456789abcdef", "compression": "none", **options}
        sink = DatadogSink(DatadogOptions(url=f"{receiver.url}/api/v2/logs", **given), "datadog", "sinks.datadog")
        yield receiver, sink
        await sink.close()


async def test_an_event_has_the_reserved_attributes_beside_its_own() -> None:
    body = b'{"event":"user.login","success":false,"uid":"u"}'
    async with intake(tags=("env:production", "team:security"), hostname="teleport") as (receiver, sink):
        await verdict(sink, [Event("user.login", "u", 1_790_000_000.5, 0, body)])
    (request,) = receiver.requests
    assert request.headers["dd-api-key"] == "0123456789abcdef"
    assert orjson.loads(request.body) == [
        {
            "ddsource": "teleport",
            "service": "teleport",
            "hostname": "teleport",
            "ddtags": "env:production,team:security",
            "status": "error",
            "timestamp": 1_790_000_000_500,
            "event": "user.login",
            "success": False,
            "uid": "u",
        }
    ]


async def test_what_is_not_a_failure_is_of_status_info_and_a_recording_names_its_session() -> None:
    async with intake() as (receiver, sink):
        await verdict(sink, [Event("print", "e", 0.0, 0, b"{}", "5f0c")])
    (document,) = orjson.loads(receiver.requests[0].body)
    assert (document["status"], document["teleport_session_id"]) == ("info", "5f0c")


def test_an_event_that_datadog_would_cut_off_is_over_the_sinks_limit() -> None:
    assert DatadogSink(DatadogOptions(api_key="k"), "datadog", "sinks.datadog").limits.event_bytes == EVENT_BYTES


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_names_the_key_and_the_site(status: int) -> None:
    async with intake() as (receiver, sink):
        receiver.script.append(answer(status))
        said = await verdict(sink)
    assert isinstance(said, Denied)
    assert "sinks.datadog.api-key" in said.reason
    assert "sinks.datadog.site" in said.reason
