"""Every option of `start`: type, default, limits, names and help. Nothing about options is written anywhere else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model

from event_handler.config.components import NAMED, ConfiguredSink
from event_handler.config.forward import forward_fields
from event_handler.config.option import FORWARD, Option, option, setting_of
from event_handler.config.spelling import allowed, secret_parts, shown, spell
from event_handler.setting import Seconds

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # where a pod finds its token, unless told otherwise


class StartSettings(BaseModel):
    """What `start` works with. Durations are seconds, times are UTC, sizes are bytes, "" and None mean not set.

    The settings of sinks with flags are added to it below; `sinks` are all that are delivered to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        option("teleport-dial", "choice", "route into the cluster; auto tries all, the likeliest first"),
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
            "directory for the state, or the URL of a database or bucket (docs/storage.md)",
            required=True,
        ),
    ] = ""
    storage_interval: Annotated[
        float,
        Field(ge=0.1, le=3600.0),
        option("storage-interval", "duration", "pause between two writes of a state in a bucket"),
    ] = 10.0
    lease: Annotated[
        Literal["none", "kubernetes"],
        option(
            "lease",
            "choice",
            "with kubernetes, one replica is at work and the others stand by (docs/standby.md)",
        ),
    ] = "none"
    lease_name: Annotated[
        str,
        option("lease-name", "text", "name of the lease", unset="teleport-event-handler- and the cluster"),
    ] = ""
    lease_namespace: Annotated[
        str,
        option("lease-namespace", "text", "namespace of the lease", unset="that of the pod"),
    ] = ""
    lease_account: Annotated[
        str,
        option("lease-account", "text", "directory with token, ca.crt and namespace of the pod's service account"),
    ] = ACCOUNT
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
    listen: Annotated[
        str,
        option(
            "listen", "text", "host:port to serve metrics, health and the status page on (docs/status.md)", unset="none"
        ),
    ] = ""
    listen_cert: Annotated[str, option("listen-cert", "file", "TLS certificate of the listener")] = ""
    listen_key: Annotated[str, option("listen-key", "file", "TLS key of the listener")] = ""
    listen_client_ca: Annotated[
        str, option("listen-client-ca", "file", "TLS CA of those who may ask, by a client certificate")
    ] = ""
    listen_token: Annotated[
        str,
        option("listen-token", "text", "bearer token to ask with; better in the file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    listen_token_file: Annotated[str, option("listen-token-file", "file", "file with that token")] = ""
    listen_user: Annotated[str, option("listen-user", "text", "user name to ask with")] = ""
    listen_password: Annotated[
        str,
        option("listen-password", "text", "its password; better in the file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    listen_password_file: Annotated[str, option("listen-password-file", "file", "file with that password")] = ""
    listen_unprotected: Annotated[
        bool,
        option("listen-unprotected", "flag", "let everybody ask on an address that can be reached from other machines"),
    ] = False
    telemetry_endpoint: Annotated[
        str,
        option(
            "telemetry-endpoint",
            "text",
            "URL of an OpenTelemetry Collector that gets our metrics over OTLP/HTTP (docs/metrics.md)",
            unset="none",
        ),
    ] = ""
    telemetry_interval: Annotated[
        float,
        Field(ge=1.0, le=3600.0),
        option("telemetry-interval", "duration", "pause between two exports of metrics"),
    ] = 60.0
    telemetry_traces: Annotated[
        bool, option("telemetry-traces", "flag", "export a trace of each batch too, from reading to its answer")
    ] = False
    _sinks: tuple[ConfiguredSink, ...] = PrivateAttr(())

    @property
    def sinks(self) -> tuple[ConfiguredSink, ...]:
        """All that is delivered to, from whatever table."""
        return self._sinks

    def with_sinks(self, sinks: tuple[ConfiguredSink, ...]) -> StartSettings:
        made = self.model_copy()
        made._sinks = sinks
        return made


def _with_forward_sinks() -> type[StartSettings]:
    first = dict(forward_fields("fluentd"))  # the plugin's own sink comes first in the help
    rest = {name: field for sink in FORWARD if sink != "fluentd" for name, field in forward_fields(sink)}
    return create_model("StartSettings", __base__=StartSettings, **first, **rest)


ALL_SETTINGS = _with_forward_sinks()


def options() -> dict[str, Option]:
    """The option of every field, in the order of the model."""
    found = {}
    fields = ALL_SETTINGS.model_fields
    fluentd = {name: field for name, field in fields.items() if name.startswith("fluentd_")}
    for name, field in {**fluentd, **fields}.items():
        made = next(meta for meta in field.metadata if isinstance(meta, Option))
        choices = get_args(field.annotation) if made.kind == "choice" else ()
        found[name] = replace(made, choices=choices)
    return found


def default_text(name: str) -> str:
    """The default of a field as a user would write it, "" when there is none to show."""
    made, default = options()[name], ALL_SETTINGS.model_fields[name].default
    if made.unset or made.required or default in (None, "", ()):
        return made.unset
    return spell(made.kind, default)


def allowed_text(name: str) -> str:
    """What a field takes: the choices or the range in the user's spelling, "" when there is no limit."""
    return allowed(options()[name].kind, ALL_SETTINGS.model_fields[name])


def settings_shown(settings: StartSettings) -> dict[str, str]:
    """What differs from its default, as a user would write it, without a secret."""
    found = {
        name: shown(made, getattr(settings, name))
        for name, made in options().items()
        if getattr(settings, name) != ALL_SETTINGS.model_fields[name].default
    }
    for sink in settings.sinks:
        if sink.section.startswith(NAMED):
            found |= {f"{sink.section}.{name}": text for name, text in sink.shown().items()}
    return found


def secrets(settings: StartSettings) -> list[str]:
    """The texts in the settings that may be shown nowhere."""
    found: list[str] = []
    for name, made in options().items():
        found += secret_parts(made, getattr(settings, name))
    for sink in settings.sinks:
        for field in type(sink.options).model_fields:
            found += secret_parts(setting_of(type(sink.options), field), getattr(sink.options, field))
    return found
