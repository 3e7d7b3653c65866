"""What the elasticsearch sink writes, and what it reads from the answer of the bulk API."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Partial, Reject, Retry
from event_handler.sinks.aws_signing import AwsCredentials, signed
from event_handler.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from event_handler.sinks.elasticsearch.answers import judge_items
from event_handler.sinks.elasticsearch.documents import document_id
from event_handler.sinks.http import Answer
from event_handler.sinks.packing import FAST
from tests.contract.receiver import Exchange, Receiver, Reply, Request, answer, receiving

AUDIT = "logs-teleport.audit-default"
LOGIN = Event(
    "user.login", "u-1", 1_790_000_000.25, 0, b'{"event":"user.login","uid":"u-1","user":"\xc3\xa9ve \\"x\\""}'
)
PRINT = Event("print", "hash", 1_790_000_001.0, 7, b'{"data":"bHM=","event":"print"}', "f0cd9816")


def created(request: Request) -> Reply:
    count = len(request.body.splitlines()) // 2
    return Reply(200, orjson.dumps({"errors": False, "items": [{"create": {"status": 201}}] * count}))


@pytest.fixture
async def cluster() -> AsyncIterator[Receiver]:
    async with receiving(created, None) as running:
        yield running


async def sent(
    cluster: Receiver, settings: ElasticsearchOptions, *events: Event
) -> tuple[Request, list[dict[str, Any]]]:
    sink = ElasticsearchSink(settings.model_copy(update={"url": cluster.url + settings.url}))
    assert await sink.deliver(events) == Delivered()
    await sink.close()
    request = cluster.requests[-1]
    assert request.body.endswith(b"\n")
    return request, [orjson.loads(line) for line in request.body.splitlines()]


class Index:
    """Stores documents as the bulk API's `create` does: an id that is there already is a conflict."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.conflicts = 0

    def store(self, request: Request) -> Reply:
        lines = request.body.splitlines()
        items = [
            self._create(orjson.loads(action)["create"]["_id"], document)
            for action, document in zip(lines[::2], lines[1::2], strict=True)
        ]
        return Reply(200, orjson.dumps({"items": items}))

    def _create(self, name: str, document: bytes) -> dict[str, Any]:
        if name in self.documents:
            self.conflicts += 1
            return {
                "create": {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "exists"}}
            }
        self.documents[name] = document
        return {"create": {"status": 201}}

    async def lose_answer(self, exchange: Exchange) -> None:
        self.store(await exchange.read_body())
        exchange.writer.close()


async def test_an_answer_that_gets_lost_makes_no_double() -> None:
    index = Index()
    batch = [replace(LOGIN, id=f"u-{number}") for number in range(20)]
    async with receiving(index.store, None) as cluster:
        cluster.script.append(index.lose_answer)
        sink = ElasticsearchSink(ElasticsearchOptions(url=cluster.url))
        assert isinstance(await sink.deliver(batch), Retry)
        assert await sink.deliver(batch) == Delivered()
        await sink.close()
    assert list(index.documents) == [event.id for event in batch]
    assert index.conflicts == 20


async def test_an_event_goes_as_text_into_the_data_stream_of_the_teleport_integration(cluster: Receiver) -> None:
    request, lines = await sent(cluster, ElasticsearchOptions(url=""), LOGIN)
    assert urlsplit(request.target).path == "/logs-teleport.audit-default/_bulk"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["content-encoding"] == "gzip"
    assert lines == [
        {"create": {"_id": "u-1"}},
        {"@timestamp": "2026-09-21T14:13:20.250000Z", "message": LOGIN.body.decode()},
    ]


