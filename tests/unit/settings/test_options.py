"""The click options, the reference page and the log lines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import structlog
from click.testing import CliRunner, Result

from event_handler import logs
from event_handler.settings.model import options
from event_handler.settings.options import click_options, given
from event_handler.settings.reference import render

PAGE = Path(__file__).parents[3] / "docs" / "options.md"


@click.command()
@click.option("--config", "-c", default="")
@click_options()
def command(config: str, **parameters: Any) -> None:
    click.echo(json.dumps({"config": config, **given(parameters)}))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--dry-run"], {"dry_run": "true"}),
        (["--dry-run", "--debug=no"], {"dry_run": "true", "debug": "no"}),
        (["--dry-run=0"], {"dry_run": "0"}),
        (["-d"], {"debug": "true"}),
        (["-dc", "file"], {"debug": "true", "config": "file"}),
        (["-cfile"], {"config": "file"}),
        (["--types", "a", "--types=b,c"], {"types": ["a", "b,c"]}),
        (["--skip-session-types="], {"skip_session_types": [""]}),
        (["--batch", "0x10"], {"batch": "0x10"}),
        (["--storage="], {"storage": ""}),
        (["--fluentd-format=array"], {"fluentd_format": "array"}),
    ],
)
def test_values_stay_raw(arguments: list[str], expected: dict[str, Any]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"config": "", **expected}


def test_the_help_names_every_flag_and_variable() -> None:
    text = " ".join(run("--help").output.split())
    for option in options().values():
        assert f"--{option.flag}" in text
        for variable in option.variables:
            assert f"${variable}" in text
    assert "[default: 24h]" in text


def test_some_fields_only() -> None:
    @click_options(only=frozenset({"debug"}))
    def body(**_: Any) -> None:
        pass

    assert {parameter.name for parameter in click.command()(body).params} == {"debug", "debug_short"}


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), "run: python -m event_handler.settings.reference > docs/options.md"


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
