"""Every option of `start`: type, default, limits, names and help. Nothing about options is written anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field

from event_handler.settings import durations

Kind = Literal["text", "file", "flag", "number", "duration", "list", "time", "choice"]


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting is spelled outside: `flag` without dashes, `variables` and `keys` (dotted TOML paths).

    The first variable that is set and the first key that is there wins. `unset` says what leaving the option out means,
    where the default does not.
    """

    flag: str
    kind: Kind
    variables: tuple[str, ...]
    keys: tuple[str, ...]
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()
    unset: str = ""


def _option(
    flag: str,
    kind: Kind,
    help: str,
    *,
    variable: str = "",
    misspelled: bool = False,
    required: bool = False,
    unset: str = "",
) -> Option:
    """Derive the names as the plugin does: FDFWD_<FLAG>, the fully dotted TOML path, then the dashed one."""
    name = variable or flag.upper().replace("-", "_")
    variables = (f"FDFWD_{name}", f"FDWRD_{name}") if misspelled else (f"FDFWD_{name}",)
    fluentd = flag.startswith("fluentd-")
    path = f"forward.fluentd.{flag.removeprefix('fluentd-')}" if fluentd else flag
    keys = [path.replace("-", "."), path]
    for table in ("teleport", "lock"):  # [teleport] refresh-enabled: the plugin ignores it, users write it
        if flag.startswith(f"{table}-"):
            keys.append(f"{table}.{flag.removeprefix(f'{table}-')}")
    return Option(flag, kind, variables, tuple(dict.fromkeys(keys)), help, required, unset=unset)


Seconds = Annotated[float, Field(ge=0)]


