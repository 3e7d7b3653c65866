"""Every option of `start`: its type, default, limits, names and help. Nothing about options is written anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["text", "file", "flag", "number", "duration", "list", "time", "choice"]


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting is spelled outside: `flag` without dashes, `variables` and `keys` (dotted TOML paths), the first one wins."""

    flag: str
    kind: Kind
    variables: tuple[str, ...]
    keys: tuple[str, ...]
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()


def _option(flag: str, kind: Kind, help: str, *, variable: str = "", misspelled: bool = False, required: bool = False) -> Option:
    """Derive the names as the plugin does: FDFWD_<FLAG>, the fully dotted TOML path, then the dashed one."""
    name = variable or flag.upper().replace("-", "_")
    variables = (f"FDFWD_{name}", f"FDWRD_{name}") if misspelled else (f"FDFWD_{name}",)
    path = f"forward.fluentd.{flag.removeprefix('fluentd-')}" if flag.startswith("fluentd-") else flag
    keys = [path.replace("-", "."), path]
    for table in ("teleport", "lock"):  # [teleport] refresh-enabled: the plugin ignores it, users write it
        if flag.startswith(f"{table}-"):
            keys.append(f"{table}.{flag.removeprefix(f'{table}-')}")
    return Option(flag, kind, variables, tuple(dict.fromkeys(keys)), help, required)


Seconds = Annotated[float, Field(ge=0)]


class StartSettings(BaseModel):
    """What `start` works with. Durations are seconds, times are UTC, sizes are bytes, "" means not set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fluentd_url: Annotated[str, _option("fluentd-url", "text", "URL that audit events are sent to", required=True)] = ""
    fluentd_session_url: Annotated[
        str,
        _option("fluentd-session-url", "text", "URL of session recordings; .<session id>.log is appended", required=True),
    ] = ""
    fluentd_cert: Annotated[str, _option("fluentd-cert", "file", "TLS client certificate for the collector", misspelled=True)] = ""
    fluentd_key: Annotated[str, _option("fluentd-key", "file", "TLS client key for the collector", misspelled=True)] = ""
    fluentd_ca: Annotated[str, _option("fluentd-ca", "file", "TLS CA of the collector", misspelled=True)] = ""
    fluentd_max_connections: Annotated[
        int,
        _option(
            "fluentd-max-connections",
            "number",
            "requests in flight, 0 = twice the concurrency",
            variable="MAX_CONNECTIONS",
            misspelled=True,
        ),
        Field(ge=0, le=1000),
    ] = 0
    fluentd_format: Annotated[
        Literal["single", "array"],
        _option("fluentd-format", "choice", "one event per request, or a JSON array of many"),
    ] = "single"
    teleport_addr: Annotated[str, _option("teleport-addr", "text", "host:port of the Auth Service or the Proxy")] = "localhost:3025"
    teleport_identity: Annotated[str, _option("teleport-identity", "file", "identity file")] = ""
    teleport_refresh_enabled: Annotated[
        bool, _option("teleport-refresh-enabled", "flag", "read the credentials again on every new connection")
    ] = False
    teleport_refresh_interval: Annotated[
        Seconds,
        _option("teleport-refresh-interval", "duration", "accepted for the Go plugin's files; credentials are read when needed"),
    ] = 60.0
    teleport_ca: Annotated[str, _option("teleport-ca", "file", "Teleport TLS CA file")] = ""
    teleport_cert: Annotated[str, _option("teleport-cert", "file", "Teleport TLS certificate file", misspelled=True)] = ""
    teleport_key: Annotated[str, _option("teleport-key", "file", "Teleport TLS key file")] = ""
    storage: Annotated[str, _option("storage", "text", "directory for the state", required=True)] = ""
    batch: Annotated[
        int, _option("batch", "number", "events of a search page, 0 = as many as the server gives"), Field(ge=0, le=10_000)
    ] = 0
    types: Annotated[tuple[str, ...], _option("types", "list", "event types to deliver, empty = all")] = ()
    skip_event_types: Annotated[tuple[str, ...], _option("skip-event-types", "list", "event types not to deliver")] = ()
    skip_session_types: Annotated[
        tuple[str, ...], _option("skip-session-types", "list", "types of recorded events not to deliver")
    ] = ("print", "desktop.recording")
    start_time: Annotated[
        datetime | None, _option("start-time", "time", "where to begin on the first run (RFC 3339), default now")
    ] = None
    timeout: Annotated[Seconds, _option("timeout", "duration", "longest pause between two looks at the log")] = 10.0
    dry_run: Annotated[bool, _option("dry-run", "flag", "read and count, deliver and remember nothing")] = False
    exit_on_last_event: Annotated[bool, _option("exit-on-last-event", "flag", "stop when everything is delivered")] = False
    concurrency: Annotated[int, _option("concurrency", "number", "recordings read at a time"), Field(ge=1, le=100)] = 5
    window_size: Annotated[float, _option("window-size", "duration", "span of one search through the past"), Field(ge=60.0)] = 86_400.0
    late_days: Annotated[
        int, _option("late-days", "number", "days before today that stay polled for late chunks"), Field(ge=1, le=30)
    ] = 3
    look_back: Annotated[Seconds, _option("look-back", "duration", "how late an event may appear in a search")] = 300.0
    max_in_flight_bytes: Annotated[
        int,
        _option("max-in-flight-bytes", "number", "bytes read and not yet answered for"),
        Field(ge=1_048_576, le=1_073_741_824),
    ] = 16_777_216
    startup_timeout: Annotated[
        Seconds, _option("startup-timeout", "duration", "give up when Teleport is not reached in this time, 0 = never")
    ] = 0.0
    shutdown_timeout: Annotated[
        Seconds, _option("shutdown-timeout", "duration", "time to finish what is in flight after a signal")
    ] = 5.0
    missing_recording_ttl: Annotated[
        Seconds, _option("missing-recording-ttl", "duration", "how long a recording that is not there is asked for")
    ] = 604_800.0
    no_session_recordings: Annotated[bool, _option("no-session-recordings", "flag", "do not read session recordings")] = False
    debug: Annotated[bool, _option("debug", "flag", "more log lines")] = False


def options() -> dict[str, Option]:
    """The option of every field, in the order of the model."""
    found = {}
    for name, field in StartSettings.model_fields.items():
        option = next(meta for meta in field.metadata if isinstance(meta, Option))
        choices = get_args(field.annotation) if option.kind == "choice" else ()
        found[name] = Option(option.flag, option.kind, option.variables, option.keys, option.help, option.required, choices)
    return found
