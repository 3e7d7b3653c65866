"""How the sinks of sinks/presets.py are built, and how their services talk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from event_handler.ports import Sink
from event_handler.sinks.http import TlsFiles
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
    PresetOptions,
    PresetSink,
)
from tests.contract.http_adapter import Build, HttpAdapter
from tests.contract.receiver import Reply, Request


def _build(preset: Preset, options: type[PresetOptions], path: str = "", **more: Any) -> Build:
    def build(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
        given = {"token": "a-key-of-tests", "ca": files.ca, "cert": files.cert, "key": files.key, **more}
        settings = options.model_validate({"url": f"{url}{path}", "timeout": timeout, **given})
        return PresetSink(preset, settings, "siem", "sinks.siem", keepalive=keepalive)

    return build


def _ids(of: Callable[[Any], Any]) -> Callable[[Request], list[str]]:
    return lambda request: [of(one)["uid"] for one in orjson.loads(request.body)]


def _gelf_ids(request: Request) -> list[str]:
    return [orjson.loads(line)["_uid"] for line in request.body.splitlines()]


def _axiom_success(request: Request) -> Reply:
    return Reply(200, orjson.dumps({"ingested": len(orjson.loads(request.body)), "failed": 0, "failures": []}))


def _honeycomb_success(request: Request) -> Reply:
    return honeycomb_answer(request, {})


def honeycomb_answer(request: Request, status: Mapping[int, int]) -> Reply:
    count = len(orjson.loads(request.body))
    return Reply(
        200, orjson.dumps([{"status": status.get(one, 202), "error": f"because of {one}"} for one in range(count)])
    )


def plain(one: Any) -> Any:
    return one


def of_message(one: Any) -> Any:
    return orjson.loads(one["message"])


def of_data(one: Any) -> Any:
    return one["data"]


PRESET_ADAPTERS = [
    HttpAdapter(
        "newrelic", _build(NEWRELIC, NewrelicOptions, "/log/v1"), _ids(of_message), lambda _: Reply(202), False,
        "sinks.siem", packs=True,
    ),
    HttpAdapter(
        "axiom", _build(AXIOM, AxiomOptions, dataset="audit"), _ids(plain), _axiom_success, True,
        "sinks.siem", packs=True,
    ),
    HttpAdapter(
        "honeycomb", _build(HONEYCOMB, HoneycombOptions), _ids(of_data), _honeycomb_success, True,
        "sinks.siem", honeycomb_answer, packs=True,
    ),
    HttpAdapter(
        "betterstack", _build(BETTERSTACK, BetterstackOptions), _ids(plain), lambda _: Reply(202), False,
        "sinks.siem", packs=True,
    ),
    HttpAdapter(
        "graylog-gelf", _build(GRAYLOG, GraylogOptions), _gelf_ids, lambda _: Reply(202), False,
        "sinks.siem", packs=True,
    ),
    HttpAdapter(
        "graylog-gelf-bulk", _build(GRAYLOG_BULK, GraylogOptions), _gelf_ids, lambda _: Reply(202), False,
        "sinks.siem", packs=True,
    ),
]  # fmt: skip
