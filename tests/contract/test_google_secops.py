"""What is Google SecOps' own: raw logs in two interfaces, their paths, scopes and errors.

The contract server answers as Google documents both.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Reject, Retry, Verdict
from event_handler.sinks.google_secops import ChronicleApi, GoogleSecopsOptions, GoogleSecopsSink, IngestionApi
from tests.contract.deliveries import events, verdict
from tests.contract.receiver import Receiver, Reply, Request, answer, receiving
from tests.contract.token_server import TokenServer

INSTANCE = "0f0f0f0f-0000-4000-8000-00000000000c"
PARENT = f"projects/project/locations/eu/instances/{INSTANCE}"
MEGABYTE = 1_000_000
RECORDED = Event("print", "a", 1_790_000_000.5, 1, b'{"uid":"a","text":"\\"quoted\\" \xe6\x97\xa5"}', "5f0c")


def error(status: int, name: str, message: str) -> Reply:
    return Reply(status, orjson.dumps({"error": {"code": status, "message": message, "status": name}}))


@dataclass(slots=True)
class SecOps:
    """Both interfaces of one instance; `logs` is what it has taken, as (text, time)."""

    logs: list[tuple[bytes, str]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        if len(request.body) > MEGABYTE:
            return error(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit.")
        said = orjson.loads(request.body)
        self.requests.append(said)
        if request.target == "/v2/unstructuredlogentries:batchCreate":
            if said["customer_id"] != INSTANCE:
                return error(403, "PERMISSION_DENIED", "customer ID does not match the credentials")
            self.logs += [(entry["log_text"].encode(), entry["ts_rfc3339"]) for entry in said["entries"]]
            return Reply(200, b"{}")
        if not request.target.startswith(f"/v1alpha/{PARENT}/logTypes/"):
            return error(404, "NOT_FOUND", "Requested entity was not found.")
        if not request.target.endswith("/TELEPORT_ACCESS_PLANE/logs:import"):
            return error(400, "INVALID_ARGUMENT", "invalid log type")
        logs = said["inlineSource"]["logs"]
        assert all(log["collectionTime"] == log["logEntryTime"] for log in logs)
        self.logs += [(b64decode(log["data"]), log["logEntryTime"]) for log in logs]
        return Reply(200, b"{}")


@asynccontextmanager
async def secops(api: SecOps, /, **given_: Any) -> AsyncIterator[tuple[Receiver, TokenServer, GoogleSecopsSink]]:
    google = TokenServer(api, "/computeMetadata")
    with pytest.MonkeyPatch.context() as patch:
        async with receiving(google, None) as receiver:
            patch.setenv("GCE_METADATA_HOST", f"localhost:{receiver.port}")
            patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
            options = {
                "url": receiver.url,
                "instance_id": INSTANCE,
                "project_id": "project",
                "region": "eu",
                "compression": "none",
                **given_,
            }
            sink = GoogleSecopsSink(GoogleSecopsOptions.model_validate(options), "secops", "sinks.secops")
            yield receiver, google, sink
            await sink.reopen()
            await sink.close()


@pytest.mark.parametrize(
    ("api", "scope"), [("chronicle", "auth/cloud-platform"), ("ingestion", "auth/malachite-ingestion")]
)
async def test_logs_are_the_events_with_their_session_and_time(api: str, scope: str) -> None:
    instance = SecOps()
    async with secops(instance, api=api) as (_, google, sink):
        assert await verdict(sink, [RECORDED]) == Delivered()
        assert await verdict(sink, [Event("user.login", "u", 1_790_000_000.0, 0, b'{"uid":"u"}')]) == Delivered()
    assert instance.logs == [
        (b'{"teleport_session_id":"5f0c",' + RECORDED.body[1:], "2026-09-21T14:13:20.500000Z"),
        (b'{"uid":"u"}', "2026-09-21T14:13:20.000000Z"),
    ]
    (asked,) = google.asked
    assert asked.target.endswith(f"scopes=https://www.googleapis.com/{scope}")


async def test_forwarder_namespace_and_labels_go_where_each_interface_wants_them() -> None:
    instance = SecOps()
    names = {"forwarder": "f-1", "namespace": "prod", "labels": {"env": "production"}}
    for api in ("chronicle", "ingestion"):
        async with secops(instance, api=api, **names) as (_, _, sink):
            assert await verdict(sink, events(1)) == Delivered()
    new, old = instance.requests
    assert new["inlineSource"]["forwarder"] == f"{PARENT}/forwarders/f-1"
    (log,) = new["inlineSource"]["logs"]
    assert log["environmentNamespace"] == "prod"
    assert log["labels"] == {"env": {"value": "production"}}
    assert {key: old[key] for key in ("customer_id", "log_type", "namespace", "labels")} == {
        "customer_id": INSTANCE,
        "log_type": "TELEPORT_ACCESS_PLANE",
        "namespace": "prod",
        "labels": [{"key": "env", "value": "production"}],
    }


@pytest.mark.parametrize("api", ["chronicle", "ingestion"])
async def test_a_full_batch_is_below_a_megabyte(api: str) -> None:
    instance = SecOps()
    async with secops(instance, api=api) as (_, _, sink):
        size = sink.limits.bytes // sink.limits.events - 30
        assert await verdict(sink, events(sink.limits.events, size=size)) == Delivered()
        assert await verdict(sink, events(1, size=sink.limits.event_bytes - 50)) == Delivered()


@pytest.mark.parametrize(
    ("given_", "status", "named"),
    [
        ({"log_type": "TELEPORT"}, 400, "instance-id and log-type"),
        ({"region": "us"}, 404, "sinks.secops.url, project-id, region"),
        ({"api": "ingestion", "instance_id": "another"}, 403, "sinks.secops.instance-id"),
    ],
)
async def test_what_is_about_the_settings_is_denied_by_name(given_: dict[str, str], status: int, named: str) -> None:
    async with secops(SecOps(), **given_) as (_, _, sink):
        said = await verdict(sink)
    assert isinstance(said, Denied)
    assert f"answered {status}" in said.reason
    assert named in said.reason


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (429, "RESOURCE_EXHAUSTED", Retry),
        (500, "INTERNAL", Retry),
        (503, "UNAVAILABLE", Retry),
        (504, "DEADLINE_EXCEEDED", Retry),
        (400, "INVALID_ARGUMENT", Reject),
        (403, "PERMISSION_DENIED", Denied),
    ],
)
async def test_each_documented_error_has_its_verdict(status: int, name: str, kind: type[Verdict]) -> None:
    async with secops(SecOps()) as (receiver, _, sink):
        assert await verdict(sink) == Delivered()
        receiver.script.append(answer(status, error(status, name, "said by the test").body, Retry_After="300"))
        said = await verdict(sink)
    assert type(said) is kind
    assert name in getattr(said, "reason", "")
    if isinstance(said, Retry):
        assert said.after == 300.0


async def test_a_token_that_has_ended_is_renewed() -> None:
    async with secops(SecOps()) as (_, google, sink):
        assert await verdict(sink) == Delivered()
        google.good.clear()
        assert await verdict(sink) == Delivered()
        assert len(google.asked) == 2


@pytest.mark.parametrize(
    ("given_", "address"),
    [
        ({}, "https://chronicle.us.rep.googleapis.com/v1alpha/projects/p/locations/us/instances/i"),
        ({"region": "eu", "api_version": "v1"}, "https://chronicle.eu.rep.googleapis.com/v1/projects/p/locations/eu/"),
        ({"api": "ingestion"}, "https://malachiteingestion-pa.googleapis.com/v2/unstructuredlogentries:batchCreate"),
        ({"api": "ingestion", "region": "europe"}, "https://europe-malachiteingestion-pa.googleapis.com/v2/"),
    ],
)
async def test_each_region_has_an_address_of_its_own(given_: dict[str, str], address: str) -> None:
    options = GoogleSecopsOptions.model_validate({"instance_id": "i", "project_id": "p", **given_})
    sink = GoogleSecopsSink(options, "secops", "sinks.secops")
    assert str(sink._api.url).startswith(address)
    await sink.close()


@pytest.mark.parametrize("option", ["instance_id", "project_id", "region", "log_type", "forwarder"])
def test_a_name_that_would_be_another_path_is_refused(option: str) -> None:
    options = {"instance_id": "i", "project_id": "p", option: "a/../b"}
    with pytest.raises(SinkError, match=rf"sinks\.secops\.{option.replace('_', '-')} is missing"):
        GoogleSecopsSink(GoogleSecopsOptions.model_validate(options), "secops", "sinks.secops")


@settings(max_examples=60, deadline=None)
@given(text=st.text(), label=st.text(), time=st.floats(allow_nan=False))
def test_whatever_an_event_holds_arrives_as_it_was(text: str, label: str, time: float) -> None:
    options = GoogleSecopsOptions(instance_id="i", project_id="p", labels={"l": label})
    event = Event("t", "u", time, 0, orjson.dumps({"text": text}))
    base = URL("https://x/")
    new = orjson.loads(ChronicleApi(options, base).body([event]))["inlineSource"]["logs"][0]
    old = orjson.loads(IngestionApi(options, base).body([event]))["entries"][0]
    assert b64decode(new["data"]) == event.body == old["log_text"].encode()
    assert len(new["logEntryTime"]) == len("2026-09-21T14:13:20.500000Z")
