"""What every newer sink that speaks HTTP can be set to, under the same names and with the same meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from yarl import URL

from event_handler.setting import Options, Setting
from event_handler.sinks.http import (
    ANSWER_LIMIT,
    KEEPALIVE,
    REQUEST_TIMEOUT,
    HttpClient,
    Sign,
    TlsFiles,
    endpoint,
)
from event_handler.sinks.http_tls import TlsVersion
from event_handler.sinks.packing import Compression

Gzip = Annotated[Literal["none", "gzip"], Setting("choice", "how bodies are packed")]  # where zstd is not taken


class HttpOptions(Options):
    """TLS files ("" = none), packing, requests in flight, and how long one may take."""

    ca: Annotated[str, Setting("file", "TLS CA of the receiver", unset="those of the system")] = ""
    cert: Annotated[str, Setting("file", "TLS client certificate for the receiver")] = ""
    key: Annotated[str, Setting("file", "TLS client key for the receiver")] = ""
    min_tls: Annotated[TlsVersion, Setting("choice", "oldest version of TLS that is spoken with the receiver")] = "1.2"
    proxy: Annotated[
        str,
        Setting(
            "url",
            "proxy to the receiver, or `none` for the direct way",
            unset="that of the environment (docs/sinks.md)",
        ),
        Field(repr=False),
    ] = ""
    compression: Annotated[Compression, Setting("choice", "how bodies are packed")] = "gzip"
    max_connections: Annotated[int, Setting("number", "requests in flight at most"), Field(ge=1, le=100)] = 8
    timeout: Annotated[
        float,
        Setting("duration", "longest time for a request, from connecting to the end of the answer"),
        Field(ge=0.1),
    ] = REQUEST_TIMEOUT

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self.ca, self.cert, self.key, self.min_tls)

    def address(self, text: str, option: str) -> URL:
        """The URL in an option of that full name (`sinks.siem.url`). Raises SinkError as `endpoint` does."""
        return endpoint(text, option, self.files, self.proxy)

    def client(
        self,
        section: str,
        headers: Mapping[str, str],
        *,
        connections: int = 0,
        keepalive: float = KEEPALIVE,
        answer_limit: int = ANSWER_LIMIT,
        status_only: bool = False,
        sign: Sign | None = None,
    ) -> HttpClient:
        """A client for these options, with `connections` instead of `max_connections` where given.

        Raises SinkError when the TLS files cannot be used.
        """
        return HttpClient(
            section,
            self.files,
            connections=connections or self.max_connections,
            headers=headers,
            timeout=self.timeout,
            keepalive=keepalive,
            answer_limit=answer_limit,
            compression=self.compression,
            status_only=status_only,
            proxy=self.proxy,
            sign=sign,
        )
