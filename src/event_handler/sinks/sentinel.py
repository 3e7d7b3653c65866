"""Delivers to a table of Microsoft Sentinel (Log Analytics), by the Logs Ingestion API.

Facts: Microsoft's "Logs Ingestion API in Azure Monitor" with its tutorial, and "Azure Monitor service limits".
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Annotated, Any

import orjson

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Denied, Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.access_token import AccessTokens
from event_handler.sinks.answers import judge, readable
from event_handler.sinks.azure_identity import AzureOptions, azure_source
from event_handler.sinks.fields import with_session
from event_handler.sinks.http import KEEPALIVE, Answer
from event_handler.sinks.http_options import Gzip
from event_handler.sinks.moments import moment
from event_handler.sinks.registry import SinkType

INGESTION_EVENTS = 500  # of a call; their columns then take at most a quarter of the megabyte
INGESTION_BYTES = 750_000  # of the events of a call; one takes 1,048,576 bytes, unpacked
INGESTION_AGE = 0.5  # seconds an incomplete batch waits for more events
COLUMN_BYTES = (
    64_000  # of an event in the column Event; of a longer value than 64 KB the rest is dropped without a word
)
API_VERSION = "2023-01-01"
MONITOR = {  # what access tokens are for
    "public": "https://monitor.azure.com",
    "government": "https://monitor.azure.us",
    "china": "https://monitor.azure.cn",
}
RULE_ID = re.compile(r"dcr-[0-9A-Za-z]+")
STREAM = re.compile(r"(?:Custom|Microsoft)-[0-9A-Za-z_-]+")
# Words in the code of a 400 that is about the rule or the address, not about the events (InvalidStream and the like).
ABOUT_RULE = ("Stream", "Transform", "Rule", "Immutable", "ApiVersion")


class SentinelOptions(AzureOptions):
    """Which stream of which data collection rule, and how to sign in."""

    url: Annotated[
        str,
        Setting(
            "url",
            "logs ingestion endpoint of the rule, or of a data collection endpoint, as "
            "https://NAME.REGION.ingest.monitor.azure.com",
            required=True,
        ),
    ] = ""
    dcr_immutable_id: Annotated[
        str, Setting("text", "immutable id of the data collection rule, as dcr-…", required=True)
    ] = ""
    stream: Annotated[str, Setting("text", "stream of the rule")] = "Custom-TeleportAudit_CL"
    compression: Gzip = "gzip"


class SentinelSink:
    """A `sentinel` sink. Raises SinkError when an option cannot be used. `tokens` stands in for those of Entra ID."""

    def __init__(
        self,
        options: SentinelOptions,
        name: str,
        section: str,
        *,
        keepalive: float = KEEPALIVE,
        tokens: AccessTokens | None = None,
    ) -> None:
        self.name = name
        self.limits = Limits(
            INGESTION_EVENTS, INGESTION_BYTES, options.max_connections, INGESTION_AGE, event_bytes=COLUMN_BYTES
        )
        self._section = section
        base = options.address(options.url, f"{section}.url")
        for option, value, form in (
            ("dcr-immutable-id", options.dcr_immutable_id, RULE_ID),
            ("stream", options.stream, STREAM),
        ):
            if not form.fullmatch(value):
                raise SinkError(
                    f"{section}.{option} is none", "It is shown in the JSON view of the data collection rule."
                )
        path = f"{base.path.rstrip('/')}/dataCollectionRules/{options.dcr_immutable_id}/streams/{options.stream}"
        self._url = base.with_path(path).with_query({"api-version": API_VERSION})
        self._tokens = tokens or AccessTokens(azure_source(options, section, MONITOR[options.cloud], os.environ))
        self._client = options.client(
            section, {"Content-Type": "application/json"}, keepalive=keepalive, status_only=True
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        content = orjson.dumps([row(event) for event in events], option=orjson.OPT_UTC_Z)
        answer = await self._tokens.signed_in(self._client, lambda: self._client.post(self._url, content))
        return answer if isinstance(answer, Retry) else self._judge(answer)

    def _judge(self, answer: Answer) -> Verdict:
        verdict = judge(answer)
        check = {
            401: f"{self._section}.cloud and {self._section}.tenant-id",
            403: f"that {self._section}.client-id has the role Monitoring Metrics Publisher on the data collection "
            "rule (it takes up to half an hour to work)",
            404: f"{self._section}.url and {self._section}.dcr-immutable-id",
        }.get(answer.status)
        if answer.status == 400 and any(word in error_code(answer.body) for word in ABOUT_RULE):
            check = f"{self._section}.stream and the data collection rule"
        if check is None:
            return verdict
        after = verdict.after if isinstance(verdict, Retry) else 0.0
        return Denied(f"the receiver answered {answer.status} {readable(answer.body)}; check {check}", after)

    async def reopen(self) -> None:
        self._client.reload()
        self._tokens.reload()

    async def close(self) -> None:
        await self._client.close()
        await self._tokens.close()


def row(event: Event) -> dict[str, Any]:
    """An event as a row of the table in docs/sinks/sentinel.md: what is searched for most, and the event itself.

    A column is null where the event has no such field, or one of another kind.
    """
    try:
        own = orjson.loads(event.body)
    except orjson.JSONDecodeError:  # nested deeper than a reader takes
        own = {}
    when = moment(event.time)
    session, success = event.session_id or own.get("sid"), own.get("success")
    return {
        "TimeGenerated": when,
        "EventTime": when,
        "EventType": event.type,
        "Code": _text(own.get("code")),
        "UID": event.id,
        "User": _text(own.get("user")),
        "Cluster": _text(own.get("cluster_name")),
        "SessionId": _text(session),
        "Success": success if isinstance(success, bool) else None,
        "Event": orjson.Fragment(with_session(event)),
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def error_code(body: bytes) -> str:
    """The code of an error as Azure writes it, "" for anything else."""
    try:
        code = orjson.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return code if isinstance(code, str) else ""


SINK = SinkType("Microsoft Sentinel and Azure Monitor, by the Logs Ingestion API", SentinelOptions, SentinelSink)
