"""What is a webhook's own: the forms of its bodies, the ways to sign in, and headers."""

from __future__ import annotations

import base64
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given as with_examples
from hypothesis import strategies as st

from event_handler.config.components import ConfiguredSink
from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Partial, Sink
from event_handler.sinks.panther import PantherOptions, PantherSink
from event_handler.sinks.sumologic import SumologicOptions, SumologicSink
from event_handler.sinks.webhook import MOST_URLS, Address, WebhookOptions, WebhookSink, template_parts
from tests.contract.deliveries import verdict
from tests.contract.receiver import Exchange, Receiver, Reply, Request, answer, receiving

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


def event(uid: str, **content: Any) -> Event:
    return Event("print", uid, 0.0, 0, orjson.dumps({"uid": uid, **content}))


async def test_a_template_stands_around_the_events() -> None:
    request = await sent(TWO, body="template", template='{"source": "t", "records": $EVENTS, "n": 1}')
    assert request.body == b'{"source": "t", "records": [{"uid":"a"},{"uid":"b"}], "n": 1}'


async def test_a_template_for_one_event_gets_one() -> None:
    async with hook(body="template", template='{"payload": $EVENT}') as (receiver, sink):
        assert sink.limits.events == 1
        await verdict(sink, TWO[:1])
    assert receiver.requests[0].body == b'{"payload": {"uid":"a"}}'


@with_examples(st.text(), st.booleans())
def test_whatever_stands_around_the_events_is_kept_or_refused(text: str, array: bool) -> None:
    template = f'{{"about": {orjson.dumps(text).decode()}, "events": {"$EVENTS" if array else "$EVENT"}}}'
    options = WebhookOptions(url="http://127.0.0.1:1", body="template", template=template)
    if "$EVENT" in text:
        with pytest.raises(SinkError, match=r"sinks\.hook\.template must have"):
            template_parts(options, "sinks.hook")
        return
    before, many, after = template_parts(options, "sinks.hook")
    assert many == array
    found = orjson.loads(before + b'[{"uid":"a"}]' + after)
    assert found == {"about": text, "events": [{"uid": "a"}]}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_the_method_is_that_which_was_chosen(method: Any) -> None:
    assert (await sent(TWO, method=method)).method == method


async def test_only_the_statuses_that_are_named_are_success() -> None:
    async with hook(success_codes=["200", "409"]) as (receiver, sink):
        receiver.script.extend([answer(200), answer(409), answer(202, b"later")])
        said = [await verdict(sink, TWO) for _ in range(3)]
    assert said[:2] == [Delivered(), Delivered()]
    assert said[2] == Denied("the receiver answered 202 later, which is not one of sinks.hook.success-codes")


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(("algorithm", "encoding"), [("sha256", "hex"), ("sha512", "base64")])
async def test_a_signature_is_of_the_body_as_it_went_out(compression: str, algorithm: Any, encoding: str) -> None:
    bodies: list[bytes] = []

    async def keep(exchange: Exchange) -> None:
        bodies.append(await exchange.reader.readexactly(int(exchange.headers["content-length"])))
        exchange.log.append(Request(exchange.target, exchange.headers, b""))
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    given = {"hmac_secret": "key é", "hmac_algorithm": algorithm, "hmac_encoding": encoding, "hmac_prefix": "v="}
    async with hook(compression=compression, hmac_header="X-Sig", **given) as (receiver, sink):
        receiver.script.append(keep)
        assert await verdict(sink, TWO) == Delivered()
    digest = hmac.new("key é".encode(), bodies[0], algorithm).digest()
    written = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    assert receiver.requests[0].headers["x-sig"] == f"v={written}"


async def test_a_signed_time_stands_before_the_body() -> None:
    request = await sent(TWO, hmac_secret="key", hmac_timestamp_header="X-Time")
    signed = request.headers["x-time"].encode() + b"." + request.body
    assert request.headers["x-signature"] == hmac.new(b"key", signed, "sha256").hexdigest()


