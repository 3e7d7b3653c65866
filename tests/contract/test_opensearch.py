"""The elasticsearch sink against a real OpenSearch node, where EVENT_HANDLER_OPENSEARCH names one by URL or by its
jars.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import orjson
import pytest
from structlog.testing import capture_logs

from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Retry
from event_handler.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from event_handler.sinks.elasticsearch.fields import FIELDS
from event_handler.sinks.elasticsearch.template import TEMPLATE_VERSION, template_name
from tests.contract.opensearch_node import VARIABLE, Node, node_place, running
from tests.event_samples import samples
from tests.support.dashboards import saved_objects

pytestmark = pytest.mark.skipif(
    not node_place(), reason=f"no OpenSearch: make receivers fetches it, or {VARIABLE} names a node or its jars"
)
GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "http"
Document = Literal["message", "plain"]
Make = Callable[..., tuple[str, ElasticsearchSink]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(node_place(), tmp_path_factory.mktemp("opensearch")) as started:
        yield started


@pytest.fixture
def make(node: Node) -> Iterator[Make]:
    """Makes a sink with a target that no other test has; all of it is deleted at the end."""
    made: list[str] = []

    def make(
        form: str = "index", document: Document = "plain", template: Literal["none", "install"] = "install"
    ) -> tuple[str, ElasticsearchSink]:
        target = f"logs-t.{uuid4().hex}-default" if form == "data stream" else f"t{uuid4().hex}"
        made.append(target)
        settings = ElasticsearchOptions(
            url=node.url, target=target, session_target=target, document=document, template=template
        )
        return target, ElasticsearchSink(settings)

    yield make
    for target in made:
        node.ask("DELETE", f"/_data_stream/{target}")
        node.ask("DELETE", f"/{target}?ignore_unavailable=true")
        node.ask("DELETE", f"/_index_template/{template_name(target)}")


def event(body: dict[str, Any] | bytes, id_: str = "") -> Event:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Event("e", id_ or uuid4().hex, 1_790_000_000.5, 0, raw)


def recorded(name: str) -> list[bytes]:
    return [orjson.loads(line)["body"].encode() for line in (GOLDEN / name).read_text().splitlines()]


@pytest.mark.parametrize("form", ["index", "data stream"])
@pytest.mark.parametrize("document", ["message", "plain"])
async def test_an_event_of_every_type_is_taken(node: Node, make: Make, form: str, document: Document) -> None:
    target, sink = make(form, document)
    events = [event(one) for one in samples()] + [
        event(one) for name in ("bulk.jsonl", "legacy.jsonl") for one in recorded(name)
    ]
    assert len(events) > 400
    assert await sink.deliver(events) == Delivered()
    assert await sink.deliver(events) == Delivered(), "the same documents once more"
    await sink.close()
    assert node.count(target) == len(events)
    streams = node.ask("GET", f"/_data_stream/{target}").get("data_streams", [])
    assert bool(streams) == (form == "data stream")


async def test_known_fields_are_found_and_what_has_another_type_by_its_words(node: Node, make: Make) -> None:
    target, sink = make()
    login = {
        "event": "user.login",
        "user": "alice@example.test",
        "success": False,
        "addr.remote": "10.9.8.7:1234",
        "ei": 3,
    }
    more = {"identity": {"roles": ["access"], "logins": ["root"]}, "time": "2026-11-24T10:45:14Z", "newer_than_us": "x"}
    call = {"event": "mcp.session.request", "message": {"method": "tools/call", "params": {"name": "weather"}}}
    assert await sink.deliver([event(login | more), event(call)]) == Delivered()
    await sink.close()
    finds: list[dict[str, Any]] = [
        {"term": {"user.keyword": "alice@example.test"}},
        {"match": {"event": "user.login"}},
        {"term": {"success": False}},
        {"term": {"addr.remote.keyword": "10.9.8.7:1234"}},
        {"range": {"ei": {"gte": 3}}},
        {"range": {"time": {"gte": "2026-11-24"}}},
        {"term": {"identity.roles": "access"}},
        {"match_phrase": {"teleport_other": "tools/call"}},
    ]
    assert [node.count(target, query) for query in finds] == [1] * len(finds)
    found = node.ask("POST", f"/{target}/_search", {"query": {"match": {"event": "user.login"}}})["hits"]["hits"][0][
        "_source"
    ]
    assert found == login | more | {"@timestamp": found["@timestamp"]}, "the document is the event as it was"


def nested(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"end": 1}
    for _ in range(levels):
        made = {"n": made}
    return made


ODD_VALUES: list[Any] = [
    "x", "", 5, -1.5, 1e300, 10**25, True, None, "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", [], {}, ["a", 1, True, None], [["a"]],
    {"a": 1}, [{"a": 1}, {"b": [2, {"c": 3}]}], [1, {"a": 1}], {"": 1}, {" ": {".": 1}}, {"a.b": 1, ".c": 2, "d.": 3, "..": 4},
    {"a\0b": 1}, "z" * 100_000, {"a": "z" * 100_000}, {"k" * 40_000: 1}, {"ü" * 9_000: "ü" * 9_000}, nested(30), nested(150),
    {"a": None}, [None], {f"n{number}": number for number in range(2_000)}, "😀",
]  # fmt: skip
ONE_OF_EACH_KIND = ["user", "ei", "time", "success", "identity", "members", "addr.remote"]
ODD_NAMES = [
    "", " ", ".", "..", "a.", ".a", "a..b", "user.x", "identity.x", "addr.remote.x", "addr.x", "addr", "_id", "_source", "_x",
    "@timestamp", "teleport_other", "teleport_session_id", "host", "tags", "data_stream", "u" * 40_000, "a\0", "ünïcode", "a b", "*",
    "unknown.a.b",
]  # fmt: skip


@pytest.mark.parametrize("form", ["index", "data stream"])
@pytest.mark.parametrize("document", ["message", "plain"])
async def test_no_shape_of_an_event_is_refused(node: Node, make: Make, form: str, document: Document) -> None:
    target, sink = make(form, document)
    events = [event(dict.fromkeys(FIELDS, value)) for value in ODD_VALUES if len(str(value)) < 200]
    events += [event({name: value}) for name in ONE_OF_EACH_KIND for value in ODD_VALUES]
    events += [event({"unknown": value}) for value in ODD_VALUES]
    events += [event({name: value}) for name in ODD_NAMES for value in ("v", {"a": 1}, 3)]
    events += [event({f"n{number}": number for number in range(2_000)}), event(b"{}")]
    for start in range(0, len(events), 20):
        assert await sink.deliver(events[start : start + 20]) == Delivered()
    await sink.close()
    assert node.count(target) == len(events)


async def test_a_refusal_names_the_field_and_not_its_value(node: Node, make: Make) -> None:
    target, sink = make(template="none")
    node.ask("PUT", f"/{target}", {"mappings": {"properties": {"user": {"type": "long"}, "time": {"type": "date"}}}})
    said = await sink.deliver([event({"user": "s3cret"}), event({"time": "s3cret"}), event({"code": "fine"})])
    await sink.close()
    assert isinstance(said, Partial)
    assert list(said.rejected) == [0, 1]
    assert "failed to parse field [user] of type [long]" in said.rejected[0]
    assert "failed to parse field [time] of type [date]" in said.rejected[1]
    assert "s3cret" not in str(said)


async def test_a_template_is_installed_once_replaced_when_older_and_left_alone_when_newer_or_not_ours(
    node: Node, make: Make
) -> None:
    target, sink = make()
    path = f"/_index_template/{template_name(target)}"
    assert await sink.deliver([event({"user": "a"})]) == Delivered()
    await sink.close()
    installed = node.ask("GET", path)["index_templates"][0]["index_template"]
    assert installed["version"] == TEMPLATE_VERSION

    async def after(change: dict[str, Any]) -> dict[str, Any]:
        node.ask("PUT", path, installed | change)
        again = ElasticsearchSink(
            ElasticsearchOptions(url=node.url, target=target, session_target=target, template="install")
        )
        assert await again.deliver([event({"user": "a"})]) == Delivered()
        await again.close()
        left: dict[str, Any] = node.ask("GET", path)["index_templates"][0]["index_template"]
        return left

    assert await after({"version": TEMPLATE_VERSION - 1, "priority": 151}) == installed
    newer = {"version": TEMPLATE_VERSION + 1, "priority": 152}
    assert await after(newer) == installed | newer
    own = {"version": TEMPLATE_VERSION - 1, "_meta": {"owner": "me"}, "priority": 153}
    assert await after(own) == installed | own
    edited = {"version": TEMPLATE_VERSION, "priority": 154}
    assert await after(edited) == installed | edited


async def test_a_template_that_wins_over_ours_is_told_of(node: Node, make: Make) -> None:
    target, sink = make()
    winner = f"wins-{target}"
    node.ask("PUT", f"/_index_template/{winner}", {"index_patterns": [target], "priority": 900})
    try:
        with capture_logs() as logged:
            assert await sink.deliver([event({"user": "a"})]) == Delivered()
    finally:
        node.ask("DELETE", f"/_index_template/{winner}")
        await sink.close()
    assert "another index template of a higher priority" in str(logged)


async def test_an_alias_that_was_there_before_gets_the_mapping_with_its_next_index(node: Node, make: Make) -> None:
    target, sink = make()
    node.ask("PUT", f"/{target}-000001", {"aliases": {target: {"is_write_index": True}}})
    try:
        with capture_logs() as logged:
            assert await sink.deliver([event({"user": "a"})]) == Delivered()
        assert "keeps its old mapping" in str(logged)
        assert node.ask("POST", f"/{target}/_rollover")["rolled_over"]
        made = node.ask("GET", f"/{target}-000002/_mapping")[f"{target}-000002"]["mappings"]
        assert made["_meta"]["managed_by"] == "teleport-event-handler"
        assert await sink.deliver([event({"user": "a"})]) == Delivered()
        assert node.count(target) == 2
    finally:
        await sink.close()
        node.ask("DELETE", f"/{target}-000001,{target}-000002?ignore_unavailable=true")


def alias_without_write_index(node: Node, target: str) -> str:
    for number in ("1", "2"):
        node.ask("PUT", f"/{target}-{number}", {"aliases": {target: {}}})
    return "no write index is defined"


def closed(node: Node, target: str) -> str:
    node.ask("PUT", f"/{target}")
    node.ask("POST", f"/{target}/_close")
    return "index_closed_exception"


def blocked(node: Node, target: str) -> str:
    node.ask("PUT", f"/{target}", {"settings": {"index.blocks.write": True}})
    return "cluster_block_exception"


def flood(node: Node, target: str) -> str:
    node.ask("PUT", f"/{target}", {"settings": {"index.blocks.read_only_allow_delete": True}})
    return "flood-stage"


def missing_pipeline(node: Node, target: str) -> str:
    node.ask("PUT", f"/{target}", {"settings": {"index.default_pipeline": "no-such-pipeline"}})
    return "does not exist"


@pytest.mark.parametrize("fault", [alias_without_write_index, closed, blocked, flood, missing_pipeline])
async def test_a_fault_of_the_cluster_is_no_verdict_about_events(
    node: Node, make: Make, fault: Callable[[Node, str], str]
) -> None:
    target, sink = make(template="none")
    expected = fault(node, target)
    try:
        said = await sink.deliver([event({"user": "a"}), event({"user": "b"})])
        await sink.close()
        assert isinstance(said, Partial)
        assert said.retry == {0, 1}
        assert said.misconfigured
        assert expected in said.reason
    finally:
        node.ask("DELETE", f"/{target}-1,{target}-2?ignore_unavailable=true")


async def test_a_cluster_without_shards_left_is_no_verdict_about_events(node: Node, make: Make) -> None:
    _, sink = make(template="none")
    node.ask("PUT", "/_cluster/settings", {"transient": {"cluster.max_shards_per_node": 1}})
    try:
        said = await sink.deliver([event({"user": "a"})])
    finally:
        node.ask("PUT", "/_cluster/settings", {"transient": {"cluster.max_shards_per_node": None}})
        await sink.close()
    assert isinstance(said, Partial)
    assert said.retry == {0}
    assert "maximum" in said.reason


async def test_a_template_that_the_server_refuses_holds_events_back_and_says_why(node: Node, make: Make) -> None:
    target, sink = make()
    conflicting = {"index_patterns": [f"{target}*"], "priority": 150}
    node.ask("PUT", "/_index_template/other", conflicting)
    try:
        said = await sink.deliver([event({"user": "a"})])
    finally:
        node.ask("DELETE", "/_index_template/other")
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "index template" in said.reason
    assert "forward.elasticsearch.template to none" in said.reason
    assert await sink.deliver([event({"user": "a"})]) == Delivered(), "it goes on by itself once the server takes it"
    await sink.close()


async def test_every_saved_search_finds_its_events(node: Node, make: Make) -> None:
    target, sink = make("data stream")
    login = {"event": "user.login", "user": "alice", "addr.remote": "192.0.2.7:51022"}
    batch: list[dict[str, Any]] = [
        {**login, "success": True},
        {**login, "success": False, "error": "wrong password"},
        {"event": "session.start", "server_hostname": "node-1"},
        {"event": "session.end", "server_hostname": "node-1"},
        {"event": "db.session.query", "db_query": "SELECT 1"},
        {"event": "access_request.create", "id": "r1"},
        {"event": "access_request.review", "id": "r1"},
    ]
    assert await sink.deliver([event(one) for one in batch]) == Delivered()
    await sink.close()
    found = {
        one["attributes"]["title"]: node.count(target, {"query_string": {"query": lucene_query(one)}})
        for one in saved_objects()
        if one["type"] == "search"
    }
    assert found == {
        "Teleport: who signed in from where": 1,
        "Teleport: failed sign-ins": 1,
        "Teleport: sessions by node": 1,
        "Teleport: database queries": 1,
        "Teleport: access requests": 2,
    }


def lucene_query(search: dict[str, Any]) -> str:
    query = json.loads(search["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]
    assert query["language"] == "lucene"
    return str(query["query"])
