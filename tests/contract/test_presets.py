"""What each preset's own is: address, key, form of an event, and what its answer means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Partial, Reject, Retry
from event_handler.sinks.presets import (
    AXIOM,
    BETTERSTACK,
    GRAYLOG,
    GRAYLOG_BULK,
    HONEYCOMB,
    NEWRELIC,
    AxiomOptions,
    BetterstackOptions,
    GraylogOptions,
    HoneycombOptions,
    NewrelicOptions,
    Preset,
    PresetSink,
)
from tests.contract.deliveries import events, verdict
from tests.contract.http_adapters_presets import honeycomb_answer
from tests.contract.receiver import Receiver, Reply, Request, answer, receiving
from tests.event_samples import samples

LOGIN = {
    "cluster_name": "example.com",
    "event": "user.login",
    "id": "an-id",
    "nested": {"a": [1, None]},
    "success": False,
    "uid": "u1",
    "user": "alice",
}
EVENT = Event("user.login", "u1", 1_790_000_000.123, 0, orjson.dumps(LOGIN))
TOKEN = {"token": "a-key-of-tests"}


@asynccontextmanager
async def service(
    preset: Preset, options: Callable[..., Any], success: Callable[[Request], Reply], **more: Any
) -> AsyncIterator[tuple[Receiver, PresetSink]]:
    async with receiving(success, None) as receiver:
        sink = PresetSink(preset, options(url=receiver.url, **more), "siem", "sinks.siem")
        yield receiver, sink
        await sink.close()


def accepted(_: Request) -> Reply:
    return Reply(202)


def ingested(request: Request) -> Reply:
    return Reply(200, orjson.dumps({"ingested": len(orjson.loads(request.body)), "failed": 0}))


CASES: list[tuple[Preset, Callable[..., Any], Callable[[Request], Reply], dict[str, Any], str, str, Any]] = [
    (
        NEWRELIC, NewrelicOptions, accepted, TOKEN, "/", "api-key: a-key-of-tests",
        [{"timestamp": 1_790_000_000_123, "logtype": "teleport", "message": EVENT.body.decode()}],
    ),
    (
        AXIOM, AxiomOptions, ingested, {**TOKEN, "dataset": "audit"}, "/v1/datasets/audit/ingest",
        "authorization: Bearer a-key-of-tests", [{"_time": "2026-09-21T14:13:20.123000Z", **LOGIN}],
    ),
    (
        HONEYCOMB, HoneycombOptions, lambda request: honeycomb_answer(request, {}), TOKEN, "/1/batch/teleport",
        "x-honeycomb-team: a-key-of-tests", [{"time": "2026-09-21T14:13:20.123000Z", "data": LOGIN}],
    ),
    (
        BETTERSTACK, BetterstackOptions, accepted, TOKEN, "/", "authorization: Bearer a-key-of-tests",
        [{"dt": "2026-09-21T14:13:20.123000Z", "message": "user.login", **LOGIN}],
    ),
    (
        GRAYLOG, GraylogOptions, accepted, {**TOKEN, "key_header": "X-Key"}, "/gelf", "x-key: a-key-of-tests",
        {
            "version": "1.1", "host": "example.com", "short_message": "user.login alice",
            "full_message": EVENT.body.decode(), "timestamp": 1_790_000_000.123, "level": 4,
            "_cluster_name": "example.com", "_event": "user.login", "_teleport_id": "an-id",
            "_nested": '{"a":[1,null]}', "_success": "false", "_uid": "u1", "_user": "alice",
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "options", "success", "more", "path", "header", "body"),
    CASES,
    ids=["newrelic", "axiom", "honeycomb", "betterstack", "graylog"],
)
async def test_a_service_gets_an_event_as_it_likes_it(
    preset: Preset,
    options: Callable[..., Any],
    success: Callable[[Request], Reply],
    more: dict[str, Any],
    path: str,
    header: str,
    body: Any,
) -> None:
    async with service(preset, options, success, **more) as (receiver, sink):
        assert await verdict(sink, [EVENT]) == Delivered()
    (request,) = receiver.requests
    assert request.target == path
    name, _, value = header.partition(": ")
    assert request.headers[name] == value
    assert orjson.loads(request.body) == body


async def test_raw_events_are_as_teleport_wrote_them() -> None:
    async with service(BETTERSTACK, BetterstackOptions, accepted, **TOKEN, record="raw") as (receiver, sink):
        await verdict(sink, [EVENT])
    assert receiver.requests[0].body == b"[%b]" % EVENT.body


@pytest.mark.parametrize("preset", [NEWRELIC, AXIOM, HONEYCOMB, BETTERSTACK, GRAYLOG_BULK])
def test_an_event_of_every_type_has_a_form(preset: Preset) -> None:
    for one in samples():
        event = Event(one["event"], one["uid"], 1_790_000_000.5, 0, orjson.dumps(one), "5f0c")
        form = orjson.loads(preset.form(event, GraylogOptions(url="http://127.0.0.1:1")))
        assert "5f0c" in str(form)
        if preset is GRAYLOG_BULK:
            assert all(isinstance(value, str | int | float) for value in form.values())
            assert not any(isinstance(value, bool) for value in form.values())
            assert "_id" not in form


@pytest.mark.parametrize(
    ("region", "address"),
    [
        ("us", "https://log-api.newrelic.com/log/v1"),
        ("eu", "https://log-api.eu.newrelic.com/log/v1"),
        ("fedramp", "https://gov-log-api.newrelic.com/log/v1"),
    ],
)
def test_new_relic_has_an_address_in_each_region(region: Any, address: str) -> None:
    assert NEWRELIC.address(NewrelicOptions(region=region)) == address


@pytest.mark.parametrize("url", ["http://graylog:12201", "http://graylog:12201/", "http://graylog:12201/gelf"])
def test_the_path_of_a_graylog_input_is_added_once(url: str) -> None:
    assert GRAYLOG.address(GraylogOptions(url=url)) == "http://graylog:12201/gelf"


async def test_a_key_that_changes_is_taken_up(tmp_path: Any) -> None:
    file = tmp_path / "key"
    file.write_text("first")
    async with service(BETTERSTACK, BetterstackOptions, accepted, token_file=str(file)) as (receiver, sink):
        await verdict(sink)
        file.write_text("another\n")
        await verdict(sink)
    assert [one.headers["authorization"] for one in receiver.requests] == ["Bearer first", "Bearer another"]


async def test_graylog_may_want_no_key() -> None:
    async with service(GRAYLOG, GraylogOptions, accepted) as (receiver, sink):
        assert await verdict(sink) == Delivered()
    assert "authorization" not in receiver.requests[0].headers


async def test_a_key_that_is_not_taken_names_the_option() -> None:
    async with service(NEWRELIC, NewrelicOptions, accepted, **TOKEN) as (receiver, sink):
        receiver.script.append(answer(403, b"no"))
        said = await verdict(sink)
    assert isinstance(said, Denied)
    assert said.reason == "the receiver answered 403 no; check sinks.siem.token"


def test_a_dataset_that_is_none_is_refused() -> None:
    with pytest.raises(SinkError, match=r"sinks\.siem\.dataset is no name of a dataset"):
        PresetSink(AXIOM, AxiomOptions(token="k", dataset="../x"), "siem", "sinks.siem")


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://api.axiom.co", "https://api.axiom.co/v1/datasets/audit/ingest"),
        ("https://eu-central-1.aws.edge.axiom.co/", "https://eu-central-1.aws.edge.axiom.co/v1/ingest/audit"),
    ],
)
def test_an_edge_deployment_of_axiom_has_an_address_of_its_own_form(url: str, asked: str) -> None:
    assert AXIOM.address(AxiomOptions(token="k", dataset="audit", url=url)) == asked


async def test_events_that_axiom_refused_make_a_refusal() -> None:
    said = {"ingested": 2, "failed": 1, "failures": [{"error": "too many fields"}]}
    async with service(AXIOM, AxiomOptions, lambda _: Reply(200, orjson.dumps(said)), **TOKEN, dataset="a") as (
        _,
        sink,
    ):
        assert await verdict(sink) == Reject("the receiver refused 1 events: too many fields")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({1: 400}, Partial(frozenset(), {1: "the receiver answered 400 because of 1"})),
        ({0: 429, 2: 429}, Partial(frozenset({0, 2}), {}, "2 of 3 events were not taken: 429")),
        ({1: 400, 2: 429}, Partial(frozenset({2}), {1: "the receiver answered 400 because of 1"},
            "1 of 3 events were not taken: 429")),
        ({0: 429, 1: 429, 2: 429}, Retry("3 of 3 events were not taken: 429")),
    ],
)  # fmt: skip
async def test_honeycomb_answers_event_by_event(status: dict[int, int], expected: Any) -> None:
    answers = lambda request: honeycomb_answer(request, status)  # noqa: E731
    async with service(HONEYCOMB, HoneycombOptions, answers, **TOKEN) as (_, sink):
        assert await verdict(sink, events(3)) == expected
