"""The click options and the reference page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from event_handler.config.model import options
from event_handler.config.options import click_options, given
from event_handler.config.reference import render

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
    assert PAGE.read_text() == render(), "run: python -m event_handler.config.reference > docs/options.md"
