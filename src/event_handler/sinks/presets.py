"""Services that take JSON over HTTP, each a row of a table: address, header of the key, form of an event, limits, and
what an answer says.

Facts: New Relic's "Introduction to the Log API"; Axiom's "Send data via the Axiom API" and "Limits and requirements";
Honeycomb's API reference, "Events"; Better Stack's "Ingesting API"; Graylog's "GELF inputs" and the GELF 1.1
specification.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Limits, Partial, Reject, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import json_of, judge, readable, unproven
from event_handler.sinks.fields import with_fields, with_session
from event_handler.sinks.http import KEEPALIVE, Answer
from event_handler.sinks.http_options import Gzip, HttpOptions
from event_handler.sinks.moments import rfc3339
from event_handler.sinks.registry import SinkType
from event_handler.sinks.secret import Secret

MEGABYTE = 1_000_000
PRESET_AGE = 0.5  # seconds an incomplete batch waits for more events
DATASET = re.compile(r"[A-Za-z0-9._-]{1,128}")
GELF_NAME = re.compile(r"[^\w.-]")  # what the name of a field must not have
GELF_LEVELS = {True: 6, False: 4}  # informational, and warning for what failed (RFC 5424)


class PresetOptions(HttpOptions):
    """The key of the service, and how events look."""

    token: Annotated[
        str, Setting("text", "key of the service; better in token-file or the variable", secret=True), Field(repr=False)
    ] = ""
    token_file: Annotated[str, Setting("file", "file with the key; it is read again when it changes")] = ""
    record: Annotated[
        Literal["convention", "raw"],
        Setting("choice", "events as the service likes them, with their time, or as Teleport wrote them"),
    ] = "convention"
    compression: Gzip = "gzip"


class NewrelicOptions(PresetOptions):
    """Which region of New Relic; `token` is a license key."""

    region: Annotated[Literal["us", "eu", "fedramp"], Setting("choice", "where the account is")] = "us"
    url: Annotated[str, Setting("url", "address of the Log API", unset="that of the region")] = ""


AXIOM_EDGE = re.compile(r"https?://[^/]*\.edge\.axiom\.co(:\d+)?")  # the address of an edge deployment


class AxiomOptions(PresetOptions):
    """Which dataset of Axiom; `token` is an API token that may ingest."""

    dataset: Annotated[str, Setting("text", "name of the dataset", required=True)] = ""
    url: Annotated[str, Setting("url", "address of Axiom, or of an edge deployment")] = "https://api.axiom.co"


class HoneycombOptions(PresetOptions):
    """Which dataset of Honeycomb; `token` is an ingest key."""

    dataset: Annotated[str, Setting("text", "name of the dataset")] = "teleport"
    url: Annotated[str, Setting("url", "address of Honeycomb; in the EU https://api.eu1.honeycomb.io")] = (
        "https://api.honeycomb.io"
    )


class BetterstackOptions(PresetOptions):
    """Which source of Better Stack; `token` is its source token."""

    url: Annotated[
        str, Setting("url", "ingesting host of the source, as https://s123.eu-nbg-2.betterstackdata.com", required=True)
    ] = ""


class GraylogOptions(PresetOptions):
    """Which input of Graylog."""

    url: Annotated[
        str, Setting("url", "address of the input, as https://graylog.example.com:12201; /gelf is added", required=True)
    ] = ""
    bulk: Annotated[
        bool, Setting("flag", "many events in a request: Enable Bulk Receiving must be on for the input")
    ] = False
    key_header: Annotated[str, Setting("text", "header in which the input wants its key, where it wants one")] = (
        "Authorization"
    )
    host: Annotated[str, Setting("text", "host of the messages", unset="name of the cluster")] = ""
    max_connections: Annotated[int, Setting("number", "requests in flight at most"), Field(ge=1, le=100)] = 16


@dataclass(frozen=True, slots=True)
class Preset:
    """A service. `address` is what is asked, `form` makes an event's bytes, `says` judges a success by its body.

    `header` and `before` hold the key; `key_needed` is False where the service may want none. `limits` of a request
    have their source in the documentation that this module names.
    """

    limits: Limits
    address: Callable[[Any], str]
    header: Callable[[Any], str]
    form: Callable[[Event, Any], bytes]
    says: Callable[[Answer, int], Verdict] | None = None
    before: str = ""
    key_needed: bool = True
    lines: bool = False


class PresetSink:
    """A sink of a preset. Raises SinkError when the key, the URL or the TLS files cannot be used."""

    def __init__(self, preset: Preset, options: Any, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        self.name = name
        self.limits = replace(preset.limits, requests=options.max_connections)
        self._preset = preset
        self._options = options
        self._section = section
        if not DATASET.fullmatch(getattr(options, "dataset", "none")):
            raise SinkError(f"{section}.dataset is no name of a dataset", "It must look like teleport-audit.")
        self._url = options.address(preset.address(options), f"{section}.url")
        given = options.token or options.token_file or preset.key_needed
        self._key = Secret(options.token, options.token_file, f"{section}.token") if given else None
        self._header = preset.header(options)
        self._form = preset.form if options.record == "convention" else lambda event, _: with_session(event)
        self._client = options.client(
            section,
            {"Content-Type": "application/json", **self._sign_in()},
            keepalive=keepalive,
            status_only=preset.says is None,
        )

    def _sign_in(self) -> Mapping[str, str]:
        return {self._header: self._preset.before + self._key.value} if self._key else {}

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if self._key is not None and self._key.changed():
            for name, value in self._sign_in().items():
                self._client.set_header(name, value)
        documents = [self._form(event, self._options) for event in events]
        body = b"\n".join(documents) if self._preset.lines else b"[%b]" % b",".join(documents)
        answer = await self._client.post(self._url, body)
        if isinstance(answer, Retry):
            return answer
        verdict = judge(answer)
        if isinstance(verdict, Delivered):
            return self._preset.says(answer, len(events)) if self._preset.says else verdict
        if isinstance(verdict, Denied) and answer.status in (401, 403):
            return Denied(f"{verdict.reason.partition(';')[0]}; check {self._section}.token", after=verdict.after)
        return verdict

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


def _of_newrelic(event: Event, _: NewrelicOptions) -> bytes:
    """New Relic makes attributes of the JSON in `message`; `timestamp` is in milliseconds."""
    message = orjson.dumps(with_session(event).decode("utf-8", "replace"))
    return b'{"timestamp":%d,"logtype":"teleport","message":%b}' % (round(event.time * 1000), message)


def _of_axiom(event: Event, _: AxiomOptions) -> bytes:
    return with_fields(with_session(event), b'"_time":"%b"' % rfc3339(event.time))


def _of_honeycomb(event: Event, _: HoneycombOptions) -> bytes:
    return b'{"time":"%b","data":%b}' % (rfc3339(event.time), with_session(event))


def _of_betterstack(event: Event, _: BetterstackOptions) -> bytes:
    message = orjson.dumps(event.type)
    return with_fields(with_session(event), b'"dt":"%b","message":%b' % (rfc3339(event.time), message))


def _of_graylog(event: Event, options: GraylogOptions) -> bytes:
    """A GELF message: what is neither text nor a number becomes JSON text, for a field holds nothing else."""
    content: dict[str, Any] = orjson.loads(with_session(event))
    user, cluster = content.get("user"), content.get("cluster_name")
    message: dict[str, Any] = {
        "version": "1.1",
        "host": options.host or (cluster if cluster and isinstance(cluster, str) else "teleport"),
        "short_message": f"{event.type} {user}" if user and isinstance(user, str) else event.type,
        "full_message": event.body.decode("utf-8", "replace"),
        "timestamp": round(event.time, 3),
        "level": GELF_LEVELS[content.get("success") is not False],
    }
    for name, value in content.items():
        plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        message[_gelf_name(name)] = value if plain else orjson.dumps(value).decode()
    return orjson.dumps(message)


def _gelf_name(name: str) -> str:
    """`_id` is Graylog's own, and its server takes it for nobody."""
    return "_teleport_id" if name == "id" else f"_{GELF_NAME.sub('_', name)}"