class StartSettings(BaseModel):
    """What `start` works with. Durations are seconds, times are UTC, sizes are bytes, "" means not set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fluentd_url: Annotated[
        str,
        _option(
            "fluentd-url",
            "text",
            "URL that audit events are sent to",
            required=True,
        ),
    ] = ""
    fluentd_session_url: Annotated[
        str,
        _option(
            "fluentd-session-url",
            "text",
            "URL of session recordings; .<session id>.log is appended",
            required=True,
        ),
    ] = ""
    fluentd_cert: Annotated[
        str,
        _option(
            "fluentd-cert",
            "file",
            "TLS client certificate for the collector",
            misspelled=True,
        ),
    ] = ""
    fluentd_key: Annotated[
        str,
        _option(
            "fluentd-key",
            "file",
            "TLS client key for the collector",
            misspelled=True,
        ),
    ] = ""
    fluentd_ca: Annotated[
        str,
        _option(
            "fluentd-ca",
            "file",
            "TLS CA of the collector",
            misspelled=True,
        ),
    ] = ""
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
    teleport_addr: Annotated[
        tuple[str, ...],
        _option("teleport-addr", "list", "host:port of the Auth Service or the Proxy; of several, each is tried"),
        Field(min_length=1),
    ] = ("localhost:3025",)
    teleport_dial: Annotated[
        Literal["auto", "direct", "tls-routing", "upgrade", "tunnel"],
        _option("teleport-dial", "choice", "way into the cluster; auto tries all, the likeliest first"),
    ] = "auto"
    teleport_insecure_proxy: Annotated[
        bool,
        _option("teleport-insecure-proxy", "flag", "do not check the Proxy's public certificate (the cluster's own always is)"),
    ] = False
    teleport_identity: Annotated[
        str,
        _option("teleport-identity", "file", "identity file"),
    ] = ""
    teleport_refresh_enabled: Annotated[
        bool,
        _option("teleport-refresh-enabled", "flag", "use renewed credentials without a restart"),
    ] = True
    teleport_refresh_interval: Annotated[
        Seconds,
        _option(
            "teleport-refresh-interval",
            "duration",
            "how often the credentials are read again",
        ),
    ] = 60.0
    teleport_ca: Annotated[
        str,
        _option("teleport-ca", "file", "Teleport TLS CA file"),
    ] = ""
    teleport_cert: Annotated[
        str,
        _option(
            "teleport-cert",
            "file",
            "Teleport TLS certificate file",
            misspelled=True,
        ),
    ] = ""
    teleport_key: Annotated[
        str,
        _option("teleport-key", "file", "Teleport TLS key file"),
    ] = ""
    storage: Annotated[
        str,
        _option(
            "storage",
            "text",
            "directory for the state",
            required=True,
        ),
    ] = ""
    batch: Annotated[
        int,
        _option("batch", "number", "events of a search page", unset="the largest page the server gives"),
        Field(ge=1, le=10_000),
    ] = 0
    types: Annotated[
        tuple[str, ...],
        _option("types", "list", "event types to deliver", unset="all"),
    ] = ()
    skip_event_types: Annotated[
        tuple[str, ...],
        _option("skip-event-types", "list", "event types not to deliver"),
    ] = ()
    skip_session_types: Annotated[
        tuple[str, ...],
        _option("skip-session-types", "list", "types of recorded events not to deliver"),
    ] = ("print", "desktop.recording")
    start_time: Annotated[
        datetime | None,
        _option("start-time", "time", "where to begin on the first run (RFC 3339)", unset="now"),
    ] = None
    timeout: Annotated[
        Seconds,
        _option("timeout", "duration", "longest pause between two looks at the log"),
    ] = 10.0
    dry_run: Annotated[
        bool,
        _option("dry-run", "flag", "read and count, deliver and remember nothing"),
    ] = False
    exit_on_last_event: Annotated[
        bool,
        _option("exit-on-last-event", "flag", "stop when everything is delivered"),
    ] = False
    concurrency: Annotated[
        int,
        _option("concurrency", "number", "recordings read at a time"),
        Field(ge=1, le=100),
    ] = 5
    window_size: Annotated[
        float,
        _option("window-size", "duration", "span of one search through the past"),
        Field(ge=60.0),
    ] = 86_400.0
    late_days: Annotated[
        int,
        _option("late-days", "number", "days before today that stay polled for late chunks"),
        Field(ge=1, le=30),
    ] = 3
    look_back: Annotated[
        Seconds,
        _option("look-back", "duration", "how late an event may appear in a search"),
    ] = 300.0
    max_in_flight_bytes: Annotated[
        int,
        _option("max-in-flight-bytes", "number", "bytes read and not yet answered for"),
        Field(ge=1_048_576, le=1_073_741_824),
    ] = 16_777_216
    poll_interval: Annotated[
        float,
        _option(
            "poll-interval",
            "duration",
            "pause between two looks at the log when nothing is new",
            unset="2s, or the timeout where it is shorter; 10s for bulk export",
        ),
        Field(ge=0.1),
    ] = 0.0
    startup_timeout: Annotated[
        Seconds,
        _option("startup-timeout", "duration", "give up when Teleport is not reached in this time, 0 = never"),
    ] = 0.0
    shutdown_timeout: Annotated[
        Seconds,
        _option("shutdown-timeout", "duration", "time to finish what is in flight after a signal"),
    ] = 5.0
    missing_recording_ttl: Annotated[
        Seconds,
        _option("missing-recording-ttl", "duration", "how long a recording that is not there is asked for"),
    ] = 604_800.0
    no_session_recordings: Annotated[
        bool,
        _option("no-session-recordings", "flag", "do not read session recordings"),
    ] = False
    lock_enabled: Annotated[
        bool,
        _option("lock-enabled", "flag", "lock users whose logins keep failing", variable="LOCKING_ENABLED"),
    ] = False
    lock_failed_attempts_count: Annotated[
        int,
        _option(
            "lock-failed-attempts-count",
            "number",
            "failed logins within the lock period that lead to a lock",
            variable="LOCKING_FAILED_ATTEMPTS",
        ),
        Field(ge=1, le=1_000_000),
    ] = 3
    lock_period: Annotated[
        float,
        _option("lock-period", "duration", "span in which failed logins are counted", variable="LOCKING_PERIOD"),
        Field(gt=0),
    ] = 60.0
    lock_for: Annotated[
        Seconds,
        _option("lock-for", "duration", "how long a lock holds, 0 = until it is removed", variable="LOCKING_FOR"),
    ] = 0.0
    debug: Annotated[
        bool,
        _option("debug", "flag", "more log lines"),
    ] = False


def options() -> dict[str, Option]:
    """The option of every field, in the order of the model."""
    found = {}
    for name, field in StartSettings.model_fields.items():
        option = next(meta for meta in field.metadata if isinstance(meta, Option))
        choices = get_args(field.annotation) if option.kind == "choice" else ()
        found[name] = replace(option, choices=choices)
    return found


def default_text(name: str) -> str:
    """The default of a field as a user would write it, "" when there is none to show."""
    option, default = options()[name], StartSettings.model_fields[name].default
    if option.unset or option.required or default in (None, "", ()):
        return option.unset
    return spell(option, default)


def spell(option: Option, value: Any) -> str:
    """A value as a user would write it on the command line."""
    match option.kind:
        case "duration":
            return durations.render(value)
        case "flag":
            return "true" if value else "false"
        case "list":
            return ",".join(value)
        case _:
            return str(value)


def allowed_text(name: str) -> str:
    """What a field takes: the choices or the range in the user's spelling, "" when there is no limit."""
    option = options()[name]
    if option.choices:
        return " or ".join(option.choices)
    low, high = "", ""
    for limit in _limits(StartSettings.model_fields[name].metadata):
        if isinstance(limit, Le):
            high = spell(option, limit.le)
        else:
            low = f"more than {spell(option, limit.gt)}" if isinstance(limit, Gt) else spell(option, limit.ge)
    if low and high:
        return f"{low} to {high}"
    return low if low.startswith("more") or not low else f"{low} or more"


def _limits(metadata: Iterable[object]) -> list[Ge | Gt | Le]:
    return [meta for meta in metadata if isinstance(meta, Ge | Gt | Le)]
