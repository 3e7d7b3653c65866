"""What is a webhook's own: the forms of its bodies, the ways to sign in, and headers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from event_handler.config.components import ConfiguredSink
from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Sink
from event_handler.sinks.sumologic import SumologicOptions, SumologicSink
from event_handler.sinks.webhook import WebhookOptions, WebhookSink
from tests.contract.deliveries import verdict
from tests.contract.receiver import Receiver, Reply, Request, receiving

TWO = [Event("print", uid, 0.0, 0, b'{"uid":"%s"}' % uid.encode()) for uid in ("a", "b")]
RECORDED = [Event("print", "a", 0.0, 0, b'{"uid":"a"}', "5f0c"), Event("print", "b", 0.0, 1, b"{}", "5f0c")]


@asynccontextmanager
async def hook(**options: Any) -> AsyncIterator[tuple[Receiver, Sink]]:
    async with receiving(lambda _: Reply(200), None) as receiver:
        given = WebhookOptions(**{"url": f"{receiver.url}/hook", "compression": "none", **options})
        sink = WebhookSink(given, "hook", "sinks.hook")
        yield receiver, sink
        await sink.close()


async def sent(events: list[Event], **options: Any) -> Request:
    async with hook(**options) as (receiver, sink):
        await verdict(sink, events)
    return receiver.requests[0]


@pytest.mark.parametrize(
    ("body", "content", "content_type"),
    [
        ("array", b'[{"uid":"a"},{"uid":"b"}]', "application/json"),
        ("ndjson", b'{"uid":"a"}\n{"uid":"b"}\n', "application/x-ndjson"),
    ],
)
async def test_many_events_go_out_in_the_form_that_was_chosen(body: str, content: bytes, content_type: str) -> None:
    request = await sent(TWO, body=body)
    assert (request.body, request.headers["content-type"]) == (content, content_type)


async def test_recorded_events_name_their_session_and_may_have_a_place_of_their_own() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        options = WebhookOptions(url=f"{receiver.url}/a", session_url=f"{receiver.url}/b", compression="none")
        sink = WebhookSink(options, "hook", "sinks.hook")
        await verdict(sink, RECORDED)
        await sink.close()
    (request,) = receiver.requests
    assert request.target == "/b"
    assert request.body == b'[{"teleport_session_id":"5f0c","uid":"a"},{"teleport_session_id":"5f0c"}]'


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"bearer": "a-token"}, "authorization", "Bearer a-token"),
        ({"secret_header": "X-Api-Key", "secret": "the-key"}, "x-api-key", "the-key"),
        ({"username": "alice", "password": "secret"}, "authorization", "Basic YWxpY2U6c2VjcmV0"),
        ({"headers": {"X-Tenant": "security"}}, "x-tenant", "security"),
    ],
)
async def test_each_way_to_sign_in_is_a_header(options: dict[str, Any], name: str, value: str) -> None:
    request = await sent(TWO, **options)
    assert request.headers[name] == value


async def test_a_secret_in_a_file_is_taken_up_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("before")
    async with hook(secret_header="X-Api-Key", secret_file=str(file)) as (receiver, sink):
        await verdict(sink, TWO)
        file.write_text("and-after")
        await verdict(sink, TWO)
    assert [request.headers["x-api-key"] for request in receiver.requests] == ["before", "and-after"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"bearer": "a", "username": "b", "password": "c"},
            "sinks.hook.bearer and sinks.hook.username are set together",
        ),
        ({"secret": "a"}, "secret-header is missing"),
        ({"secret_header": "two words", "secret": "a"}, "no header can have that name"),
        ({"password": "a"}, "password is set without"),
        ({"username": "a"}, "password and sinks.hook.password-file are missing"),
        ({"headers": {"Host": "x"}}, "set by the sink"),
        ({"headers": {"X-Bad": "line\nbreak"}}, "cannot be sent"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SinkError, match=words) as raised:
        WebhookSink(WebhookOptions(url="https://localhost/x", **options), "hook", "sinks.hook")
    assert "line" not in str(raised.value)


def test_no_header_is_shown_in_the_log_of_settings() -> None:
    options = WebhookOptions(url="https://localhost/x", headers={"X-Key": "hidden-value"})
    shown = ConfiguredSink("hook", "webhook", "sinks.hook", options).shown()
    assert shown["headers"] == "***"
    assert "headers" not in ConfiguredSink("hook", "webhook", "sinks.hook", WebhookOptions(url="https://x/")).shown()


async def test_sumo_logic_is_told_what_to_call_the_events() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        options = SumologicOptions(url=f"{receiver.url}/secret", category="teleport/audit", compression="none")
        sink = SumologicSink(options, "sumo", "sinks.sumo")
        await verdict(sink, TWO)
        await sink.close()
    (request,) = receiver.requests
    assert request.headers["x-sumo-category"] == "teleport/audit"
    assert "x-sumo-name" not in request.headers
    assert request.body == b'{"uid":"a"}\n{"uid":"b"}\n'