async def test_a_plain_document_has_the_events_own_fields(cluster: Receiver) -> None:
    _, lines = await sent(cluster, ElasticsearchOptions(url="", document="plain"), LOGIN)
    assert lines[1] == {"@timestamp": "2026-09-21T14:13:20.250000Z", **orjson.loads(LOGIN.body)}


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (-62_135_596_800.0, "0001-01-01T00:00:00.000000Z"),  # Go's zero time, which an event without a time has
        (-1e15, "0001-01-01T00:00:00.000000Z"),
        (float(2**63), "9999-12-31T23:59:59.000000Z"),
    ],
)
async def test_a_time_that_no_date_can_show_does_not_hold_up_the_event(
    cluster: Receiver, seconds: float, stamp: str
) -> None:
    _, lines = await sent(cluster, ElasticsearchOptions(url="", document="plain"), replace(LOGIN, time=seconds))
    assert lines[1]["@timestamp"] == stamp


async def test_events_of_recordings_go_to_their_own_stream_and_name_their_session(cluster: Receiver) -> None:
    request, lines = await sent(cluster, ElasticsearchOptions(url="", compression="none"), PRINT)
    assert urlsplit(request.target).path == "/logs-teleport.session-default/_bulk"
    assert "content-encoding" not in request.headers
    assert lines[0] == {"create": {"_id": "f0cd9816/7/hash"}}
    assert lines[1]["teleport_session_id"] == "f0cd9816"
    assert lines[1]["message"] == PRINT.body.decode()


async def test_the_path_and_query_of_the_url_are_kept_and_the_answer_is_trimmed(cluster: Receiver) -> None:
    settings = ElasticsearchOptions(url="/search%2Fx/?pipeline=teleport", target="Audit.alias")
    request, _ = await sent(cluster, settings, LOGIN)
    parts = urlsplit(request.target)
    assert parts.path == "/search%2Fx/Audit.alias/_bulk"
    query = {
        "pipeline": ["teleport"],
        "filter_path": ["errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"],
    }
    assert parse_qs(parts.query) == query


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        (ElasticsearchOptions(url="", api_key="a2V5"), "ApiKey a2V5"),
        (ElasticsearchOptions(url="", username="elastic", password="pä:ss"), "Basic ZWxhc3RpYzpww6Q6c3M="),
        (ElasticsearchOptions(url="", username="elastic", password="€密"), "Basic ZWxhc3RpYzrigqzlr4Y="),
        (ElasticsearchOptions(url="", bearer="t.o.k"), "Bearer t.o.k"),
    ],
    ids=["api key", "basic", "basic beyond Latin-1", "bearer"],
)
async def test_each_way_to_log_in_is_sent(cluster: Receiver, settings: ElasticsearchOptions, header: str) -> None:
    request, _ = await sent(cluster, settings, LOGIN)
    assert request.headers["authorization"] == header


def test_two_ways_to_log_in_are_refused_and_no_secret_is_shown() -> None:
    settings = ElasticsearchOptions(url="https://h", api_key="hunter2", bearer="hunter3")
    with pytest.raises(SinkError, match=r"api-key and forward\.elasticsearch\.bearer") as caught:
        ElasticsearchSink(settings)
    assert "hunter" not in str(caught.value) + repr(settings)


def test_a_secret_with_a_line_break_is_refused_and_not_shown() -> None:
    with pytest.raises(SinkError, match="line break") as caught:
        ElasticsearchSink(ElasticsearchOptions(url="https://h", api_key="hunter2\n"))
    assert "hunter2" not in str(caught.value)


def plain_path_only(request: Request) -> Reply:
    """As Fluent Bit's input."""
    if urlsplit(request.target).path != "/_bulk":
        return Reply(400, b"error: invalid HTTP endpoint\n")
    return created(request)


async def test_a_receiver_that_knows_the_plain_path_only_is_sent_to_it_with_the_index_in_the_lines() -> None:
    async with receiving(plain_path_only, None) as cluster:
        sink = ElasticsearchSink(ElasticsearchOptions(url=cluster.url, compression="none"))
        first = await sink.deliver([LOGIN])
        assert isinstance(first, Reject)
        assert "not how Elasticsearch or OpenSearch answer" in first.reason
        assert await sink.deliver([LOGIN]) == Delivered()
        assert await sink.deliver([PRINT]) == Delivered()
        await sink.close()
    paths = [urlsplit(request.target).path for request in cluster.requests]
    assert paths == [f"/{AUDIT}/_bulk", f"/{AUDIT}/_bulk", "/_bulk", "/_bulk"]
    indices = [orjson.loads(request.body.splitlines()[0])["create"]["_index"] for request in cluster.requests[2:]]
    assert indices == [AUDIT, "logs-teleport.session-default"]


