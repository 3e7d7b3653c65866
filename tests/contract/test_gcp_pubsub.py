"""What is Pub/Sub's own: messages with attributes and ordering keys, ids in the answer, and its errors.

The receivers are a contract server that answers as Google documents it, and Google's own emulator where it is
installed.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Reject, Retry, Verdict
from event_handler.sinks.gcp_pubsub import GcpPubsubOptions, GcpPubsubSink
from tests.contract.deliveries import events, verdict
from tests.contract.pubsub_emulator import PROJECT, VARIABLE, Emulator, emulator_jar, running_emulator
from tests.contract.receiver import Receiver, Reply, Request, answer, receiving
from tests.contract.token_server import TokenServer

LARGEST = 10_000_000  # bytes of a request
RECORDED = Event("print", "a", 1_790_000_000.5, 1, b'{"uid":"a"}', "5f0c")


def error(status: int, name: str, message: str) -> Reply:
    return Reply(status, orjson.dumps({"error": {"code": status, "message": message, "status": name}}))


@dataclass(slots=True)
class PubSub:
    """A project with the topic `teleport`."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    permitted: bool = True

    def __call__(self, request: Request) -> Reply:
        if request.target != "/v1/projects/project/topics/teleport:publish":
            return error(404, "NOT_FOUND", "Resource not found (resource=other).")
        if not self.permitted:
            return error(403, "PERMISSION_DENIED", "User not authorized to perform this action.")
        got = orjson.loads(request.body)["messages"]
        if len(request.body) > LARGEST or len(got) > 1000:
            return error(400, "INVALID_ARGUMENT", "The request exceeds the maximum allowed size.")
        for one in got:
            named = one.get("attributes", {})
            assert len(named) <= 100
            assert all(len(value.encode()) <= 1024 for value in named.values())
        self.messages += got
        return Reply(200, orjson.dumps({"messageIds": [str(number) for number in range(len(got))]}))


@asynccontextmanager
async def topic(api: PubSub, **given_: Any) -> AsyncIterator[tuple[Receiver, TokenServer, GcpPubsubSink]]:
    google = TokenServer(api, "/computeMetadata")
    with pytest.MonkeyPatch.context() as patch:
        async with receiving(google, None) as receiver:
            patch.setenv("GCE_METADATA_HOST", f"localhost:{receiver.port}")
            patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
            options = {"url": receiver.url, "project_id": "project", "topic": "teleport", **given_}
            sink = GcpPubsubSink(GcpPubsubOptions.model_validate(options), "pubsub", "sinks.pubsub")
            yield receiver, google, sink
            await sink.reopen()
            await sink.close()


async def test_a_message_is_the_event_with_what_subscribers_filter_by() -> None:
    api = PubSub()
    async with topic(api, ordering=True) as (_, google, sink):
        assert await verdict(sink, [RECORDED]) == Delivered()
        assert await verdict(sink, [Event("user.login", "u", 1_790_000_000.0, 0, b'{"uid":"u"}')]) == Delivered()
        assert sink.limits.ordered
    recorded, audit = api.messages
    assert orjson.loads(b64decode(recorded["data"])) == {"teleport_session_id": "5f0c", "uid": "a"}
    assert recorded["orderingKey"] == "5f0c"
    assert recorded["attributes"] == {
        "event": "print",
        "uid": "a",
        "time": "2026-09-21T14:13:20.500000Z",
        "teleport_session_id": "5f0c",
    }
    assert b64decode(audit["data"]) == b'{"uid":"u"}'
    assert "orderingKey" not in audit
    assert google.asked[0].target.endswith("scopes=https://www.googleapis.com/auth/pubsub")


async def test_without_ordering_and_attributes_a_message_is_the_event_alone() -> None:
    api = PubSub()
    async with topic(api, attributes=False) as (_, _, sink):
        assert await verdict(sink, [RECORDED]) == Delivered()
        assert not sink.limits.ordered
    assert list(api.messages[0]) == ["data"]


async def test_a_full_batch_and_the_largest_event_are_taken() -> None:
    api = PubSub()
    async with topic(api) as (_, _, sink):
        limits = sink.limits
        size = limits.bytes // limits.events - 30
        assert await verdict(sink, events(limits.events, size=size)) == Delivered()
        assert await verdict(sink, events(1, size=limits.event_bytes - 50)) == Delivered()
    assert len(api.messages) == 1001


@pytest.mark.parametrize(
    ("given_", "api", "status", "named"),
    [
        ({"topic": "other"}, PubSub(), 404, "sinks.pubsub.project-id and sinks.pubsub.topic"),
        ({}, PubSub(permitted=False), 403, "roles/pubsub.publisher"),
    ],
)
async def test_what_is_about_the_settings_is_denied_by_name(
    given_: dict[str, str], api: PubSub, status: int, named: str
) -> None:
    async with topic(api, **given_) as (_, _, sink):
        said = await verdict(sink)
    assert isinstance(said, Denied)
    assert f"answered {status}" in said.reason
    assert named in said.reason


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (429, "RESOURCE_EXHAUSTED", Retry),
        (499, "CANCELLED", Denied),
        (500, "INTERNAL", Retry),
        (503, "UNAVAILABLE", Retry),
        (504, "DEADLINE_EXCEEDED", Retry),
        (400, "INVALID_ARGUMENT", Reject),
        (400, "FAILED_PRECONDITION", Reject),
    ],
)
async def test_each_documented_error_has_its_verdict(status: int, name: str, kind: type[Verdict]) -> None:
    async with topic(PubSub()) as (receiver, _, sink):
        assert await verdict(sink) == Delivered()
        receiver.script.append(answer(status, error(status, name, "said by the test").body))
        assert type(await verdict(sink)) is kind


