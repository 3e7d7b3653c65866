"""What is Sentinel's own: rows of a table, a data collection rule, tokens of Entra ID, and the errors of the API.

The contract server answers as Microsoft documents the Logs Ingestion API, by the rule in docs/sinks/sentinel.json.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.pipeline.oversize import FittingSink
from event_handler.ports import Delivered, Denied, Partial, Reject, Retry, Sink, Split
from event_handler.sinks.sentinel import SentinelOptions, SentinelSink, row
from tests.contract.deliveries import events, verdict
from tests.contract.receiver import Receiver, Reply, Request, answer, receiving
from tests.contract.token_server import TokenServer, form_of

TEMPLATE = orjson.loads((Path(__file__).parents[2] / "docs" / "sinks" / "sentinel.json").read_bytes())
TENANT, RULE, STREAM = "tenant.example.com", "dcr-0f0f0f0f0f0f4000800000000000000c", "Custom-TeleportAudit_CL"
MEGABYTE = 1_048_576
JSON_TYPES: dict[str, tuple[type, ...]] = {"datetime": (str,), "string": (str,), "boolean": (bool,), "dynamic": (dict,)}


def resource(kind: str) -> Any:
    (found,) = (one["properties"] for one in TEMPLATE["resources"] if one["type"].endswith(f"/{kind}"))
    return found


COLUMNS = {one["name"]: one["type"] for one in resource("dataCollectionRules")["streamDeclarations"][STREAM]["columns"]}


def error(status: int, code: str, message: str) -> Reply:
    return Reply(status, orjson.dumps({"error": {"code": code, "message": message}}))


@dataclass(slots=True)
class Ingestion:
    """The Logs Ingestion API: one rule with one stream, and a table."""

    table: list[dict[str, Any]] = field(default_factory=list)
    permitted: bool = True

    def __call__(self, request: Request) -> Reply:
        target = urlsplit(request.target)
        _, rules, rule, streams, stream = target.path.split("/")
        assert (rules, streams) == ("dataCollectionRules", "streams")
        if parse_qs(target.query) != {"api-version": ["2023-01-01"]}:
            return error(400, "InvalidApiVersion", "The api version is not supported.")
        if rule != RULE:
            return error(404, "NotFound", f"Data collection rule with immutable Id '{rule}' not found.")
        if not self.permitted:
            return error(
                403, "OperationFailed", "The authentication token provided does not have access to ingest data"
            )
        if stream != STREAM:
            return error(400, "InvalidStream", f"Stream '{stream}' was not configured.")
        if len(request.body) > MEGABYTE:
            return error(413, "ContentLengthLimitExceeded", "Maximum allowed content length: 1048576 bytes (1 MB).")
        rows = orjson.loads(request.body)
        if not isinstance(rows, list):
            return error(400, "InvalidPayload", "The body is not an array.")
        for one in rows:
            assert set(one) == set(COLUMNS)
            for name, value in one.items():
                assert value is None or isinstance(value, JSON_TYPES[COLUMNS[name]]), name
        self.table += rows
        return Reply(204)


def checked(_: Request, form: Any) -> str:
    if form["scope"] != "https://monitor.azure.com/.default":
        return "invalid_scope"
    return "" if form["client_secret"] == "a-client-secret" else "invalid_client"


@asynccontextmanager
async def workspace(api: Ingestion, **given: Any) -> AsyncIterator[tuple[Receiver, TokenServer, SentinelSink]]:
    entra = TokenServer(api, f"/{TENANT}/oauth2/v2.0/token", checked)
    async with receiving(entra, None) as receiver:
        options = {
            "url": receiver.url,
            "authority": receiver.url,
            "tenant_id": TENANT,
            "client_id": "the-app",
            "client_secret": "a-client-secret",
            "dcr_immutable_id": RULE,
            **given,
        }
        sink = SentinelSink(SentinelOptions.model_validate(options), "sentinel", "sinks.sentinel")
        yield receiver, entra, sink
        await sink.reopen()
        await sink.close()


BODY = {
    "uid": "u1",
    "event": "user.login",
    "code": "T1000I",
    "user": "alice",
    "cluster_name": "example",
    "success": True,
    "sid": "s1",
}


async def test_an_event_becomes_a_row_with_the_event_itself() -> None:
    api = Ingestion()
    async with workspace(api) as (_, _, sink):
        assert await verdict(sink, [Event("user.login", "u1", 1_790_000_000.125, 0, orjson.dumps(BODY))]) == Delivered()
    assert api.table == [
        {
            "TimeGenerated": "2026-09-21T14:13:20.125000Z",
            "EventTime": "2026-09-21T14:13:20.125000Z",
            "EventType": "user.login",
            "Code": "T1000I",
            "UID": "u1",
            "User": "alice",
            "Cluster": "example",
            "SessionId": "s1",
            "Success": True,
            "Event": BODY,
        }
    ]


async def test_a_recorded_event_names_its_session_in_the_column_and_in_the_event() -> None:
    api = Ingestion()
    async with workspace(api) as (_, _, sink):
        assert await verdict(sink, events(1, session_id="5f0c")) == Delivered()
    assert api.table[0]["SessionId"] == "5f0c"
    assert api.table[0]["Event"]["teleport_session_id"] == "5f0c"
    assert api.table[0]["Code"] is None


async def test_the_token_is_for_azure_monitor_and_packed_bodies_are_taken() -> None:
    api = Ingestion()
    async with workspace(api) as (receiver, entra, sink):
        assert [await verdict(sink, events(200, first=n)) for n in (0, 200)] == [Delivered()] * 2
        sent = [one for one in receiver.requests if one.target.startswith("/dataCollectionRules")]
    assert form_of(entra.asked[0])["scope"] == "https://monitor.azure.com/.default"
    assert len(entra.asked) == 1
    assert {one.headers["content-encoding"] for one in sent} == {"gzip"}
    assert len(api.table) == 400


async def test_a_full_batch_is_below_a_megabyte_with_its_columns() -> None:
    api = Ingestion()
    async with workspace(api) as (_, _, sink):
        limits = sink.limits
        size = limits.bytes // limits.events - 30
        assert await verdict(sink, events(limits.events, size=size)) == Delivered()
    assert len(api.table) == limits.events


@pytest.mark.parametrize(
    ("given_", "api", "status", "named"),
    [
        ({"dcr_immutable_id": "dcr-other"}, Ingestion(), 404, "sinks.sentinel.dcr-immutable-id"),
        ({"stream": "Custom-Other_CL"}, Ingestion(), 400, "check sinks.sentinel.stream"),
        ({}, Ingestion(permitted=False), 403, "Monitoring Metrics Publisher"),
    ],
)
async def test_what_is_about_the_settings_is_denied_by_name(
    given_: dict[str, str], api: Ingestion, status: int, named: str
) -> None:
    async with workspace(api, compression="none", **given_) as (_, _, sink):
        said = await verdict(sink)
    assert isinstance(said, Denied)
    assert said.misconfigured
    assert f"answered {status}" in said.reason
    assert named in said.reason


async def test_a_token_for_another_cloud_is_denied_after_one_renewal() -> None:
    async with workspace(Ingestion()) as (receiver, entra, sink):
        assert await verdict(sink) == Delivered()
        receiver.script.extend([answer(401, b'{"error":{"code":"InvalidAudience"}}'), receiver._succeed])
        receiver.script.append(answer(401, b'{"error":{"code":"InvalidAudience"}}'))
        said = await verdict(sink)
        assert len(entra.asked) == 2
    assert isinstance(said, Denied)
    assert "check sinks.sentinel.cloud" in said.reason


async def test_a_token_that_has_ended_is_renewed_without_a_word() -> None:
    api = Ingestion()
    async with workspace(api) as (_, entra, sink):
        assert await verdict(sink, events(1)) == Delivered()
        entra.good.clear()
        assert await verdict(sink, events(1, first=1)) == Delivered()
    assert [one["UID"] for one in api.table] == ["e0", "e1"]


async def test_an_application_with_a_wrong_secret_sends_nothing() -> None:
    api = Ingestion()
    async with workspace(api, client_secret="another-secret") as (receiver, _, sink):
        said = await verdict(sink)
        assert [one.target for one in receiver.requests] == [f"/{TENANT}/oauth2/v2.0/token"]
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "check sinks.sentinel.client-secret" in said.reason
    assert "another-secret" not in said.reason


async def test_throttling_is_waited_for_and_too_much_is_split() -> None:
    async with workspace(Ingestion(), compression="none") as (receiver, _, sink):
        assert await verdict(sink) == Delivered()
        receiver.script.append(answer(429, b'{"error":{"code":"TooManyRequests"}}', Retry_After="9"))
        throttled = await verdict(sink)
        too_large = await verdict(sink, events(2, size=600_000))
        receiver.script.append(answer(400, b'{"error":{"code":"InvalidPayload"}}'))
        rejected = await verdict(sink)
    assert isinstance(throttled, Retry)
    assert (throttled.after, throttled.misconfigured) == (9.0, False)
    assert isinstance(too_large, Split)
    assert isinstance(rejected, Reject)


@pytest.mark.parametrize(("policy", "kind"), [("dead-letter", Partial), ("truncate", Delivered), ("split", Delivered)])
async def test_an_event_that_a_column_cannot_hold_goes_by_the_policy(policy: Any, kind: type) -> None:
    api = Ingestion()
    async with workspace(api) as (_, _, sink):
        fitting: Sink = FittingSink(sink, sink.limits.event_bytes, policy)
        said = await verdict(fitting, [*events(1), *events(1, first=1, size=100_000)])
    assert type(said) is kind
    assert all(len(orjson.dumps(one["Event"])) <= 64 * 1024 for one in api.table)
    assert len(api.table) == {"dead-letter": 1, "truncate": 2, "split": 3}[policy]


async def test_an_empty_array_is_taken_as_a_probe() -> None:
    """As the page has it, to see whether address, rule, stream and permission are right without a row."""
    api = Ingestion()
    assert api(Request(f"/dataCollectionRules/{RULE}/streams/{STREAM}?api-version=2023-01-01", {}, b"[]")).status == 204


def test_the_template_makes_the_table_of_the_rule_that_the_sink_fills() -> None:
    table = resource("tables")["schema"]
    assert {one["name"]: one["type"] for one in table["columns"]} == COLUMNS
    rule = resource("dataCollectionRules")
    assert list(row(Event("t", "u", 0.0, 0, b"{}"))) == list(COLUMNS)
    assert list(rule["streamDeclarations"]) == [SentinelOptions.model_fields["stream"].default]
    assert rule["dataFlows"][0]["outputStream"] == f"Custom-{table['name']}"
    assert set(TEMPLATE["outputs"]) == {"url", "dcrImmutableId"}


JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner))


@settings(max_examples=60, deadline=None)
@given(
    content=st.dictionaries(
        st.sampled_from(["code", "user", "cluster_name", "sid", "success", "uid", "other"]), JSON, max_size=7
    ),
    time=st.floats(allow_nan=False),
    session=st.sampled_from(["", "5f0c"]),
)
def test_any_event_makes_a_row_of_the_right_types(content: dict[str, Any], time: float, session: str) -> None:
    made = row(Event("t", "u", time, 0, orjson.dumps(content), session))
    for name, value in orjson.loads(orjson.dumps(made, option=orjson.OPT_UTC_Z)).items():
        assert value is None or isinstance(value, JSON_TYPES[COLUMNS[name]]), name
    assert made["TimeGenerated"].tzinfo is UTC
    assert isinstance(made["EventTime"], datetime)


def test_an_event_that_is_nested_too_deep_to_be_read_is_sent_all_the_same() -> None:
    body = b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"
    made = row(Event("t", "u", 0.0, 0, body, "5f0c"))
    assert (made["EventType"], made["SessionId"], made["User"]) == ("t", "5f0c", None)
    assert body[1:] in orjson.dumps(made)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"dcr_immutable_id": "../x"}, r"sinks\.sentinel\.dcr-immutable-id is none"),
        ({"stream": "TeleportAudit"}, r"sinks\.sentinel\.stream is none"),
        ({"url": "nonsense"}, r"sinks\.sentinel\.url is not a URL"),
    ],
)
def test_options_that_cannot_be_used_are_refused(given_: dict[str, str], words: str) -> None:
    options = {"url": "https://x.ingest.monitor.azure.com", "dcr_immutable_id": RULE, "client_secret": "x", **given_}
    with pytest.raises(SinkError, match=words):
        SentinelSink(SentinelOptions.model_validate(options), "sentinel", "sinks.sentinel")
