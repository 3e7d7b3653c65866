"""How each HTTP sink is built and how its receiver talks: a new sink joins the conformance suite by one entry in
ADAPTERS.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from typing import Literal

import orjson

from event_handler.ports import Sink
from event_handler.sinks.datadog import DatadogOptions, DatadogSink
from event_handler.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from event_handler.sinks.http import Compression, TlsFiles
from event_handler.sinks.panther import PantherOptions, PantherSink
from event_handler.sinks.splunk_hec import SplunkHecOptions, SplunkHecSink
from event_handler.sinks.sumologic import SumologicOptions, SumologicSink
from event_handler.sinks.webhook import Body, WebhookOptions, WebhookSink
from tests.contract.http_adapter import HttpAdapter
from tests.contract.http_adapters_aws import AWS_ADAPTERS
from tests.contract.http_adapters_cloud import ADAPTERS as CLOUD_ADAPTERS
from tests.contract.http_adapters_observability import OBSERVABILITY_ADAPTERS
from tests.contract.http_adapters_presets import PRESET_ADAPTERS
from tests.contract.receiver import Reply, Request

DOCUMENTS: tuple[Literal["message", "plain"], ...] = ("message", "plain")
FLUENTD: tuple[tuple[str, Literal["single", "array"], Compression], ...] = (
    ("single", "single", "none"),
    ("array", "array", "none"),
    ("array-gzip", "array", "gzip"),
)
BODIES: tuple[Body, ...] = ("single", "array", "ndjson")


def _fluentd(
    body: Literal["single", "array"],
    compression: Compression,
    url: str,
    files: TlsFiles,
    timeout: float,
    keepalive: float,
) -> Sink:
    urls = f"{url}/teleport/test.log", f"{url}/teleport/session"
    options = FluentdOptions(
        url=urls[0],
        session_url=urls[1],
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        format=body,
        max_connections=4,
        timeout=timeout,
        compression=compression,
    )
    return FluentdSink(options, keepalive=keepalive)


def _fluentd_ids(request: Request) -> list[str]:
    body = orjson.loads(request.body)
    return [event["uid"] for event in (body if isinstance(body, list) else [body])]


def _elasticsearch(
    document: Literal["message", "plain"], url: str, files: TlsFiles, timeout: float, keepalive: float
) -> Sink:
    return ElasticsearchSink(
        ElasticsearchOptions(
            url=url,
            document=document,
            api_key="a2V5OnNlY3JldA==",
            ca=files.ca,
            cert=files.cert,
            key=files.key,
            compression="gzip" if document == "message" else "none",
            timeout=timeout,
        ),
        keepalive=keepalive,
    )


def _elasticsearch_ids(request: Request) -> list[str]:
    actions = request.body.decode().splitlines()[::2]
    return [orjson.loads(action)["create"]["_id"].rpartition("/")[2] for action in actions]


def _elasticsearch_items(request: Request, statuses: Mapping[int, int]) -> Reply:
    items: list[dict[str, dict[str, object]]] = [{"create": {"status": 201}} for _ in _elasticsearch_ids(request)]
    for place, status in statuses.items():
        items[place]["create"] = {
            "status": status,
            "error": {"type": "scripted_exception", "reason": f"because of {place}"},
        }
    return Reply(200, orjson.dumps({"errors": bool(statuses), "items": items}))


def _splunk(acknowledge: bool, url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = SplunkHecOptions(
        url=url,
        token="0e1c2b3a-0000-4000-8000-00000000hec1",
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        acknowledge=acknowledge,
        compression="none" if acknowledge else "gzip",
        timeout=timeout,
    )
    return SplunkHecSink(options, "splunk", "sinks.splunk", keepalive=keepalive, poll_every=0.02)


NUMBERS = itertools.count()  # of the requests that are to be acknowledged


def _splunk_ids(request: Request) -> list[str]:
    if request.target.endswith("/ack"):
        return []
    return [orjson.loads(line)["event"]["uid"] for line in request.body.splitlines()]


def _splunk_success(request: Request) -> Reply:
    if request.target.endswith("/ack"):
        return Reply(200, orjson.dumps({"acks": {str(n): True for n in orjson.loads(request.body)["acks"]}}))
    return Reply(200, orjson.dumps({"text": "Success", "code": 0, "ackId": next(NUMBERS)}))


def _datadog(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = DatadogOptions(
        url=f"{url}/api/v2/logs",
        api_key="0123456789abcdef0123456789abcdef",
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        timeout=timeout,
    )
    return DatadogSink(options, "datadog", "sinks.datadog", keepalive=keepalive)


def _webhook(body: Body, url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = WebhookOptions(
        url=f"{url}/hook",
        body=body,
        bearer="a-bearer-token",
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        timeout=timeout,
        compression="none" if body == "single" else "gzip",
    )
    return WebhookSink(options, "hook", "sinks.hook", keepalive=keepalive)


def _webhook_template(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = WebhookOptions(
        url=f"{url}/hook/{{event}}",
        method="PUT",
        body="template",
        template='{"records": $EVENTS}',
        hmac_secret="a-secret",
        idempotency_header="Idempotency-Key",
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        timeout=timeout,
    )
    return WebhookSink(options, "hook", "sinks.hook", keepalive=keepalive)


def _template_ids(request: Request) -> list[str]:
    return [event["uid"] for event in orjson.loads(request.body)["records"]]


def _panther(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = PantherOptions(
        url=f"{url}/http/source", bearer="token", ca=files.ca, cert=files.cert, key=files.key, timeout=timeout
    )
    return PantherSink(options, "panther", "sinks.panther", keepalive=keepalive)


def _sumologic(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = SumologicOptions(
        url=f"{url}/receiver/v1/http/secret",
        category="teleport/audit",
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        timeout=timeout,
        compression="none",
    )
    return SumologicSink(options, "sumo", "sinks.sumo", keepalive=keepalive)


def _line_ids(request: Request) -> list[str]:
    return [orjson.loads(line)["uid"] for line in request.body.splitlines()]


ADAPTERS = [
    *(
        HttpAdapter(
            f"fluentd-{name}",
            partial(_fluentd, body, compression),
            _fluentd_ids,
            lambda _: Reply(200, b"ok"),
            False,
            "forward.fluentd",
            packs=compression == "gzip",
        )
        for name, body, compression in FLUENTD
    ),
    *(
        HttpAdapter(
            f"elasticsearch-{document}",
            partial(_elasticsearch, document),
            _elasticsearch_ids,
            lambda request: _elasticsearch_items(request, {}),
            True,
            "forward.elasticsearch",
            _elasticsearch_items,
            packs=document == "message",
        )
        for document in DOCUMENTS
    ),
    HttpAdapter("splunk-hec", partial(_splunk, False), _splunk_ids, _splunk_success, False, "sinks.splunk", packs=True),
    HttpAdapter("splunk-hec-acknowledged", partial(_splunk, True), _splunk_ids, _splunk_success, True, "sinks.splunk"),
    HttpAdapter(
        "datadog",
        _datadog,
        lambda request: [event["uid"] for event in orjson.loads(request.body)],
        lambda _: Reply(202, b"{}"),
        False,
        "sinks.datadog",
        packs=True,
    ),
    *(
        HttpAdapter(
            f"webhook-{body}",
            partial(_webhook, body),
            _line_ids if body == "ndjson" else _fluentd_ids,
            lambda _: Reply(200, b"ok"),
            False,
            "sinks.hook",
            packs=body != "single",
        )
        for body in BODIES
    ),
    HttpAdapter(
        "webhook-template", _webhook_template, _template_ids, lambda _: Reply(200), False, "sinks.hook", packs=True
    ),
    HttpAdapter("panther", _panther, _line_ids, lambda _: Reply(200, b"ok"), False, "sinks.panther", packs=True),
    HttpAdapter("sumologic", _sumologic, _line_ids, lambda _: Reply(200), False, "sinks.sumo"),
    *AWS_ADAPTERS,
    *CLOUD_ADAPTERS,
    *OBSERVABILITY_ADAPTERS,
    *PRESET_ADAPTERS,
]
