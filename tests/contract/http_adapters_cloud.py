"""How the sinks of Microsoft's and Google's clouds are built, and how their receivers talk.

Their token is fixed here: how tokens are come by is tested in test_access_token.py and test_{azure,google}_identity.py.
"""

from __future__ import annotations

from base64 import b64decode
from functools import partial
from typing import Any, Literal

import orjson

from event_handler.ports import Sink
from event_handler.sinks.access_token import AccessTokens
from event_handler.sinks.gcp_pubsub import GcpPubsubOptions, GcpPubsubSink
from event_handler.sinks.google_secops import GoogleSecopsOptions, GoogleSecopsSink
from event_handler.sinks.http import TlsFiles
from event_handler.sinks.sentinel import SentinelOptions, SentinelSink
from tests.contract.http_adapter import HttpAdapter
from tests.contract.receiver import Reply, Request
from tests.contract.token_server import FixedSource

INSTANCE = "0f0f0f0f-0000-4000-8000-00000000000c"
APIS: tuple[Literal["chronicle", "ingestion"], ...] = ("chronicle", "ingestion")


def _common(url: str, files: TlsFiles, timeout: float) -> dict[str, Any]:
    return {"url": f"{url}/", "ca": files.ca, "cert": files.cert, "key": files.key, "timeout": timeout}


def _sentinel(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = SentinelOptions(**_common(url, files, timeout), dcr_immutable_id="dcr-0f0f0f")
    return SentinelSink(options, "sentinel", "sinks.cloud", keepalive=keepalive, tokens=AccessTokens(FixedSource()))


def _secops(
    api: Literal["chronicle", "ingestion"], url: str, files: TlsFiles, timeout: float, keepalive: float
) -> Sink:
    common = _common(url, files, timeout)
    options = GoogleSecopsOptions(**common, api=api, instance_id=INSTANCE, project_id="project")
    return GoogleSecopsSink(options, "secops", "sinks.cloud", keepalive=keepalive, tokens=AccessTokens(FixedSource()))


def _secops_ids(request: Request) -> list[str]:
    said = orjson.loads(request.body)
    if "entries" in said:
        return [orjson.loads(entry["log_text"])["uid"] for entry in said["entries"]]
    return [orjson.loads(b64decode(entry["data"]))["uid"] for entry in said["inlineSource"]["logs"]]


def _pubsub(url: str, files: TlsFiles, timeout: float, keepalive: float) -> Sink:
    options = GcpPubsubOptions(**_common(url, files, timeout), project_id="project", topic="teleport")
    return GcpPubsubSink(options, "pubsub", "sinks.cloud", keepalive=keepalive, tokens=AccessTokens(FixedSource()))


def _pubsub_ids(request: Request) -> list[str]:
    return [orjson.loads(b64decode(one["data"]))["uid"] for one in orjson.loads(request.body)["messages"]]


def _published(request: Request) -> Reply:
    return Reply(200, orjson.dumps({"messageIds": [str(number) for number, _ in enumerate(_pubsub_ids(request), 1)]}))


ADAPTERS = [
    HttpAdapter(
        "sentinel",
        _sentinel,
        lambda request: [row["Event"]["uid"] for row in orjson.loads(request.body)],
        lambda _: Reply(204),
        False,
        "sinks.cloud",
        packs=True,
    ),
    *(
        HttpAdapter(
            f"google-secops-{api}",
            partial(_secops, api),
            _secops_ids,
            lambda _: Reply(200, b"{}"),
            False,
            "sinks.cloud",
            packs=True,
        )
        for api in APIS
    ),
    HttpAdapter("gcp-pubsub", _pubsub, _pubsub_ids, _published, True, "sinks.cloud"),
]
