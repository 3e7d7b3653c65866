"""Log lines: for people or as JSON, without secrets, and not for ever the same."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from event_handler.redact import without_secrets
from event_handler.telemetry import logs
from event_handler.telemetry.logs.repeats import AT_MOST, MOST_KEYS, SPAN, SUMMARY, Repeats


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was written to stderr since the last call."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def fail() -> None:
    try:
        raise OSError("no route")
    except OSError:
        structlog.get_logger().exception("failed", host="a")


def test_json_when_nobody_watches(stderr: Callable[[], str]) -> None:
    logs.configure(False)
    structlog.get_logger().info("hello", n=1)
    structlog.get_logger().debug("hidden")
    line = json.loads(stderr())
    assert line["timestamp"].endswith("Z")
    assert {key: line[key] for key in ("event", "level", "n")} == {"event": "hello", "level": "info", "n": 1}


@pytest.mark.parametrize("fmt", ["console", "json"])
def test_tracebacks_only_with_debug(stderr: Callable[[], str], fmt: logs.Format) -> None:
    logs.configure(False, fmt)
    fail()
    try:
        raise OSError("no route")
    except OSError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    written = stderr()
    assert "Traceback" not in written
    assert written.count("OSError: no route") == 2
    assert len(written.splitlines()) == 2
    logs.configure(True, fmt)
    fail()
    assert "Traceback" in stderr()


@pytest.mark.parametrize("fmt", ["console", "json"])
def test_a_next_step_that_is_empty_is_left_out_and_a_terminal_gets_one_line(
    stderr: Callable[[], str], fmt: logs.Format
) -> None:
    logs.configure(False, fmt)
    text = "no route into the cluster:\n  direct: refused\n  tunnel: no port.\nCheck the address"
    structlog.get_logger().warning("cannot read", error=text, next_step="", reason="")
    structlog.get_logger().warning(text, next_step="read on")
    empty, told = stderr().splitlines()
    assert "next_step" not in empty
    assert "reason" in empty
    assert "read on" in told
    if fmt == "console":
        assert "\\n" not in empty + told
        assert empty.count("no route into the cluster: direct: refused; tunnel: no port. Check the address") == 1
    else:
        assert json.loads(empty)["error"] == text


def test_a_line_of_json_begins_with_time_level_and_event(stderr: Callable[[], str]) -> None:
    logs.configure(False, "json")
    structlog.get_logger().info("hello", alpha=1, event_kind="x")
    logging.getLogger("some.library").warning("of a library")
    try:
        raise OSError("no route")
    except OSError:
        structlog.get_logger().exception("failed", a=1)
    for line in stderr().splitlines():
        assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]


def test_a_standard_error_that_was_closed_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure(False)
    structlog.get_logger().info("nowhere")
    logs.say("nowhere")


def test_configuring_twice_writes_each_line_once(stderr: Callable[[], str]) -> None:
    logs.configure(False)
    logs.configure(False)
    logging.getLogger("some.library").warning("once")
    assert stderr().count("once") == 1


def test_colours_on_a_terminal_only(stderr: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    logs.configure(False, "console")
    structlog.get_logger().info("plain")
    assert "\x1b" not in stderr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure(False)
    structlog.get_logger().info("coloured")
    assert "\x1b" in stderr()


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_the_lowest_that_is_shown(stderr: Callable[[], str], level: logs.Level, shown: int) -> None:
    logs.configure(False, "json", level)
    log = structlog.get_logger()
    for say in (log.debug, log.info, log.warning, log.error):
        say("a line")
    assert len(stderr().splitlines()) == shown


def test_debug_wins_over_the_level(stderr: Callable[[], str]) -> None:
    logs.configure(True, "json", "error")
    structlog.get_logger().debug("a line")
    assert "a line" in stderr()


EVENT = '{"cluster_name": "c", "event": "user.login", "uid": "u", "user": "alice"}'
SECRETS = [
    ("https://bob:hunter2@collector:8888/test.log", "hunter2", "https://collector:8888"),
    (
        "cannot reach http://hunter2@proxy:3128, or socks5://a:hunter2@b:1",
        "hunter2",
        "http://proxy:3128, or socks5://b:1",
    ),
    ("postgres://u:p@ss@hunter2@db/x", "hunter2", "postgres://db"),
    ("https://c/in?token=hunter2&x=1", "hunter2", "https://c"),
    ("Authorization: Bearer hunter2.hunter2", "hunter2", "Authorization: ***"),
    ('{"authorization": "Splunk hunter2"}', "hunter2", "***"),
    ("refused bearer hunter2hunter2", "hunter2", "refused bearer ***"),
    ("sent Basic aHVudGVyMg== away", "aHVudGVyMg", "sent Basic *** away"),
    ("key:\n-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\nend", "hunter2", "end"),
    ("torn -----BEGIN PRIVATE KEY-----\nhunter2", "hunter2", "torn (a private key was here)"),
    (
        f"the receiver answered 400 bad event {EVENT}",
        "alice",
        "the receiver answered 400 bad event (an event was here)",
    ),
    (f"answered 400 [{EVENT[:40]}", "user.login", "answered 400 (an event was here)"),
]


@pytest.mark.parametrize(("text", "secret", "left"), SECRETS, ids=[text[:30] for text, _, _ in SECRETS])
@pytest.mark.parametrize("fmt", ["console", "json"])
def test_secrets_are_taken_out_wherever_they_stand(
    stderr: Callable[[], str], fmt: logs.Format, text: str, secret: str, left: str
) -> None:
    logs.configure(True, fmt)
    log = structlog.get_logger()
    log.info(text)
    log.info("a field", where=text, nested=[{"deep": text}], other=OSError(text))
    logging.getLogger("some.library").warning("of a library: %s", text)
    try:
        raise OSError(text)
    except OSError:
        log.exception("failed")
    written = stderr()
    assert secret not in written
    assert left.splitlines()[-1] in written.replace('\\"', '"')


def test_a_field_that_is_a_secret_by_its_name(stderr: Callable[[], str]) -> None:
    logs.configure(False, "json")
    structlog.get_logger().info("made", passphrase="hunter2", settings={"token": "hunter2", "n": 1})
    line = json.loads(stderr())
    assert (line["passphrase"], line["settings"]) == ("***", {"token": "***", "n": 1})


@pytest.mark.parametrize(
    "text",
    [
        "basic authentication is missing",
        "the bearer of bad news",
        'the receiver answered 403 {"text":"Invalid token","code":4}',
        "mail to someone@example.test",
        "https://collector:8888, a@b",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines_by_clock() -> Clock:
    """Lines are JSON from here on, and their time is moved by the test."""
    clock = Clock()
    logs.configure(False, "json")
    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[Repeats(clock) if isinstance(step, Repeats) else step for step in processors])
    return clock


def test_repeats_are_left_out_and_counted_when_their_span_is_over(stderr: Callable[[], str]) -> None:
    clock = lines_by_clock()
    for number in range(AT_MOST + 37):
        structlog.get_logger().warning("no way in", host="a", wait_s=number)
    assert len(stderr().splitlines()) == AT_MOST
    structlog.get_logger().warning("no way in", host="b")
    assert '"b"' in stderr()
    clock.now += SPAN
    structlog.get_logger().info("another line")
    summary, other = (json.loads(line) for line in stderr().splitlines())
    assert {key: summary[key] for key in ("event", "line", "times", "level")} == {
        "event": SUMMARY,
        "line": "no way in",
        "times": 37,
        "level": "warning",
    }
    assert other["event"] == "another line"
    structlog.get_logger().warning("no way in", host="a")
    assert "no way in" in stderr()


def test_a_flood_of_different_lines_is_told_whole_and_forgotten(stderr: Callable[[], str]) -> None:
    lines_by_clock()
    repeats = next(step for step in structlog.get_config()["processors"] if isinstance(step, Repeats))
    for number in range(3 * MOST_KEYS):
        structlog.get_logger().info("recording delivered", session=str(number))
    assert len(stderr().splitlines()) == 3 * MOST_KEYS
    assert len(repeats._windows) <= MOST_KEYS


def test_lines_of_libraries_are_limited_too(stderr: Callable[[], str]) -> None:
    logs.configure(False, "json")
    for _ in range(AT_MOST + 3):
        logging.getLogger("some.library").warning("again")
    assert len(stderr().splitlines()) == AT_MOST
