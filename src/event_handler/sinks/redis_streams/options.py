"""What a sink of Redis streams can be set to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from event_handler.setting import Setting
from event_handler.sinks.bus_options import BusOptions
from event_handler.sinks.http_tls import TlsVersion


class RedisOptions(BusOptions):
    """Which streams of which server, how long they may become, and what an answer must mean."""

    url: Annotated[
        str, Setting("url", "server, as rediss://redis.example.com:6379 or redis:// without TLS", required=True)
    ] = ""
    stream: Annotated[str, Setting("text", "key of the stream of audit events")] = "teleport:audit"
    session_stream: Annotated[str, Setting("text", "key of the stream of recorded events")] = "teleport:session"
    max_length: Annotated[
        int,
        Setting("number", "entries that a stream keeps, roughly; Redis deletes older ones, read or not; 0 = all"),
        Field(ge=0),
    ] = 1_000_000
    db: Annotated[int, Setting("number", "number of the database"), Field(ge=0)] = 0
    username: Annotated[str, Setting("text", "user name", unset="the user named default")] = ""
    password: Annotated[
        str, Setting("text", "password; better in password-file or the variable", secret=True), Field(repr=False)
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""
    replicas: Annotated[
        int, Setting("number", "replicas that must have a batch before it counts as delivered (WAIT)"), Field(ge=0)
    ] = 0
    idempotent: Annotated[
        bool, Setting("flag", "let Redis 8.6 or newer leave out events that it has already (IDMP)")
    ] = False
    min_tls: Annotated[TlsVersion, Setting("choice", "oldest version of TLS that is spoken with the receiver")] = "1.2"