async def test_a_receiver_that_refuses_both_paths_is_not_believed_to_take_anything() -> None:
    async with receiving(lambda _: Reply(404, b"<html>"), None) as cluster:
        sink = ElasticsearchSink(ElasticsearchOptions(url=cluster.url, compression="none"))
        assert [type(await sink.deliver([LOGIN])) for _ in range(3)] == [Denied] * 3
        await sink.close()


async def test_the_path_with_the_target_is_kept_once_it_has_worked() -> None:
    """A firewall in front of the cluster may refuse an event in words of its own."""
    async with receiving(created, None) as cluster:
        sink = ElasticsearchSink(ElasticsearchOptions(url=cluster.url, compression="none"))
        verdicts = [type(await sink.deliver([LOGIN]))]
        cluster.script.extend([answer(400, b"blocked")] * 2)
        verdicts += [type(await sink.deliver([LOGIN])) for _ in range(3)]
        await sink.close()
    assert verdicts == [Delivered, Reject, Reject, Delivered]
    assert {urlsplit(request.target).path for request in cluster.requests} == {f"/{AUDIT}/_bulk"}


@pytest.mark.parametrize("name", ["", " ", "a/b", "-a", "_bulk", "a,b", "*", "..", "a b"])
def test_a_target_that_is_no_index_name_is_refused(name: str) -> None:
    with pytest.raises(SinkError, match="target"):
        ElasticsearchSink(ElasticsearchOptions(url="https://h", target=name))
    with pytest.raises(SinkError, match="session-target"):
        ElasticsearchSink(ElasticsearchOptions(url="https://h", session_target=name))


def test_an_id_is_never_longer_than_elasticsearch_takes() -> None:
    long = Event("e", "é" * 257, 0.0, 0, b"{}")
    assert len(document_id(long)) == 64
    assert document_id(Event("e", "x" * 512, 0.0, 0, b"{}")) == "x" * 512


def bulk(*items: tuple[int, str, str]) -> Answer:
    found = [
        {"create": {"status": status, **({"error": {"type": kind, "reason": why}} if kind else {})}}
        for status, kind, why in items
    ]
    return Answer(200, "", orjson.dumps({"errors": True, "items": found}), True)


def test_a_document_that_is_already_there_is_delivered() -> None:
    conflict = (409, "version_conflict_engine_exception", "document already exists")
    assert judge_items(bulk((201, "", ""), conflict), 2) == Delivered()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_documents_that_find_the_cluster_busy_are_repeated_alone(status: int) -> None:
    said = judge_items(bulk((201, "", ""), (status, "es_rejected_execution_exception", "queue is full")), 2)
    assert said == Partial(
        frozenset({1}),
        {},
        f"the receiver answered {status} es_rejected_execution_exception for a document: queue is full",
    )


@pytest.mark.parametrize("status", [400, 404])
def test_a_document_that_does_not_fit_is_rejected_without_its_content(status: int) -> None:
    why = "failed to parse field [user] of type [long] in document with id 'u-1'. Preview of field's value: 'alice'"
    said = judge_items(bulk((status, "document_parsing_exception", why), (201, "", "")), 2)
    assert isinstance(said, Partial)
    assert said.retry == frozenset()
    assert list(said.rejected) == [0]
    assert "failed to parse field [user]" in said.rejected[0]
    assert "alice" not in said.rejected[0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, "security_exception"), (403, "cluster_block_exception"), (404, "index_not_found_exception")],
)
def test_missing_rights_or_a_missing_index_bury_nothing(status: int, kind: str) -> None:
    said = judge_items(bulk((429, "busy", ""), (status, kind, "no")), 2)
    assert isinstance(said, Partial)
    assert said.retry == {0, 1}
    assert said.misconfigured
    assert kind in said.reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"[]",
        b"{}",
        b'{"items":[]}',
        b'{"items":[{}]}',
        b'{"items":[{"create":{}}]}',
        b'{"items":[{"create":{"status":201}}]}',
    ],
)
def test_an_answer_that_does_not_name_every_document_proves_nothing(body: bytes) -> None:
    said = judge_items(Answer(200, "", body, True), 2)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert said.reason.startswith("the answer names")


