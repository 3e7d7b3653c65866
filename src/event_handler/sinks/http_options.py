"""What every newer sink that speaks HTTP can be set to, under the same names and with the same meaning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from event_handler.setting import Options, Setting
from event_handler.sinks.http import REQUEST_TIMEOUT, Compression, TlsFiles


class HttpOptions(Options):
    """TLS files ("" = none), packing, requests in flight, and how long one may take."""

    ca: Annotated[str, Setting("file", "TLS CA of the receiver", unset="those of the system")] = ""
    cert: Annotated[str, Setting("file", "TLS client certificate for the receiver")] = ""
    key: Annotated[str, Setting("file", "TLS client key for the receiver")] = ""
    compression: Annotated[Compression, Setting("choice", "how bodies are packed")] = "gzip"
    max_connections: Annotated[int, Setting("number", "requests in flight at most"), Field(ge=1, le=100)] = 8
    timeout: Annotated[
        float,
        Setting("duration", "longest time for a request, from connecting to the end of the answer"),
        Field(ge=0.1),
    ] = REQUEST_TIMEOUT

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self.ca, self.cert, self.key)
