"""What the sinks for message buses can be set to, under the names that the sinks over HTTP have for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from event_handler.setting import Options, Setting

BUS_TIMEOUT = 30.0  # seconds for a batch, from connecting to the last acknowledgement, as for a request over HTTP


class BusOptions(Options):
    """TLS files ("" = none), batches in flight, and how long one may take."""

    ca: Annotated[str, Setting("file", "TLS CA of the receiver", unset="those of the system")] = ""
    cert: Annotated[str, Setting("file", "TLS client certificate for the receiver")] = ""
    key: Annotated[str, Setting("file", "TLS client key for the receiver")] = ""
    max_connections: Annotated[int, Setting("number", "batches in flight at most"), Field(ge=1, le=100)] = 8
    timeout: Annotated[
        float,
        Setting("duration", "longest time for a batch, from connecting to the last acknowledgement"),
        Field(ge=1.0),
    ] = BUS_TIMEOUT