def axiom_url(options: Any) -> str:
    """An `axiom` sink's. Edge deployments have an address of another form ("Ingest data to edge deployment")."""
    base = options.url.rstrip("/")
    if AXIOM_EDGE.fullmatch(base):
        return f"{base}/v1/ingest/{options.dataset}"
    return f"{base}/v1/datasets/{options.dataset}/ingest"


def _axiom_says(answer: Answer, count: int) -> Verdict:
    """`{"ingested":…,"failed":…,"failures":[{"error":…}]}`; it does not say which events have failed."""
    said = json_of(answer)
    if not isinstance(said, dict) or not isinstance(said.get("ingested"), int):
        return unproven(answer, f"the receiver took the {count} events")
    if not said.get("failed"):
        return Delivered()
    failures = said.get("failures") or [{}]
    reason = readable(str(failures[0].get("error", "")).encode()) if isinstance(failures[0], dict) else ""
    return Reject(f"the receiver refused {said['failed']} events: {reason}")


def _honeycomb_says(answer: Answer, count: int) -> Verdict:
    """A list with a status for each event."""
    said = json_of(answer)
    if not isinstance(said, list) or len(said) != count or not all(isinstance(one, dict) for one in said):
        return unproven(answer, f"the receiver names each of the {count} events")
    status = {place: one.get("status") for place, one in enumerate(said)}
    failed = [place for place, one in status.items() if one != 202]
    rejected = {
        place: f"the receiver answered 400 {readable(str(said[place].get('error', '')).encode())}".strip()
        for place in failed
        if status[place] == 400
    }
    retry = frozenset(failed) - frozenset(rejected)
    if not failed:
        return Delivered()
    worst = next((status[place] for place in sorted(retry)), None)
    why = f"{len(retry)} of {count} events were not taken: {worst}" if retry else ""
    if len(retry) == count:
        return Retry(why)
    if len(rejected) == count == 1:
        return Reject(rejected[0])
    return Partial(retry, rejected, why)


