"""How the settings come together, and every row of the table of the Go plugin's flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from event_handler.config.load import Loaded, load
from event_handler.config.model import ACCOUNT, options
from event_handler.errors import ConfigurationError

REQUIRED = {"fluentd_url": "https://c/a", "fluentd_session_url": "https://c/s", "storage": "st"}
FILE = "<a file>"  # replaced by one that exists

# flag, variables, TOML keys, default, text, value
Row = tuple[str, list[str], list[str], Any, str, Any]

ROWS: list[Row] = [
    ("fluentd-url", ["FDFWD_FLUENTD_URL"], ["forward.fluentd.url"], "", "http://x", "http://x"),
    (
        "fluentd-session-url",
        ["FDFWD_FLUENTD_SESSION_URL"],
        ["forward.fluentd.session.url", "forward.fluentd.session-url"],
        "",
        "http://x/s",
        "http://x/s",
    ),
    ("fluentd-cert", ["FDFWD_FLUENTD_CERT", "FDWRD_FLUENTD_CERT"], ["forward.fluentd.cert"], "", FILE, FILE),
    ("fluentd-key", ["FDFWD_FLUENTD_KEY", "FDWRD_FLUENTD_KEY"], ["forward.fluentd.key"], "", FILE, FILE),
    ("fluentd-ca", ["FDFWD_FLUENTD_CA", "FDWRD_FLUENTD_CA"], ["forward.fluentd.ca"], "", FILE, FILE),
    (
        "fluentd-max-connections",
        ["FDFWD_MAX_CONNECTIONS", "FDWRD_MAX_CONNECTIONS"],
        ["forward.fluentd.max.connections", "forward.fluentd.max-connections"],
        0,
        "0x10",
        16,
    ),
    (
        "teleport-addr",
        ["FDFWD_TELEPORT_ADDR"],
        ["teleport.addr", "teleport-addr"],
        ("localhost:3025",),
        "a:1,b:2",
        ("a:1", "b:2"),
    ),
    ("teleport-identity", ["FDFWD_TELEPORT_IDENTITY"], ["teleport.identity", "teleport-identity"], "", FILE, FILE),
    (
        "teleport-refresh-enabled",
        ["FDFWD_TELEPORT_REFRESH_ENABLED"],
        ["teleport.refresh.enabled", "teleport-refresh-enabled", "teleport.refresh-enabled"],
        True,
        "no",
        False,
    ),
    (
        "teleport-refresh-interval",
        ["FDFWD_TELEPORT_REFRESH_INTERVAL"],
        ["teleport.refresh.interval", "teleport-refresh-interval", "teleport.refresh-interval"],
        60.0,
        "2m",
        120.0,
    ),
    ("teleport-ca", ["FDFWD_TELEPORT_CA"], ["teleport.ca", "teleport-ca"], "", FILE, FILE),
    (
        "teleport-cert",
        ["FDFWD_TELEPORT_CERT", "FDWRD_TELEPORT_CERT"],
        ["teleport.cert", "teleport-cert"],
        "",
        FILE,
        FILE,
    ),
    ("teleport-key", ["FDFWD_TELEPORT_KEY"], ["teleport.key", "teleport-key"], "", FILE, FILE),
    ("storage", ["FDFWD_STORAGE"], ["storage"], "", "~/not-expanded", "~/not-expanded"),
    ("batch", ["FDFWD_BATCH"], ["batch"], 0, "1_000", 1000),
    ("types", ["FDFWD_TYPES"], ["types"], (), "user.login,T1000I", ("user.login", "T1000I")),
    (
        "skip-event-types",
        ["FDFWD_SKIP_EVENT_TYPES"],
        ["skip.event.types", "skip-event-types"],
        (),
        "user.login,scp,",
        ("user.login", "scp"),
    ),
    (
        "skip-session-types",
        ["FDFWD_SKIP_SESSION_TYPES"],
        ["skip.session.types", "skip-session-types"],
        ("print", "desktop.recording"),
        r"print,resize",
        ("print", "resize"),
    ),
    (
        "start-time",
        ["FDFWD_START_TIME"],
        ["start.time", "start-time"],
        None,
        "2026-01-02T03:04:05.999+05:30",
        datetime(2026, 1, 1, 21, 34, 5, tzinfo=UTC),
    ),
    ("timeout", ["FDFWD_TIMEOUT"], ["timeout"], 10.0, "1m30s", 90.0),
    ("dry-run", ["FDFWD_DRY_RUN"], ["dry.run", "dry-run"], False, "TRUE", True),
    (
        "exit-on-last-event",
        ["FDFWD_EXIT_ON_LAST_EVENT"],
        ["exit.on.last.event", "exit-on-last-event"],
        False,
        "1",
        True,
    ),
    ("concurrency", ["FDFWD_CONCURRENCY"], ["concurrency"], 5, "010", 8),
    ("window-size", ["FDFWD_WINDOW_SIZE"], ["window.size", "window-size"], 86400.0, "1h", 3600.0),
    ("lock-enabled", ["FDFWD_LOCKING_ENABLED"], ["lock.enabled", "lock-enabled"], False, "true", True),
    (
        "lock-failed-attempts-count",
        ["FDFWD_LOCKING_FAILED_ATTEMPTS"],
        ["lock.failed.attempts.count", "lock-failed-attempts-count", "lock.failed-attempts-count"],
        3,
        "7",
        7,
    ),
    ("lock-period", ["FDFWD_LOCKING_PERIOD"], ["lock.period", "lock-period"], 60.0, "5m", 300.0),
    ("lock-for", ["FDFWD_LOCKING_FOR"], ["lock.for", "lock-for"], 0.0, "30m", 1800.0),
    ("debug", ["FDFWD_DEBUG"], ["debug"], False, "true", True),
]
NEW: list[Row] = [
    (
        "storage-interval",
        ["FDFWD_STORAGE_INTERVAL"],
        ["storage.interval", "storage-interval"],
        10.0,
        "30s",
        30.0,
    ),
    ("lease", ["FDFWD_LEASE"], ["lease"], "none", "kubernetes", "kubernetes"),
    ("lease-name", ["FDFWD_LEASE_NAME"], ["lease.name", "lease-name"], "", "events", "events"),
    ("lease-namespace", ["FDFWD_LEASE_NAMESPACE"], ["lease.namespace", "lease-namespace"], "", "security", "security"),
    (
        "lease-account",
        ["FDFWD_LEASE_ACCOUNT"],
        ["lease.account", "lease-account"],
        ACCOUNT,
        "/etc/account",
        "/etc/account",
    ),
    (
        "reread-from",
        ["FDFWD_REREAD_FROM"],
        ["reread.from", "reread-from"],
        None,
        "2026-01-02T03:04:05Z",
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    ),
    ("log-format", ["FDFWD_LOG_FORMAT"], ["log.format", "log-format"], "auto", "json", "json"),
    ("log-level", ["FDFWD_LOG_LEVEL"], ["log.level", "log-level"], "info", "error", "error"),
    ("fluentd-format", ["FDFWD_FLUENTD_FORMAT"], ["forward.fluentd.format"], "single", "array", "array"),
    ("fluentd-compression", ["FDFWD_FLUENTD_COMPRESSION"], ["forward.fluentd.compression"], "none", "gzip", "gzip"),
    ("fluentd-timeout", ["FDFWD_FLUENTD_TIMEOUT"], ["forward.fluentd.timeout"], 30.0, "2m", 120.0),
    ("fluentd-ordered", ["FDFWD_FLUENTD_ORDERED"], ["forward.fluentd.ordered"], False, "yes", True),
    (
        "max-in-flight-bytes",
        ["FDFWD_MAX_IN_FLIGHT_BYTES"],
        ["max.in.flight.bytes", "max-in-flight-bytes"],
        8 * 1024 * 1024,
        "1048576",
        1048576,
    ),
    ("teleport-dial", ["FDFWD_TELEPORT_DIAL"], ["teleport.dial", "teleport-dial"], "auto", "tunnel", "tunnel"),
    (
        "teleport-insecure-proxy",
        ["FDFWD_TELEPORT_INSECURE_PROXY"],
        ["teleport.insecure.proxy", "teleport-insecure-proxy", "teleport.insecure-proxy"],
        False,
        "yes",
        True,
    ),
    (
        "lock-exempt",
        ["FDFWD_LOCKING_EXEMPT"],
        ["lock.exempt", "lock-exempt"],
        (),
        "bot-*,svc",
        ("bot-*", "svc"),
    ),
    ("late-days", ["FDFWD_LATE_DAYS"], ["late.days", "late-days"], 3, "5", 5),
    ("look-back", ["FDFWD_LOOK_BACK"], ["look.back", "look-back"], 300.0, "1m", 60.0),
    ("poll-interval", ["FDFWD_POLL_INTERVAL"], ["poll.interval", "poll-interval"], 0.0, "500ms", 0.5),
    ("startup-timeout", ["FDFWD_STARTUP_TIMEOUT"], ["startup.timeout", "startup-timeout"], 0.0, "1m", 60.0),
    ("shutdown-timeout", ["FDFWD_SHUTDOWN_TIMEOUT"], ["shutdown.timeout", "shutdown-timeout"], 5.0, "9s", 9.0),
    (
        "missing-recording-ttl",
        ["FDFWD_MISSING_RECORDING_TTL"],
        ["missing.recording.ttl", "missing-recording-ttl"],
        604_800.0,
        "24h",
        86_400.0,
    ),
    ("file-path", ["FDFWD_FILE_PATH"], ["forward.file.path"], "", "-", "-"),
    (
        "file-session-path",
        ["FDFWD_FILE_SESSION_PATH"],
        ["forward.file.session.path", "forward.file.session-path"],
        "",
        "s.{session_id}",
        "s.{session_id}",
    ),
    (
        "file-max-bytes",
        ["FDFWD_FILE_MAX_BYTES"],
        ["forward.file.max.bytes", "forward.file.max-bytes"],
        104_857_600,
        "1_000",
        1000,
    ),
    ("file-max-age", ["FDFWD_FILE_MAX_AGE"], ["forward.file.max.age", "forward.file.max-age"], 86_400.0, "1h", 3600.0),
    ("file-keep", ["FDFWD_FILE_KEEP"], ["forward.file.keep"], 10, "3", 3),
    ("file-compression", ["FDFWD_FILE_COMPRESSION"], ["forward.file.compression"], "none", "zstd", "zstd"),
    ("file-mode", ["FDFWD_FILE_MODE"], ["forward.file.mode"], "0600", "0640", "0640"),
    ("file-types", ["FDFWD_FILE_TYPES"], ["forward.file.types"], None, "scp,!T1*", ("scp", "!T1*")),
    (
        "file-skip-event-types",
        ["FDFWD_FILE_SKIP_EVENT_TYPES"],
        ["forward.file.skip.event.types", "forward.file.skip-event-types"],
        None,
        "scp",
        ("scp",),
    ),
    (
        "file-skip-session-types",
        ["FDFWD_FILE_SKIP_SESSION_TYPES"],
        ["forward.file.skip.session.types", "forward.file.skip-session-types"],
        None,
        "print",
        ("print",),
    ),
    (
        "elasticsearch-types",
        ["FDFWD_ELASTICSEARCH_TYPES"],
        ["forward.elasticsearch.types"],
        None,
        "scp,!T1*",
        ("scp", "!T1*"),
    ),
    ("elasticsearch-timeout", ["FDFWD_ELASTICSEARCH_TIMEOUT"], ["forward.elasticsearch.timeout"], 30.0, "2m", 120.0),
    (
        "elasticsearch-skip-event-types",
        ["FDFWD_ELASTICSEARCH_SKIP_EVENT_TYPES"],
        ["forward.elasticsearch.skip.event.types", "forward.elasticsearch.skip-event-types"],
        None,
        "scp",
        ("scp",),
    ),
    (
        "elasticsearch-skip-session-types",
        ["FDFWD_ELASTICSEARCH_SKIP_SESSION_TYPES"],
        ["forward.elasticsearch.skip.session.types", "forward.elasticsearch.skip-session-types"],
        None,
        "print",
        ("print",),
    ),
    (
        "elasticsearch-url",
        ["FDFWD_ELASTICSEARCH_URL"],
        ["forward.elasticsearch.url"],
        "",
        "https://e:9200",
        "https://e:9200",
    ),
    (
        "elasticsearch-target",
        ["FDFWD_ELASTICSEARCH_TARGET"],
        ["forward.elasticsearch.target"],
        "logs-teleport.audit-default",
        "audit",
        "audit",
    ),
    (
        "elasticsearch-session-target",
        ["FDFWD_ELASTICSEARCH_SESSION_TARGET"],
        ["forward.elasticsearch.session.target", "forward.elasticsearch.session-target"],
        "logs-teleport.session-default",
        "sessions",
        "sessions",
    ),
    (
        "elasticsearch-document",
        ["FDFWD_ELASTICSEARCH_DOCUMENT"],
        ["forward.elasticsearch.document"],
        "message",
        "plain",
        "plain",
    ),
    (
        "elasticsearch-template",
        ["FDFWD_ELASTICSEARCH_TEMPLATE"],
        ["forward.elasticsearch.template"],
        "none",
        "install",
        "install",
    ),
    (
        "elasticsearch-api-key",
        ["FDFWD_ELASTICSEARCH_API_KEY"],
        ["forward.elasticsearch.api.key", "forward.elasticsearch.api-key"],
        "",
        "x",
        "x",
    ),
    ("elasticsearch-username", ["FDFWD_ELASTICSEARCH_USERNAME"], ["forward.elasticsearch.username"], "", "x", "x"),
    ("elasticsearch-password", ["FDFWD_ELASTICSEARCH_PASSWORD"], ["forward.elasticsearch.password"], "", "x", "x"),
    ("elasticsearch-bearer", ["FDFWD_ELASTICSEARCH_BEARER"], ["forward.elasticsearch.bearer"], "", "x", "x"),
    (
        "elasticsearch-api-key-file",
        ["FDFWD_ELASTICSEARCH_API_KEY_FILE"],
        ["forward.elasticsearch.api.key.file", "forward.elasticsearch.api-key-file"],
        "",
        FILE,
        FILE,
    ),
    (
        "elasticsearch-password-file",
        ["FDFWD_ELASTICSEARCH_PASSWORD_FILE"],
        ["forward.elasticsearch.password.file", "forward.elasticsearch.password-file"],
        "",
        FILE,
        FILE,
    ),
    (
        "elasticsearch-bearer-file",
        ["FDFWD_ELASTICSEARCH_BEARER_FILE"],
        ["forward.elasticsearch.bearer.file", "forward.elasticsearch.bearer-file"],
        "",
        FILE,
        FILE,
    ),
    ("elasticsearch-region", ["FDFWD_ELASTICSEARCH_REGION"], ["forward.elasticsearch.region"], "", "x", "x"),
    (
        "elasticsearch-access-key-id",
        ["FDFWD_ELASTICSEARCH_ACCESS_KEY_ID"],
        ["forward.elasticsearch.access.key.id", "forward.elasticsearch.access-key-id"],
        "",
        "x",
        "x",
    ),
    (
        "elasticsearch-secret-access-key",
        ["FDFWD_ELASTICSEARCH_SECRET_ACCESS_KEY"],
        ["forward.elasticsearch.secret.access.key", "forward.elasticsearch.secret-access-key"],
        "",
        "x",
        "x",
    ),
    (
        "elasticsearch-secret-access-key-file",
        ["FDFWD_ELASTICSEARCH_SECRET_ACCESS_KEY_FILE"],
        ["forward.elasticsearch.secret.access.key.file", "forward.elasticsearch.secret-access-key-file"],
        "",
        FILE,
        FILE,
    ),
    (
        "elasticsearch-session-token",
        ["FDFWD_ELASTICSEARCH_SESSION_TOKEN"],
        ["forward.elasticsearch.session.token", "forward.elasticsearch.session-token"],
        "",
        "x",
        "x",
    ),
    ("elasticsearch-profile", ["FDFWD_ELASTICSEARCH_PROFILE"], ["forward.elasticsearch.profile"], "", "x", "x"),
    (
        "elasticsearch-role-arn",
        ["FDFWD_ELASTICSEARCH_ROLE_ARN"],
        ["forward.elasticsearch.role.arn", "forward.elasticsearch.role-arn"],
        "",
        "x",
        "x",
    ),
    (
        "elasticsearch-external-id",
        ["FDFWD_ELASTICSEARCH_EXTERNAL_ID"],
        ["forward.elasticsearch.external.id", "forward.elasticsearch.external-id"],
        "",
        "x",
        "x",
    ),
    (
        "elasticsearch-sts-endpoint",
        ["FDFWD_ELASTICSEARCH_STS_ENDPOINT"],
        ["forward.elasticsearch.sts.endpoint", "forward.elasticsearch.sts-endpoint"],
        "",
        "http://x",
        "http://x",
    ),
    ("elasticsearch-aws", ["FDFWD_ELASTICSEARCH_AWS"], ["forward.elasticsearch.aws"], "none", "es", "es"),
    ("elasticsearch-ca", ["FDFWD_ELASTICSEARCH_CA"], ["forward.elasticsearch.ca"], "", FILE, FILE),
    ("elasticsearch-cert", ["FDFWD_ELASTICSEARCH_CERT"], ["forward.elasticsearch.cert"], "", FILE, FILE),
    ("elasticsearch-key", ["FDFWD_ELASTICSEARCH_KEY"], ["forward.elasticsearch.key"], "", FILE, FILE),
    (
        "elasticsearch-compression",
        ["FDFWD_ELASTICSEARCH_COMPRESSION"],
        ["forward.elasticsearch.compression"],
        "gzip",
        "none",
        "none",
    ),
    (
        "fluentd-min-tls",
        ["FDFWD_FLUENTD_MIN_TLS"],
        ["forward.fluentd.min.tls", "forward.fluentd.min-tls"],
        "1.2",
        "1.3",
        "1.3",
    ),
    ("fluentd-proxy", ["FDFWD_FLUENTD_PROXY"], ["forward.fluentd.proxy"], "", "http://p:3128", "http://p:3128"),
    (
        "elasticsearch-min-tls",
        ["FDFWD_ELASTICSEARCH_MIN_TLS"],
        ["forward.elasticsearch.min.tls", "forward.elasticsearch.min-tls"],
        "1.2",
        "1.3",
        "1.3",
    ),
    (
        "elasticsearch-proxy",
        ["FDFWD_ELASTICSEARCH_PROXY"],
        ["forward.elasticsearch.proxy"],
        "",
        "http://p:3128",
        "http://p:3128",
    ),
    (
        "fluentd-over-limit",
        ["FDFWD_FLUENTD_OVER_LIMIT"],
        ["forward.fluentd.over.limit", "forward.fluentd.over-limit"],
        "dead-letter",
        "split",
        "split",
    ),
    (
        "fluentd-max-event-bytes",
        ["FDFWD_FLUENTD_MAX_EVENT_BYTES"],
        ["forward.fluentd.max.event.bytes", "forward.fluentd.max-event-bytes"],
        0,
        "9000",
        9000,
    ),
    (
        "elasticsearch-over-limit",
        ["FDFWD_ELASTICSEARCH_OVER_LIMIT"],
        ["forward.elasticsearch.over.limit", "forward.elasticsearch.over-limit"],
        "dead-letter",
        "split",
        "split",
    ),
    (
        "elasticsearch-max-event-bytes",
        ["FDFWD_ELASTICSEARCH_MAX_EVENT_BYTES"],
        ["forward.elasticsearch.max.event.bytes", "forward.elasticsearch.max-event-bytes"],
        0,
        "9000",
        9000,
    ),
    (
        "file-over-limit",
        ["FDFWD_FILE_OVER_LIMIT"],
        ["forward.file.over.limit", "forward.file.over-limit"],
        "dead-letter",
        "split",
        "split",
    ),
    (
        "file-max-event-bytes",
        ["FDFWD_FILE_MAX_EVENT_BYTES"],
        ["forward.file.max.event.bytes", "forward.file.max-event-bytes"],
        0,
        "9000",
        9000,
    ),
    ("listen", ["FDFWD_LISTEN"], ["listen"], "", "127.0.0.1:3000", "127.0.0.1:3000"),
    ("listen-cert", ["FDFWD_LISTEN_CERT"], ["listen.cert", "listen-cert"], "", FILE, FILE),
    ("listen-key", ["FDFWD_LISTEN_KEY"], ["listen.key", "listen-key"], "", FILE, FILE),
    ("listen-client-ca", ["FDFWD_LISTEN_CLIENT_CA"], ["listen.client.ca", "listen-client-ca"], "", FILE, FILE),
    ("listen-token-file", ["FDFWD_LISTEN_TOKEN_FILE"], ["listen.token.file", "listen-token-file"], "", FILE, FILE),
    (
        "listen-password-file",
        ["FDFWD_LISTEN_PASSWORD_FILE"],
        ["listen.password.file", "listen-password-file"],
        "",
        FILE,
        FILE,
    ),
    ("listen-token", ["FDFWD_LISTEN_TOKEN"], ["listen.token", "listen-token"], "", "some text", "some text"),
    ("listen-user", ["FDFWD_LISTEN_USER"], ["listen.user", "listen-user"], "", "some text", "some text"),
    (
        "listen-password",
        ["FDFWD_LISTEN_PASSWORD"],
        ["listen.password", "listen-password"],
        "",
        "some text",
        "some text",
    ),
    (
        "telemetry-endpoint",
        ["FDFWD_TELEMETRY_ENDPOINT"],
        ["telemetry.endpoint", "telemetry-endpoint"],
        "",
        "http://127.0.0.1:4318",
        "http://127.0.0.1:4318",
    ),
    (
        "telemetry-interval",
        ["FDFWD_TELEMETRY_INTERVAL"],
        ["telemetry.interval", "telemetry-interval"],
        60.0,
        "10s",
        10.0,
    ),
    ("telemetry-traces", ["FDFWD_TELEMETRY_TRACES"], ["telemetry.traces", "telemetry-traces"], False, "true", True),
    (
        "listen-unprotected",
        ["FDFWD_LISTEN_UNPROTECTED"],
        ["listen.unprotected", "listen-unprotected"],
        False,
        "true",
        True,
    ),
    (
        "elasticsearch-max-connections",
        ["FDFWD_ELASTICSEARCH_MAX_CONNECTIONS"],
        ["forward.elasticsearch.max.connections", "forward.elasticsearch.max-connections"],
        4,
        "8",
        8,
    ),
    (
        "no-session-recordings",
        ["FDFWD_NO_SESSION_RECORDINGS"],
        ["no.session.recordings", "no-session-recordings"],
        False,
        "true",
        True,
    ),
]


def toml(keys: Mapping[str, str]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in keys.items())


@pytest.fixture
def some_file(tmp_path: Path) -> str:
    path = tmp_path / "some-file"
    path.write_text("x")
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def from_file(config: Path, text: str, environment: Mapping[str, str] | None = None) -> Loaded:
    config.write_text(text)
    return load(REQUIRED, environment or {}, str(config))


def refused(*args: Any, exit_code: int) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(*args)
    assert caught.value.exit_code == exit_code
    return str(caught.value)


def test_the_rows_are_the_whole_model() -> None:
    transforms = {"fluentd-transforms", "file-transforms", "elasticsearch-transforms"}  # test_components
    assert {row[0] for row in ROWS + NEW} == {option.flag for option in options().values()} - transforms


@pytest.mark.parametrize("row", ROWS + NEW, ids=lambda row: row[0])
def test_each_way_to_give_a_value(row: Row, some_file: str, config: Path) -> None:
    flag, variables, keys, default, text, value = row
    name = flag.replace("-", "_")
    option = options()[name]
    assert (list(option.variables), list(option.keys)) == (variables, keys)
    if text == FILE:
        text = value = some_file
    others = {
        key: text
        for key, text in {**REQUIRED, "file_path": "-", "elasticsearch_url": "https://e"}.items()
        if key != name
    }
    if name not in REQUIRED:
        assert getattr(load(REQUIRED, {}).settings, name) == default
    assert getattr(load({**others, name: text}, {}).settings, name) == value
    for variable in variables:
        assert getattr(load(others, {variable: text}).settings, name) == value
    if len(variables) == 2:
        assert getattr(load(others, {variables[0]: text, variables[1]: "/nowhere"}).settings, name) == value
    for key in keys:
        config.write_text(toml({key: f"'{text}'"}))
        loaded = load(others, {}, str(config))
        assert getattr(loaded.settings, name) == value
        assert loaded.warnings == []


def test_precedence_and_one_warning_for_all_shadowed(config: Path) -> None:
    environment = {"FDFWD_BATCH": "1", "FDFWD_CONCURRENCY": "2", "FDFWD_LATE_DAYS": "4", "FDFWD_TIMEOUT": "1s"}
    config.write_text("batch = 10\nconcurrency = 20\ntimeout = '3s'\n")
    loaded = load({**REQUIRED, "batch": "100"}, environment, str(config))
    settings = loaded.settings
    assert (settings.batch, settings.concurrency, settings.late_days, settings.timeout) == (100, 20, 4, 3.0)
    assert loaded.warnings == [f"{config} overrides the environment: FDFWD_TIMEOUT, FDFWD_CONCURRENCY"]


def test_the_variable_names_the_file_and_the_flag_wins(config: Path) -> None:
    config.write_text("batch = 11")
    assert load(REQUIRED, {"FDFWD_CONFIG": str(config)}).settings.batch == 11
    assert load(REQUIRED, {"FDFWD_CONFIG": "/nowhere"}, str(config)).settings.batch == 11
    assert "FDFWD_CONFIG" in refused(REQUIRED, {"FDFWD_CONFIG": "/nowhere"}, exit_code=80)
    assert "No such file" in refused(REQUIRED, {}, "/nowhere", exit_code=80)
    assert load(REQUIRED, {"FDFWD_CONFIG": ""}).settings.batch == 0


def test_unknown_keys_name_the_nearest(config: Path) -> None:
    text = 'fluentd-url = "x"\n"teleport.addr" = "x"\n[teleport]\nadr = "x"\n[forward.fluentd]\nsesion-url = "x"\n'
    warnings = from_file(config, text).warnings
    assert len(warnings) == 4
    assert any("key teleport.adr is not known; did you mean teleport.addr?" in line for line in warnings)
    assert any("did you mean forward.fluentd.session-url?" in line for line in warnings)


def test_two_spellings_of_one_setting(config: Path) -> None:
    loaded = from_file(config, 'window-size = "2h"\nwindow.size = "1h"\n')
    assert loaded.settings.window_size == 3600
    assert "window.size and window-size mean the same; window.size is used" in loaded.warnings[0]


@pytest.mark.parametrize("value", ["5", "0.5"])
def test_a_bare_number_for_a_duration(config: Path, value: str) -> None:
    config.write_text(f"timeout = {value}")
    message = refused(REQUIRED, {}, str(config), exit_code=80)
    assert f"timeout in {config}: expected a duration with its unit" in message
    assert f'"{value}s"' in message
    assert '"5s" or "5m"' in refused({**REQUIRED, "timeout": "5"}, {}, exit_code=80)


def test_zero_needs_no_unit(config: Path) -> None:
    assert from_file(config, "lock-for = 0").settings.lock_for == 0


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("concurrency", "0", "1 to 100"),
        ("concurrency", "-1", "1 to 100"),
        ("batch", "0", "1 to 10000"),
        ("batch", "-5", "1 to 10000"),
        ("batch", "10001", "1 to 10000"),
        ("fluentd_max_connections", "-1", "0 to 1000"),
        ("late_days", "0", "1 to 30"),
        ("window_size", "0", "1m or more"),
        ("window_size", "-24h", "1m or more"),
        ("timeout", "-1s", "0 or more"),
        ("lock_period", "0", "more than 0"),
        ("poll_interval", "1ms", "100ms or more"),
        ("fluentd_format", "ndjson", "single or array"),
    ],
)
def test_values_outside_their_range(name: str, text: str, allowed: str) -> None:
    option = options()[name]
    message = refused({**REQUIRED, name: text}, {}, exit_code=80)
    assert message.startswith(f"--{option.flag}: ")
    assert message.endswith(f"allowed is {allowed}")
    assert refused(REQUIRED, {option.variables[0]: text}, exit_code=80).startswith(f"{option.variables[0]}: ")


@pytest.mark.parametrize("text", ["", "abc", "1.5", "5 0", "08", "0x", "1__0", "٣", "1e3"])
def test_no_numbers(text: str) -> None:
    assert "expected a whole number, got" in refused({**REQUIRED, "batch": text}, {}, exit_code=80)


@pytest.mark.parametrize(("text", "value"), [("0b11", 3), ("0o17", 15), ("0_17", 15), ("+7", 7), ("0X1f", 31)])
def test_numbers_as_go_writes_them(text: str, value: int) -> None:
    assert load({**REQUIRED, "batch": text}, {}).settings.batch == value


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (("a", "b,c"), ("a", "b", "c")),
        (("",), ()),
        ("", ()),
        (("a,,b,",), ("a", "", "b")),
        ((r"a\b",), (r"a\b",)),
        (("a\\",), ("a\\",)),
        ((r"a\\,b",), (r"a\\", "b")),
    ],
)
def test_lists_on_the_command_line(given: Any, value: tuple[str, ...]) -> None:
    assert load({**REQUIRED, "lock_exempt": given}, {}).settings.lock_exempt == value


def test_lists_in_the_file(config: Path) -> None:
    assert from_file(config, "skip-session-types = []").settings.skip_session_types == ()
    assert from_file(config, 'types = ""').settings.types == ()
    assert from_file(config, 'lock-exempt = ["a,b", "c"]').settings.lock_exempt == ("a,b", "c")
    config.write_text("types = [1]")
    assert "expected text in quotes, got a number" in refused(REQUIRED, {}, str(config), exit_code=80)


def test_blanks_inside_a_list_are_kept_as_the_plugin_keeps_them() -> None:
    assert load({**REQUIRED, "lock_exempt": ["a, b"]}, {}).settings.lock_exempt == ("a", " b")
    assert "' scp' is not an event type or code; did you mean scp?" in refused(
        {**REQUIRED, "types": ["print, scp"]}, {}, exit_code=80
    )


@pytest.mark.parametrize("word", ["false", "0", "no", "No"])
def test_words_for_false(word: str) -> None:
    assert load({**REQUIRED, "dry_run": word}, {"FDFWD_DRY_RUN": "true"}).settings.dry_run is False


def test_no_word_for_a_flag() -> None:
    assert "expected true or false, got 'on'" in refused(REQUIRED, {"FDFWD_DRY_RUN": "on"}, exit_code=80)


@pytest.mark.parametrize("text", ["2021-05-05", "20210505T000000Z", "2021-05-05 00:00:00Z", "2021-13-05T00:00:00Z", ""])
def test_no_times(text: str) -> None:
    assert "expected a time such as" in refused({**REQUIRED, "start_time": text}, {}, exit_code=80)


def test_times_at_the_edges(config: Path) -> None:
    assert "without a time zone" in refused({**REQUIRED, "start_time": "2021-05-05T00:00:00"}, {}, exit_code=80)
    assert "years" in refused({**REQUIRED, "start_time": "0001-01-01T00:00:00+01:00"}, {}, exit_code=80)
    loaded = from_file(config, "start-time = 2021-05-05T01:00:00.9-00:30")
    assert loaded.settings.start_time == datetime(2021, 5, 5, 1, 30, tzinfo=UTC)
    config.write_text("start-time = 2021-05-05T01:00:00")
    assert "without a time zone" in refused(REQUIRED, {}, str(config), exit_code=80)


def test_files_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.crt").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("ca.crt", "./ca.crt", "~/ca.crt"):
        assert Path(load({**REQUIRED, "fluentd_ca": text}, {}).settings.sinks[0].shown()["ca"]) == tmp_path / "ca.crt"
    assert load({**REQUIRED, "fluentd_ca": "-"}, {}).settings.sinks[0].shown()["ca"] == "-"


def test_a_pipe_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert load({**REQUIRED, "fluentd_ca": str(tmp_path / "pipe")}, {}).settings.sinks[0].shown()["ca"]


def test_files_that_are_none(tmp_path: Path, config: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert f"--fluentd-ca: {nowhere}: No such file" in refused({**REQUIRED, "fluentd_ca": nowhere}, {}, exit_code=80)
    assert "FDWRD_FLUENTD_KEY" in refused(REQUIRED, {"FDWRD_FLUENTD_KEY": nowhere}, exit_code=80)
    config.write_text(f'[teleport]\nca = "{tmp_path}"')
    message = refused(REQUIRED, {}, str(config), exit_code=80)
    assert f"teleport.ca in {config}: {tmp_path} is a directory" in message


@pytest.mark.parametrize("name", ["identity", "cert", "key", "ca"])
def test_credentials_that_are_not_there_yet_are_left_to_the_start_which_waits(
    tmp_path: Path, config: Path, name: str
) -> None:
    config.write_text(f'[teleport]\n{name} = "{tmp_path}/nowhere"')
    assert getattr(load(REQUIRED, {}, str(config)).settings, f"teleport_{name}") == f"{tmp_path}/nowhere"


def test_an_identity_may_be_a_directory_that_nobody_has_written_to_yet(tmp_path: Path, config: Path) -> None:
    config.write_text(f'[teleport]\nidentity = "{tmp_path}"')
    assert load(REQUIRED, {}, str(config)).settings.teleport_identity == str(tmp_path)


@pytest.mark.parametrize(
    ("data", "position"),
    [(b"batch = 1\ntypes = [", "line 2"), (b"a = 1\nb = '\xff'\n", "line 2"), (b"batch = 1\nbatch = 2\n", "line 2")],
)
def test_syntax_errors_name_file_and_position(config: Path, data: bytes, position: str) -> None:
    config.write_bytes(data)
    message = refused(REQUIRED, {}, str(config), exit_code=80)
    assert str(config) in message
    assert position in message


def test_a_byte_order_mark_is_no_error(config: Path) -> None:
    config.write_bytes(b"\xef\xbb\xbfbatch = 7\n")
    assert load(REQUIRED, {}, str(config)).settings.batch == 7


def test_missing_flags_are_sorted() -> None:
    expected = "missing flags: --fluentd-session-url=STRING, --fluentd-url=STRING, --storage=STRING"
    assert refused({}, {}, exit_code=80).startswith(expected)
    assert "missing flags: --storage=STRING" in refused({**REQUIRED, "storage": ""}, {}, exit_code=80)


def test_a_text_must_be_text(config: Path) -> None:
    config.write_text("storage = 5")
    required = {name: text for name, text in REQUIRED.items() if name != "storage"}
    assert "expected text in quotes, got a number" in refused(required, {}, str(config), exit_code=80)


def test_a_name_that_is_no_setting_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="no such settings: config"):
        load({"config": "x"}, {})
