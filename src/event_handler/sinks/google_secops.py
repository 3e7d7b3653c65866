"""Delivers raw logs to Google Security Operations (Chronicle), whose parser for Teleport makes UDM events of them.

Facts: the Chronicle API's reference of logs.import, Google's "Collect Teleport Access Plane logs", and of the older
Ingestion API "unstructuredlogentries".
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import orjson
from pydantic import Field
from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.access_token import AccessTokens
from event_handler.sinks.fields import with_session
from event_handler.sinks.google_answers import judge_google
from event_handler.sinks.google_identity import CLOUD_PLATFORM, GoogleOptions, google_source
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.http_options import Gzip
from event_handler.sinks.moments import rfc3339
from event_handler.sinks.registry import SinkType

SECOPS_EVENTS = 500  # of a request; what is around each event takes less than a tenth of the megabyte
SECOPS_BYTES = 650_000  # of the events of a request: a megabyte is taken, and base64 makes a third more of them
SECOPS_AGE = 0.5  # seconds an incomplete batch waits for more events
MALACHITE = "https://www.googleapis.com/auth/malachite-ingestion"
IN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")  # what ids, projects, regions and log types look like


class GoogleSecopsOptions(GoogleOptions):
    """Which instance, by which of its two interfaces, and what the logs are called."""

    api: Annotated[
        Literal["chronicle", "ingestion"], Setting("choice", "the Chronicle API, or the older Ingestion API")
    ] = "chronicle"
    instance_id: Annotated[
        str, Setting("text", "id of the instance: the customer id in SIEM Settings", required=True)
    ] = ""
    project_id: Annotated[str, Setting("text", "Google Cloud project of the instance; not for the older API")] = ""
    region: Annotated[str, Setting("text", "region of the instance, as us, eu or asia-southeast1")] = "us"
    log_type: Annotated[str, Setting("text", "log type, which chooses the parser")] = "TELEPORT_ACCESS_PLANE"
    forwarder: Annotated[str, Setting("text", "id of a forwarder that the logs are shown under")] = ""
    namespace: Annotated[str, Setting("text", "environment namespace of the logs")] = ""
    labels: Annotated[dict[str, str], Setting("table", "labels of the logs")] = Field(default_factory=dict)
    api_version: Annotated[Literal["v1alpha", "v1beta", "v1"], Setting("choice", "version of the Chronicle API")] = (
        "v1alpha"
    )
    url: Annotated[str, Setting("url", "address of the API", unset="that of the region")] = ""
    compression: Gzip = "gzip"


class GoogleSecopsSink:
    """A `google-secops` sink. Raises SinkError when an option cannot be used. `tokens` stands in for Google's."""

    def __init__(
        self,
        options: GoogleSecopsOptions,
        name: str,
        section: str,
        *,
        keepalive: float = KEEPALIVE,
        tokens: AccessTokens | None = None,
    ) -> None:
        self.name = name
        self.limits = Limits(SECOPS_EVENTS, SECOPS_BYTES, options.max_connections, SECOPS_AGE, event_bytes=SECOPS_BYTES)
        _check_names(options, section)
        base = options.address(options.url or _address(options), f"{section}.url")
        self._api = ChronicleApi(options, base) if options.api == "chronicle" else IngestionApi(options, base)
        self._check: Mapping[int, str] = {
            401: f"{section}.credentials-file and {section}.api",
            403: f"that the service account may import logs, {section}.instance-id and {section}.region",
            404: f"{section}.url, project-id, region, instance-id and log-type",
        }
        self._tokens = tokens or AccessTokens(google_source(options, section, self._api.scope, os.environ))
        self._client = options.client(
            section, {"Content-Type": "application/json"}, keepalive=keepalive, status_only=True
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        content = self._api.body(events)
        answer = await self._tokens.signed_in(self._client, lambda: self._client.post(self._api.url, content))
        return answer if isinstance(answer, Retry) else judge_google(answer, self._check)

    async def reopen(self) -> None:
        self._client.reload()
        self._tokens.reload()

    async def close(self) -> None:
        await self._client.close()
        await self._tokens.close()


class ChronicleApi:
    """logs.import: all in the path but the logs, which are in base64."""

    scope = CLOUD_PLATFORM

    def __init__(self, options: GoogleSecopsOptions, base: URL) -> None:
        instance = f"projects/{options.project_id}/locations/{options.region}/instances/{options.instance_id}"
        path = f"{options.api_version}/{instance}/logTypes/{options.log_type}/logs:import"
        self.url = base.with_path(f"{base.path.rstrip('/')}/{path}")
        same = {
            "environmentNamespace": options.namespace,
            "labels": {name: {"value": value} for name, value in options.labels.items()},
        }
        self._same = b"".join(b",%b:%b" % (orjson.dumps(k), orjson.dumps(v)) for k, v in same.items() if v)
        forwarder = orjson.dumps(f"{instance}/forwarders/{options.forwarder}")
        self._after = b',"forwarder":%b' % forwarder if options.forwarder else b""

    def body(self, events: Sequence[Event]) -> bytes:
        return b'{"inlineSource":{"logs":[%b]%b}}' % (b",".join(map(self._entry, events)), self._after)

    def _entry(self, event: Event) -> bytes:
        """Teleport's time is also that of the collection, so that an event that is sent again is the same."""
        when = rfc3339(event.time)
        data = b64encode(with_session(event))
        return b'{"data":"%b","logEntryTime":"%b","collectionTime":"%b"%b}' % (data, when, when, self._same)


class IngestionApi:
    """unstructuredlogentries:batchCreate: all in the body, and the logs as text."""

    scope = MALACHITE

    def __init__(self, options: GoogleSecopsOptions, base: URL) -> None:
        self.url = base.with_path(f"{base.path.rstrip('/')}/v2/unstructuredlogentries:batchCreate")
        same = {
            "customer_id": options.instance_id,
            "log_type": options.log_type,
            "namespace": options.namespace,
            "labels": [{"key": key, "value": value} for key, value in options.labels.items()],
        }
        self._before = orjson.dumps({name: value for name, value in same.items() if value})[:-1]

    def body(self, events: Sequence[Event]) -> bytes:
        entries = (
            b'{"log_text":%b,"ts_rfc3339":"%b"}' % (orjson.dumps(with_session(event).decode()), rfc3339(event.time))
            for event in events
        )
        return b'%b,"entries":[%b]}' % (self._before, b",".join(entries))


def _address(options: GoogleSecopsOptions) -> str:
    if options.api == "chronicle":
        return f"https://chronicle.{options.region}.rep.googleapis.com"
    return f"https://{'' if options.region == 'us' else f'{options.region}-'}malachiteingestion-pa.googleapis.com"


def _check_names(options: GoogleSecopsOptions, section: str) -> None:
    names = {"instance-id": options.instance_id, "region": options.region, "log-type": options.log_type}
    if options.api == "chronicle":
        names["project-id"] = options.project_id
    if options.forwarder:
        names["forwarder"] = options.forwarder
    for option, value in names.items():
        if not IN_PATH.fullmatch(value):
            raise SinkError(f"{section}.{option} is missing, or it is none", "Copy it from SIEM Settings → Profile.")


SINK = SinkType("Google Security Operations (Chronicle), as raw logs", GoogleSecopsOptions, GoogleSecopsSink)
