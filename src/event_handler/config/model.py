"""Every option of `start`: type, default, limits, names and help. Nothing about options is written anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field

from event_handler.config import durations
from event_handler.config.forward import ElasticsearchOptions, FileOptions
from event_handler.config.option import Option, Seconds, option
from event_handler.redact import HIDDEN, origin, parts


class CommonOptions(BaseModel):
    """The plugin's own options, and ours that belong to no single sink."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fluentd_url: Annotated[
        str,
        option(
            "fluentd-url",
            "url",
            "URL that audit events are sent to",
            unset="none: no events to this sink",
        ),
    ] = ""
    fluentd_session_url: Annotated[
        str,
        option(
            "fluentd-session-url",
            "url",
            "URL of session recordings; .<session id>.log is appended",
            unset="none: needed with the other URL",
        ),
    ] = ""
    fluentd_cert: Annotated[
        str,
        option(
            "fluentd-cert",
            "file",
            "TLS client certificate for the collector",
            misspelled=True,
        ),
    ] = ""
    fluentd_key: Annotated[
        str,
        option(
            "fluentd-key",
            "file",
            "TLS client key for the collector",
            misspelled=True,
        ),
    ] = ""
    fluentd_ca: Annotated[
        str,
        option(
            "fluentd-ca",
            "file",
            "TLS CA of the collector",
            misspelled=True,
        ),
    ] = ""
    fluentd_max_connections: Annotated[
        int,
        option(
            "fluentd-max-connections",
            "number",
            "requests in flight at most, 0 = 64, or twice the concurrency where that is more",
            variable="MAX_CONNECTIONS",
            misspelled=True,
        ),
        Field(ge=0, le=1000),
    ] = 0
    fluentd_format: Annotated[
        Literal["single", "array"],
        option("fluentd-format", "choice", "one event per request, or a JSON array of many"),
    ] = "single"
    fluentd_compression: Annotated[
        Literal["none", "gzip"],
        option(
            "fluentd-compression",
            "choice",
            "how bodies are packed; Fluentd takes gzip from 1.2.3 on, Fluent Bit from 2.2.1 on",
        ),
    ] = "none"
    fluentd_ordered: Annotated[
        bool,
        option(
            "fluentd-ordered",
            "flag",
            "keep the order of a session, and of events without one: one request, one chunk at a time",
        ),
    ] = False
    fluentd_timeout: Annotated[
        float,
        option("fluentd-timeout", "duration", "longest time for a request, from connecting to the end of the answer"),
        Field(ge=0.1),
    ] = 30.0
    teleport_addr: Annotated[
        tuple[str, ...],
        option(
            "teleport-addr",
            "list",
            "host:port of the Auth Service or the Proxy, or a service name (_teleport._tcp.example.com); of several, "
            "each is tried",
        ),
        Field(min_length=1),
    ] = ("localhost:3025",)
    teleport_dial: Annotated[
        Literal["auto", "direct", "tls-routing", "upgrade", "tunnel"],
        option("teleport-dial", "choice", "way into the cluster; auto tries all, the likeliest first"),
    ] = "auto"
    teleport_insecure_proxy: Annotated[
        bool,
        option(
            "teleport-insecure-proxy",
            "flag",
            "do not check the Proxy's public certificate (the cluster's own always is)",
        ),
    ] = False
    teleport_identity: Annotated[
        str,
        option("teleport-identity", "file", "identity file"),
    ] = ""
    teleport_refresh_enabled: Annotated[
        bool,
        option("teleport-refresh-enabled", "flag", "use renewed credentials without a restart"),
    ] = True
    teleport_refresh_interval: Annotated[
        Seconds,
        option(
            "teleport-refresh-interval",
            "duration",
            "how often the credentials are read again",
        ),
    ] = 60.0
    teleport_ca: Annotated[
        str,
        option("teleport-ca", "file", "Teleport TLS CA file"),
    ] = ""
    teleport_cert: Annotated[
        str,
        option(
            "teleport-cert",
            "file",
            "Teleport TLS certificate file",
            misspelled=True,
        ),
    ] = ""
    teleport_key: Annotated[
        str,
        option("teleport-key", "file", "Teleport TLS key file"),
    ] = ""
    storage: Annotated[
        str,
        option(
            "storage",
            "text",
            "directory for the state",
            required=True,
        ),
    ] = ""
    batch: Annotated[
        int,
        option("batch", "number", "events of a search page", unset="the largest page the server gives"),
        Field(ge=1, le=10_000),
    ] = 0
    types: Annotated[
        tuple[str, ...],
        option("types", "list", "event types to deliver, also patterns and codes (docs/filters.md)", unset="all"),
    ] = ()
    skip_event_types: Annotated[
        tuple[str, ...],
        option("skip-event-types", "list", "event types not to deliver, also patterns and codes"),
    ] = ()
    skip_session_types: Annotated[
        tuple[str, ...],
        option("skip-session-types", "list", "types of recorded events not to deliver, also patterns and codes"),
    ] = ("print", "desktop.recording")
    start_time: Annotated[
        datetime | None,
        option("start-time", "time", "where to begin on the first run (RFC 3339)", unset="now"),
    ] = None
    reread_from: Annotated[
        datetime | None,
        option(
            "reread-from",
            "time",
            "go back to this time once, after a change of filters (docs/filters.md)",
            unset="never",
        ),
    ] = None
    timeout: Annotated[
        Seconds,
        option("timeout", "duration", "longest pause between two looks at the log"),
    ] = 10.0
    dry_run: Annotated[
        bool,
        option("dry-run", "flag", "read and count, deliver and remember nothing"),
    ] = False
    exit_on_last_event: Annotated[
        bool,
        option("exit-on-last-event", "flag", "stop when everything is delivered"),
    ] = False
    concurrency: Annotated[
        int,
        option("concurrency", "number", "recordings read at a time"),
        Field(ge=1, le=100),
    ] = 5
    window_size: Annotated[
        float,
        option("window-size", "duration", "span of one search through the past"),
        Field(ge=60.0),
    ] = 86_400.0
    late_days: Annotated[
        int,
        option("late-days", "number", "days before today that stay polled for late chunks"),
        Field(ge=1, le=30),
    ] = 3
    look_back: Annotated[
        Seconds,
        option("look-back", "duration", "how late an event may appear in a search"),
    ] = 300.0
    max_in_flight_bytes: Annotated[
        int,
        option("max-in-flight-bytes", "number", "bytes read and not yet answered for"),
        Field(ge=1_048_576, le=1_073_741_824),
    ] = 8_388_608
    poll_interval: Annotated[
        float,
        option(
            "poll-interval",
            "duration",
            "pause between two looks at the log when nothing is new",
            unset="2s, or the timeout where it is shorter; 10s for bulk export",
        ),
        Field(ge=0.1),
    ] = 0.0
    startup_timeout: Annotated[
        Seconds,
        option("startup-timeout", "duration", "give up when Teleport is not reached in this time, 0 = never"),
    ] = 0.0
    shutdown_timeout: Annotated[
        Seconds,
        option("shutdown-timeout", "duration", "time to finish what is in flight after a signal"),
    ] = 5.0
    missing_recording_ttl: Annotated[
        Seconds,
        option("missing-recording-ttl", "duration", "how long a recording that is not there is asked for"),
    ] = 604_800.0
    no_session_recordings: Annotated[
        bool,
        option("no-session-recordings", "flag", "do not read session recordings"),
    ] = False
    lock_enabled: Annotated[
        bool,
        option("lock-enabled", "flag", "lock users whose logins keep failing", variable="LOCKING_ENABLED"),
    ] = False
    lock_failed_attempts_count: Annotated[
        int,
        option(
            "lock-failed-attempts-count",
            "number",
            "failed logins within the lock period that lead to a lock",
            variable="LOCKING_FAILED_ATTEMPTS",
        ),
        Field(ge=1, le=1_000_000),
    ] = 3
    lock_period: Annotated[
        float,
        option("lock-period", "duration", "span in which failed logins are counted", variable="LOCKING_PERIOD"),
        Field(gt=0),
    ] = 60.0
    lock_for: Annotated[
        Seconds,
        option("lock-for", "duration", "how long a lock holds, 0 = until it is removed", variable="LOCKING_FOR"),
    ] = 0.0
    lock_exempt: Annotated[
        tuple[str, ...],
        option("lock-exempt", "list", "users that are never locked, patterns as bot-*", variable="LOCKING_EXEMPT"),
    ] = ()
    debug: Annotated[
        bool,
        option("debug", "flag", "more log lines, the same as log-level debug"),
    ] = False
    log_format: Annotated[
        Literal["auto", "console", "json"],
        option("log-format", "choice", "how log lines look; auto is console on a terminal and json elsewhere"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        option("log-level", "choice", "log lines of this level and above"),
    ] = "info"


class StartSettings(ElasticsearchOptions, FileOptions, CommonOptions):
    """What `start` works with. Durations are seconds, times are UTC, sizes are bytes, "" and None mean not set."""


def options() -> dict[str, Option]:
    """The option of every field, in the order of the model."""
    found = {}
    for name, field in StartSettings.model_fields.items():
        made = next(meta for meta in field.metadata if isinstance(meta, Option))
        choices = get_args(field.annotation) if made.kind == "choice" else ()
        found[name] = replace(made, choices=choices)
    return found


def default_text(name: str) -> str:
    """The default of a field as a user would write it, "" when there is none to show."""
    made, default = options()[name], StartSettings.model_fields[name].default
    if made.unset or made.required or default in (None, "", ()):
        return made.unset
    return spell(made, default)


def spell(made: Option, value: Any) -> str:
    """A value as a user would write it on the command line."""
    match made.kind:
        case "duration":
            return durations.render(value)
        case "flag":
            return "true" if value else "false"
        case "list":
            return ",".join(value)
        case "time":
            return str(value.isoformat().replace("+00:00", "Z"))
        case _:
            return str(value)


def shown(made: Option, value: Any) -> str:
    """A value as it may be logged: no secret, and of a URL its scheme, host and port."""
    if made.secret:
        return HIDDEN if value else ""
    return origin(value) if made.kind == "url" else spell(made, value)


def secrets(settings: StartSettings) -> list[str]:
    """The texts in the settings that may be shown nowhere."""
    found: list[str] = []
    for name, made in options().items():
        if value := getattr(settings, name):
            found += [value] if made.secret else parts(value) if made.kind == "url" else []
    return found


def allowed_text(name: str) -> str:
    """What a field takes: the choices or the range in the user's spelling, "" when there is no limit."""
    made = options()[name]
    if made.choices:
        return " or ".join(made.choices)
    low, high = "", ""
    for limit in _limits(StartSettings.model_fields[name].metadata):
        if isinstance(limit, Le):
            high = spell(made, limit.le)
        else:
            low = f"more than {spell(made, limit.gt)}" if isinstance(limit, Gt) else spell(made, limit.ge)
    if low and high:
        return f"{low} to {high}"
    return low if low.startswith("more") or not low else f"{low} or more"


def _limits(metadata: Iterable[object]) -> list[Ge | Gt | Le]:
    return [meta for meta in metadata if isinstance(meta, Ge | Gt | Le)]