NEWRELIC_HOSTS = {"us": "log-api.newrelic.com", "eu": "log-api.eu.newrelic.com", "fedramp": "gov-log-api.newrelic.com"}
NEWRELIC = Preset(
    # A request has 1 MB at most, packed or not; text in JSON text grows by what must be escaped.
    Limits(1000, 600_000, 0, PRESET_AGE, event_bytes=600_000),
    lambda options: options.url or f"https://{NEWRELIC_HOSTS[options.region]}/log/v1",
    lambda _: "Api-Key",
    _of_newrelic,
)
AXIOM = Preset(
    Limits(1000, 4 * MEGABYTE, 0, PRESET_AGE, event_bytes=MEGABYTE - 100),  # an event has 1 MB at most
    axiom_url,
    lambda _: "Authorization",
    _of_axiom,
    _axiom_says,
    before="Bearer ",
)
HONEYCOMB = Preset(
    Limits(1000, 4 * MEGABYTE, 0, PRESET_AGE, event_bytes=MEGABYTE - 100),  # 5 MB a request, 1 MB an event
    lambda options: f"{options.url.rstrip('/')}/1/batch/{options.dataset}",
    lambda _: "X-Honeycomb-Team",
    _of_honeycomb,
    _honeycomb_says,
)
BETTERSTACK = Preset(
    Limits(1000, 4 * MEGABYTE, 0, PRESET_AGE, event_bytes=MEGABYTE),  # 20 MB a request, packed
    lambda options: options.url,
    lambda _: "Authorization",
    _of_betterstack,
    before="Bearer ",
)
# An input takes 64 KiB a request unless Max HTTP chunk size is raised; the event is in it twice.
GELF_EVENT = 28_000
GRAYLOG = Preset(
    Limits(1, GELF_EVENT, 0, 0.0, event_bytes=GELF_EVENT),
    lambda options: f"{options.url.rstrip('/').removesuffix('/gelf')}/gelf",
    lambda options: options.key_header,
    _of_graylog,
    key_needed=False,
    lines=True,
)
GRAYLOG_BULK = replace(GRAYLOG, limits=replace(GRAYLOG.limits, events=100, age=PRESET_AGE))


def _type(summary: str, options: type[PresetOptions], preset: Callable[[Any], Preset]) -> SinkType:
    def make(given: Any, name: str, section: str) -> PresetSink:
        return PresetSink(preset(given), given, name, section)

    return SinkType(summary, options, make)


SINKS = {
    "axiom": _type("Axiom, into a dataset", AxiomOptions, lambda _: AXIOM),
    "betterstack": _type("Better Stack, into a source of logs", BetterstackOptions, lambda _: BETTERSTACK),
    "graylog-gelf": _type(
        "Graylog, by an input for GELF over HTTP",
        GraylogOptions,
        lambda options: GRAYLOG_BULK if options.bulk else GRAYLOG,
    ),
    "honeycomb": _type("Honeycomb, into a dataset", HoneycombOptions, lambda _: HONEYCOMB),
    "newrelic": _type("New Relic's logs", NewrelicOptions, lambda _: NEWRELIC),
}
