"""Installing the index template: who may not is told so, and nothing is delivered before it is in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from structlog.testing import capture_logs

from event_handler.ports import Delivered, Retry
from event_handler.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from event_handler.sinks.elasticsearch.template import TEMPLATE_VERSION
from tests.contract.deliveries import events
from tests.contract.receiver import Receiver, Reply, Request, receiving

ELASTIC = {"version": {"number": "9.1.2"}}
OPEN = {"version": {"number": "2.19.1", "distribution": "opensearch"}}


class Server:
    """Knows just enough of the APIs: `templates` by path, refusals by the beginning of a path, and what was put."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.refused: dict[str, Reply] = {}
        self.templates: dict[str, dict[str, Any]] = {}
        self.resolved: dict[str, Any] = {}
        self.simulated: dict[str, Any] | None = None
        self.put: list[str] = []
        self.bulks = 0

    def answer(self, request: Request) -> Reply:
        path = urlsplit(request.target).path
        for beginning, reply in self.refused.items():
            if path.startswith(beginning):
                return reply
        if path.endswith("/_bulk"):
            self.bulks += 1
            count = len(request.body.splitlines()) // 2
            return Reply(200, orjson.dumps({"items": [{"create": {"status": 201}}] * count}))
        if path.startswith("/_index_template/_simulate_index/"):
            return Reply(
                200, orjson.dumps({"template": self.simulated or next(iter(self.templates.values()))["template"]})
            )
        if path.startswith("/_index_template/"):
            return self._template(path, request.body)
        return Reply(200, orjson.dumps(self.resolved if path.startswith("/_resolve/") else self.root))

    def _template(self, path: str, body: bytes) -> Reply:
        if body:
            self.templates[path] = orjson.loads(body)
            self.put.append(path)
            return Reply(200, b'{"acknowledged":true}')
        if path not in self.templates:
            return Reply(404, b'{"error":{"type":"resource_not_found_exception","reason":"not there"},"status":404}')
        return Reply(200, orjson.dumps({"index_templates": [{"index_template": self.templates[path]}]}))


def denied(
    kind: str = "security_exception", why: str = "action [x] is unauthorized for user [writer]", status: int = 403
) -> Reply:
    return Reply(status, orjson.dumps({"error": {"type": kind, "reason": why}, "status": status}))


def sink_for(cluster: Receiver, **changes: Any) -> ElasticsearchSink:
    return ElasticsearchSink(ElasticsearchOptions(url=cluster.url, template="install", **changes))


@pytest.mark.parametrize(
    ("root", "flat"), [(ELASTIC, b"flattened"), (OPEN, b"flat_object")], ids=["elasticsearch", "opensearch"]
)
async def test_a_template_for_each_target_is_put_once_in_the_products_words(root: dict[str, Any], flat: bytes) -> None:
    server = Server(root)
    async with receiving(server.answer, None) as cluster:
        sink = sink_for(cluster)
        assert [await sink.deliver(events(3)) for _ in range(3)] == [Delivered()] * 3
        await sink.close()
    names = ["logs-teleport.audit-default", "logs-teleport.session-default"]
    assert server.put == [f"/_index_template/teleport-event-handler-{name}" for name in names]
    assert all(
        flat in orjson.dumps(template) and template["data_stream"] == {} for template in server.templates.values()
    )


@pytest.mark.parametrize("refused", ["/_index_template/teleport", "/_index_template/"])
async def test_a_user_without_the_right_is_told_and_events_wait(refused: str) -> None:
    server = Server(ELASTIC)
    server.refused[refused] = denied()
    async with receiving(server.answer, None) as cluster:
        sink = sink_for(cluster)
        said = await sink.deliver(events(3))
        assert isinstance(said, Retry)
        assert said.misconfigured
        for words in (
            "index template",
            "403 security_exception",
            "user [writer]",
            "docs/sinks-elasticsearch.md",
            "template to none",
        ):
            assert words in said.reason
        assert server.bulks == 0
        server.refused.clear()
        assert await sink.deliver(events(3)) == Delivered()
        await sink.close()


@pytest.mark.parametrize(
    ("reply", "misconfigured"),
    [
        (Reply(503, b"{}"), False),
        (Reply(200, b"hello"), True),
        (Reply(200, b"{}"), True),
        (Reply(200, b"[]"), True),
        (Reply(200, b'{"version":"3"}'), True),
        (Reply(200, b'{"version":{"number":null}}'), True),
        (denied(), True),
    ],
    ids=["busy", "text", "no version", "a list", "a word as version", "no number", "denied"],
)
async def test_a_server_that_does_not_say_what_it_is_is_waited_for(reply: Reply, misconfigured: bool) -> None:
    async with receiving(lambda _: reply, None) as cluster:
        sink = sink_for(cluster)
        said = await sink.deliver(events(1))
        await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured is misconfigured


async def test_rights_that_only_make_our_words_more_exact_are_not_needed() -> None:
    server = Server(ELASTIC)
    server.refused = {"/_resolve/": denied(), "/_index_template/_simulate_index/": denied()}
    async with receiving(server.answer, None) as cluster:
        sink = sink_for(cluster)
        assert await sink.deliver(events(1)) == Delivered()
        await sink.close()
    assert len(server.put) == 2


Change = Callable[[Server], None]


def existing(template: dict[str, Any]) -> Change:
    def change(server: Server) -> None:
        server.templates["/_index_template/teleport-event-handler-t"] = {"template": {}} | template

    return change


def another_wins(server: Server) -> None:
    server.simulated = {"mappings": {}}


def stream_is_there(server: Server) -> None:
    server.resolved = {"data_streams": [{"name": "t"}]}


def index_is_there(server: Server) -> None:
    server.resolved = {"indices": [{"name": "t"}]}


OURS = {"_meta": {"managed_by": "teleport-event-handler"}}


@pytest.mark.parametrize(
    ("change", "puts", "words"),
    [
        (existing({"version": 99}), 0, "is there and is not ours"),
        (existing(OURS | {"version": TEMPLATE_VERSION + 1}), 0, "of a newer version"),
        (existing(OURS | {"version": TEMPLATE_VERSION}), 0, ""),
        (existing(OURS | {"version": TEMPLATE_VERSION - 1}), 1, "index template installed"),
        (another_wins, 1, "another index template of a higher priority"),
        (stream_is_there, 1, "POST /t/_rollover"),
        (index_is_there, 1, "the index was there before its template"),
    ],
    ids=["not ours", "newer", "in place", "older", "another wins", "data stream", "index"],
)
async def test_what_is_there_is_respected_and_said(change: Change, puts: int, words: str) -> None:
    server = Server(ELASTIC)
    change(server)
    with capture_logs() as logged:
        async with receiving(server.answer, None) as cluster:
            sink = sink_for(cluster, target="t", session_target="t")
            assert await sink.deliver(events(1)) == Delivered()
            await sink.close()
    assert len(server.put) == puts
    assert words in str(logged)
    assert bool(logged) == bool(words)
