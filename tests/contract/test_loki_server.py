"""The loki sink against a real Loki, where `make receivers` has built it, and the dashboard's questions to it."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import orjson
import pytest

from event_handler.event import Event
from event_handler.ports import Delivered, Reject
from event_handler.sinks.loki import LokiOptions, LokiSink
from tests.contract.deliveries import verdict
from tests.contract.ports import free_ports
from tests.contract.server_process import serving
from tests.event_samples import samples
from tests.support.receiver_cache import absent, place

PROGRAM = "bin/loki"
DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "teleport-events.json"
CONFIGURATION = """
auth_enabled: false
analytics: {{ reporting_enabled: false }}
server: {{ http_listen_address: 127.0.0.1, http_listen_port: {http}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc}, log_level: error }}
common:
  instance_addr: 127.0.0.1
  path_prefix: {directory}
  replication_factor: 1
  ring: {{ kvstore: {{ store: inmemory }} }}
  storage: {{ filesystem: {{ chunks_directory: {directory}/chunks, rules_directory: {directory}/rules }} }}
schema_config:
  configs: [{{ from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {{ prefix: index_, period: 24h }} }}]
"""  # noqa: E501 - a line of YAML


@dataclass(frozen=True, slots=True)
class Loki:
    url: str

    def get(self, path: str, **parameters: Any) -> Any:
        address = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - on loopback
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def lines(self, query: str, now: float) -> list[tuple[dict[str, str], list[str]]]:
        """Labels and `[time, line]` of each line."""
        found = self.get(
            "/loki/api/v1/query_range",
            query=query,
            limit=1000,
            start=int((now - 3600) * 1e9),
            end=int((now + 60) * 1e9),
        )
        return [(one["stream"], value) for one in found["data"]["result"] for value in one["values"]]

    def sink(self, **options: Any) -> LokiSink:
        return LokiSink(LokiOptions(url=self.url, **options), "loki", "sinks.loki")


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    if reason := absent(PROGRAM):
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("loki")
    http, grpc = free_ports(2)
    configuration = directory / "loki.yaml"
    configuration.write_text(CONFIGURATION.format(http=http, grpc=grpc, directory=directory))
    command = [str(place(PROGRAM)), f"-config.file={configuration}"]
    with serving(command, directory / "log", lambda: _takes_lines(http)):
        yield Loki(f"http://127.0.0.1:{http}")


def _takes_lines(port: int) -> bool:
    """Whether it takes a line: /ready waits for 15 seconds more. Raises OSError while it does not."""
    body = orjson.dumps({"streams": [{"stream": {"job": "start"}, "values": [[str(int(time() * 1e9)), "x"]]}]})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/loki/api/v1/push", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - on loopback
        return bool(answer.status == 204)


async def deliver(loki: Loki, batch: list[Event], **options: Any) -> Any:
    sink = loki.sink(**options)
    try:
        return await verdict(sink, batch)
    finally:
        await sink.close()


def event(kind: str, number: int, moment: float, **content: Any) -> Event:
    body = {"event": kind, "uid": f"{kind}-{number}", "cluster_name": "example.com", **content}
    return Event(kind, f"{kind}-{number}", moment, number, orjson.dumps(body))


async def test_an_event_of_every_type_is_a_line_and_a_repeat_is_no_second(loki: Loki) -> None:
    now = time()
    batch = [
        Event(one["event"], one["uid"], now - 30, 0, orjson.dumps({**one, "cluster_name": "every"}))
        for one in samples()
    ]
    for _ in range(2):
        assert await deliver(loki, batch, job="every") == Delivered()
    lines = await asyncio.to_thread(loki.lines, '{job="every"}', now)
    assert sorted(line[1] for _, line in lines) == sorted(one.body.decode() for one in batch)
    assert {labels["uid"] for labels, _ in lines} == {one.id for one in batch}


async def test_a_line_that_is_too_old_is_refused(loki: Loki) -> None:
    said = await deliver(loki, [event("user.login", 1, time() - 90 * 86400)])
    assert isinstance(said, Reject)
    assert "greater_than_max_sample_age" in said.reason or "too old" in said.reason


async def test_every_question_of_the_dashboard_is_answered(loki: Loki) -> None:
    now = time()
    login = {"user": "alice", "addr.remote": "192.0.2.7:51022", "method": "local"}
    batch = [
        event("user.login", 1, now - 5, success=True, **login),
        event("user.login", 2, now - 4, success=True, **{**login, "addr.remote": "[2001:db8::7]:51022"}),
        event("user.login", 3, now - 3, success=False, error="wrong password", **login),
        event("session.start", 1, now - 3, server_hostname="node-1", user="alice"),
        event("access_request.create", 1, now - 3, user="alice", id="r1", state="PENDING", reason="on call"),
        event("db.session.query", 1, now - 2, user="alice", db_service="pg", db_name="hr", db_query="SELECT 1"),
    ]
    assert await deliver(loki, batch) == Delivered()
    answers = {title: await asyncio.to_thread(ask, loki, query, now) for title, query in questions()}
    assert answers == {
        "Sign-ins": ["failed: 1", "succeeded: 2"],
        "Who signed in from where": ["local 192.0.2.7 alice: 1", "local [2001:db8::7] alice: 1"],
        "Failed sign-ins": ["alice from 192.0.2.7 by local: wrong password"],
        "Sessions by node": ["node-1 alice: 1"],
        "Access requests": ["access_request.create alice r1 PENDING  on call"],
        "Database queries": ["alice pg/hr: SELECT 1"],
    }


def questions() -> list[tuple[str, str]]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        (panel["title"], target["expr"].replace("$__range", "5m").replace("$__interval", "5m"))
        for panel in panels
        for target in panel["targets"]
    ]


def ask(loki: Loki, query: str, now: float) -> list[str]:
    if not query.startswith("sum"):
        return [line for _, (_, line) in loki.lines(query, now)]
    found = loki.get("/loki/api/v1/query", query=query, time=int(now * 1e9) + 1)["data"]["result"]
    return sorted(f"{' '.join(one['metric'].values())}: {one['value'][1]}" for one in found)