async def test_panther_gets_a_signature_too() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        options = PantherOptions(url=f"{receiver.url}/http", compression="none", hmac_secret="key", hmac_header="X-Sig")
        sink = PantherSink(options, "panther", "sinks.panther")
        await verdict(sink, TWO)
        await sink.close()
    (request,) = receiver.requests
    assert request.headers["x-sig"] == hmac.new(b"key", request.body, "sha256").hexdigest()


async def test_every_try_of_the_same_events_has_the_same_key_and_others_have_another() -> None:
    async with hook(idempotency_header="Idempotency-Key") as (receiver, sink):
        receiver.script.append(answer(503))
        for batch in (TWO, TWO, TWO[:1]):
            await verdict(sink, batch)
    first, second, third = (request.headers["idempotency-key"] for request in receiver.requests)
    assert first == second != third


async def test_a_field_of_the_event_is_a_part_of_the_path() -> None:
    batch = [event("a", event="user.login"), event("b", event="print"), event("c", event="user.login"), event("d")]
    async with receiving(lambda _: Reply(200), None) as receiver:
        options = WebhookOptions(url=f"{receiver.url}/in/{{event}}?x=1", compression="none")
        sink = WebhookSink(options, "hook", "sinks.hook")
        assert await verdict(sink, batch) == Delivered()
        await sink.close()
    assert {request.target: request.body.count(b"uid") for request in receiver.requests} == {
        "/in/user.login?x=1": 2,
        "/in/print?x=1": 1,
        "/in/none?x=1": 1,
    }


@with_examples(st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.none(), st.lists(st.text())))
def test_a_field_never_leads_to_another_place(value: Any) -> None:
    options = WebhookOptions(url="https://host.example.com/in/{event}/end?x=1")
    address = Address(options, options.url, "sinks.hook.url")
    (url,) = address.groups([event("a", event=value)])
    assert (url.scheme, url.raw_host, url.raw_query_string) == ("https", "host.example.com", "x=1")
    parts = url.raw_path.split("/")
    assert len(parts) == 4
    assert parts[1] == "in"
    assert parts[3] == "end"
    assert not {"", ".", ".."} & set(parts[2:3])


async def test_what_failed_at_one_address_comes_again_and_the_rest_does_not() -> None:
    batch = [event("a", event="one"), event("b", event="two"), event("c", event="three")]
    async with receiving(lambda _: Reply(200), None) as receiver:
        sink = WebhookSink(WebhookOptions(url=f"{receiver.url}/{{event}}"), "hook", "sinks.hook")
        receiver.script.extend([answer(200), answer(503)])
        said = await verdict(sink, batch)
        await sink.close()
    assert said == Partial(frozenset({1, 2}), {}, "the receiver answered 503")


async def test_a_batch_of_very_many_addresses_is_taken_in_turns() -> None:
    batch = [event(str(number), event=str(number)) for number in range(MOST_URLS + 5)]
    async with receiving(lambda _: Reply(200), None) as receiver:
        sink = WebhookSink(WebhookOptions(url=f"{receiver.url}/{{event}}"), "hook", "sinks.hook")
        said = await verdict(sink, batch)
        await sink.close()
    assert isinstance(said, Partial)
    assert said.retry == frozenset(range(MOST_URLS, MOST_URLS + 5))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"body": "template"}, "template"),
        ({"body": "template", "template": "$EVENTS $EVENTS"}, "template"),
        ({"body": "template", "template": '{"a": $EVENTS'}, "template"),
        ({"template": "$EVENTS"}, "template"),
        ({"url": "https://{event}/x"}, "url"),
        ({"url": "https://host/x?y={event}"}, "url"),
        ({"idempotency_header": "a b"}, "idempotency-header"),
        ({"hmac_header": "a b"}, "hmac-header"),
        ({"hmac_prefix": "é"}, "hmac-prefix"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SinkError, match=rf"sinks\.hook\.{named} "):
        WebhookSink(WebhookOptions(**{"url": "https://host/", **options}), "hook", "sinks.hook")
