"""What is sent, over which protocol."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Annotated, Literal

from pydantic import Field

from event_handler import __version__
from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.http_login import Headers, LoginClient, LoginOptions, checked_headers
from event_handler.sinks.http_tls import Tls
from event_handler.sinks.otlp.encode import Encoder
from event_handler.sinks.otlp.grpc import GrpcExport, judge_export

EXPORT_EVENTS = 1000  # of a request
EXPORT_BYTES = 2 * 1024 * 1024  # of the events of a request; gRPC servers take 4 MiB, and attributes come on top
EXPORT_AGE = 0.5  # seconds an incomplete batch waits for more events
LOGS_PATH = "/v1/logs"


class OtlpOptions(LoginOptions):
    """Where to deliver, by which protocol, what the records look like, and how to sign in."""

    url: Annotated[
        str,
        Setting("url", f"the receiver, as https://host:4318; {LOGS_PATH} is added; for gRPC https://host:4317",
                required=True),
    ] = ""  # fmt: skip
    protocol: Annotated[Literal["http", "grpc"], Setting("choice", "how requests are sent")] = "http"
    body: Annotated[
        Literal["json", "map"], Setting("choice", "the body of a record: the event as JSON text, or as a map of values")
    ] = "json"
    service: Annotated[str, Setting("text", "service.name of the resource")] = "teleport"
    resource: Annotated[dict[str, str], Setting("table", "more attributes of the resource")] = Field(
        default_factory=dict
    )
    headers: Headers = Field(default_factory=dict, repr=False)


class OtlpSink:
    """An `otlp` sink. Raises SinkError when the options contradict one another or the TLS files cannot be used."""

    def __init__(self, options: OtlpOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        self.name = name
        self.limits = Limits(EXPORT_EVENTS, EXPORT_BYTES, options.max_connections, EXPORT_AGE)
        base = options.address(options.url, f"{section}.url")
        self._encoder = Encoder(
            {"service.name": options.service, **options.resource}, f"teleport-event-handler/{__version__}",
            structured=options.body == "map",
        )  # fmt: skip
        self._headers = checked_headers(options.headers, section)
        headers = {"Content-Type": "application/x-protobuf", **self._headers}
        self._client = LoginClient(options, section, headers, keepalive=keepalive)
        self._url = base if base.raw_path.strip("/") else base.with_path(LOGS_PATH)
        self._grpc: GrpcExport | None = None
        self._tls: Tls | None = None
        if options.protocol == "grpc":
            if other := _of_http_only(options):
                raise SinkError(f"{section}.{other} is for HTTP only", f"Set {section}.protocol to http, or remove it.")
            self._tls = Tls(section, options.files) if base.scheme == "https" else None
            self._grpc = GrpcExport(base.raw_host or "", base.port or 0, self._tls, options.timeout, section)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        request = self._encoder.request(events, time())
        if self._grpc is not None:
            login = self._client.login
            login.changed()
            named = {name.lower(): value for name, value in {**self._headers, **login.headers()}.items()}
            return await self._grpc.send(request, named)
        answer = await self._client.post(self._url, request)
        if isinstance(answer, Retry):
            return answer
        said = judge(answer)
        if not isinstance(said, Delivered):
            return said
        if not answer.complete:
            return Retry(f"the receiver answered {answer.status}, but not to the end: what it refused is not known")
        return judge_export(answer.body)

    async def reopen(self) -> None:
        self._client.reload()
        if self._tls is not None:
            self._tls.reload()

    async def close(self) -> None:
        await self._client.close()
        if self._grpc is not None:
            self._grpc.close()


def _of_http_only(options: OtlpOptions) -> str:
    """The name of an option that is set and that gRPC has no use for."""
    if options.proxy not in ("", "none"):
        return "proxy"
    return "oauth-token-url" if options.oauth_token_url else ""