@pytest.mark.parametrize(
    ("option", "scheme"), [("api_key_file", "ApiKey"), ("bearer_file", "Bearer"), ("password_file", "Basic")]
)
async def test_a_secret_in_a_file_is_taken_up_when_it_changes(
    cluster: Receiver, tmp_path: Path, option: str, scheme: str
) -> None:
    file = tmp_path / "secret"
    file.write_text("the-first\n")
    user = {"username": "elastic"} if option == "password_file" else {}
    sink = ElasticsearchSink(ElasticsearchOptions(url=cluster.url, **{option: str(file)}, **user))
    assert await sink.deliver([LOGIN]) == Delivered()
    file.write_text("the-second-one\n")
    assert await sink.deliver([LOGIN]) == Delivered()
    await sink.close()
    expected = ["the-first", "the-second-one"]
    if scheme == "Basic":
        expected = [b64encode(f"elastic:{secret}".encode()).decode() for secret in expected]
    assert [request.headers["authorization"] for request in cluster.requests] == [f"{scheme} {v}" for v in expected]


@pytest.mark.parametrize("service", ["es", "aoss"])
async def test_a_request_is_signed_for_amazon_opensearch(cluster: Receiver, service: Literal["es", "aoss"]) -> None:
    settings = ElasticsearchOptions(
        url="", aws=service, region="eu-central-1", access_key_id="AKIDEXAMPLE", secret_access_key="the-secret-key"
    )
    request, _ = await sent(cluster, settings, LOGIN)
    proof = request.headers["authorization"]
    assert proof.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert f"/eu-central-1/{service}/aws4_request, " in proof
    names = "content-encoding;content-type;host;x-amz-content-sha256;x-amz-date"
    assert f"SignedHeaders={names}, " in proof
    moment = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    again = signed(
        AwsCredentials("AKIDEXAMPLE", "the-secret-key"),
        "eu-central-1",
        service,
        moment,
        "POST",
        URL(f"{cluster.url}{request.target}", encoded=True),
        gzip.compress(request.body, FAST, mtime=0),
        {"Content-Type": request.headers["content-type"], "Content-Encoding": "gzip"},
    )
    assert again["Authorization"] == proof
    assert again["X-Amz-Content-Sha256"] == request.headers["x-amz-content-sha256"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"aws": "es", "region": "eu-central-1", "api_key": "a2V5"},
            r"api-key and forward\.elasticsearch\.aws ",
        ),
        ({"role_arn": "arn:aws:iam::123456789012:role/x"}, r"without forward\.elasticsearch\.aws"),
        ({"api_key": "a2V5", "api_key_file": "/x"}, "both set"),
        ({"aws": "es", "region": "eu-central-1", "url": "https://u:p@h"}, r"aws and forward\.elasticsearch\.url are"),
    ],
)
def test_ways_to_log_in_that_do_not_fit_together_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SinkError, match=words):
        ElasticsearchSink(ElasticsearchOptions(**{"url": "https://h", **given}))


def test_a_collection_that_takes_no_ids_buries_nothing() -> None:
    reason = "Document ID is not supported in create/index operation request"
    error = {"type": "illegal_argument_exception", "reason": reason}
    said = judge_items(Answer(200, "", orjson.dumps({"items": [{"create": {"status": 400, "error": error}}]}), True), 1)
    assert isinstance(said, Partial)
    assert said.misconfigured
    assert not said.rejected