@pytest.mark.parametrize("body", [b"", b"{}", b'{"messageIds":[]}', b'{"messageIds":["1","2"]}', b"[]", b"<html>"])
async def test_a_success_without_an_id_for_each_message_is_none(body: bytes) -> None:
    async with topic(PubSub()) as (receiver, _, sink):
        assert await verdict(sink) == Delivered()
        receiver.script.append(answer(200, body))
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "check sinks.pubsub.url" in said.reason


async def test_a_token_that_has_ended_is_renewed() -> None:
    async with topic(PubSub()) as (_, google, sink):
        assert await verdict(sink) == Delivered()
        google.good.clear()
        assert await verdict(sink) == Delivered()
        assert len(google.asked) == 2


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"topic": "projects/p/topics/t"}, r"sinks\.pubsub\.topic is none"),
        ({"topic": "ab"}, r"sinks\.pubsub\.topic is none"),
        ({"topic": "goog-topic"}, r"sinks\.pubsub\.topic is none"),
        ({"project_id": "../x"}, r"sinks\.pubsub\.project-id is none"),
        ({"emulator": True}, r"sinks\.pubsub\.emulator is set without sinks\.pubsub\.url"),
    ],
)
def test_options_that_cannot_be_used_are_refused(given_: dict[str, Any], words: str) -> None:
    options = {"project_id": "project", "topic": "teleport", **given_}
    with pytest.raises(SinkError, match=words):
        GcpPubsubSink(GcpPubsubOptions.model_validate(options), "pubsub", "sinks.pubsub")


@settings(max_examples=60, deadline=None)
@given(
    kind=st.text(max_size=2000),
    uid=st.text(max_size=2000),
    text=st.text(),
    time=st.floats(allow_nan=False),
    session=st.text(max_size=64),
)
def test_whatever_an_event_holds_makes_a_message(kind: str, uid: str, text: str, time: float, session: str) -> None:
    sink = GcpPubsubSink(
        GcpPubsubOptions(
            project_id="project", topic="teleport", emulator=True, url="http://localhost:1", ordering=True
        ),
        "pubsub",
        "sinks.pubsub",
    )
    made = orjson.loads(sink._message(Event(kind, uid, time, 0, orjson.dumps({"text": text}), session)))
    assert orjson.loads(b64decode(made["data"]))["text"] == text
    assert all(0 < len(value.encode()) <= 1024 for value in made["attributes"].values())
    assert made.get("orderingKey", "") == session


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    jar = emulator_jar()
    if jar is None:
        pytest.skip(f"no emulator of Pub/Sub: install google-cloud-cli-pubsub-emulator, or set {VARIABLE} to its jar")
    with running_emulator(jar, tmp_path_factory.mktemp("pubsub")) as running:
        yield running


@asynccontextmanager
async def emulated(emulator: Emulator, topic_id: str, **given_: Any) -> AsyncIterator[GcpPubsubSink]:
    options = GcpPubsubOptions(url=emulator.url, emulator=True, project_id=PROJECT, topic=topic_id, **given_)
    sink = GcpPubsubSink(options, "pubsub", "sinks.pubsub")
    yield sink
    await sink.close()


async def test_the_emulator_hands_out_what_was_published_in_order(emulator: Emulator) -> None:
    emulator.make("in-order")
    async with emulated(emulator, "in-order", ordering=True) as sink:
        assert await verdict(sink, events(1000, session_id="5f0c", size=500)) == Delivered()
        assert await verdict(sink, events(500, first=1000, session_id="5f0c")) == Delivered()
        assert await verdict(sink, events(3, first=1500)) == Delivered()
    got = emulator.pull("in-order")
    recorded = [one.body["uid"] for one in got if one.key == "5f0c"]
    assert recorded == [f"e{number}" for number in range(1500)]
    assert sorted(one.body["uid"] for one in got if not one.key) == ["e1500", "e1501", "e1502"]
    assert {one.attributes["event"] for one in got} == {"print"}


async def test_the_emulator_says_what_is_wrong_as_google_does(emulator: Emulator) -> None:
    async with emulated(emulator, "no-such-topic") as sink:
        missing = await verdict(sink)
    assert isinstance(missing, Denied)
    assert "404 NOT_FOUND: Topic not found; check sinks.pubsub.project-id and sinks.pubsub.topic" in missing.reason


async def test_the_emulator_takes_packed_bodies_too(emulator: Emulator) -> None:
    emulator.make("packed")
    async with emulated(emulator, "packed", compression="gzip") as sink:
        said = await verdict(sink)
        assert sink._client._packs, "a receiver that refused them would be sent plain ones from then on"
    assert said == Delivered()
    assert len(emulator.pull("packed")) == 3
