"""The command line: `start` and `version`. Every flag of `start` comes from the settings model."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from typing import Any

import click

from event_handler import __version__, logs
from event_handler.cli.start import run
from event_handler.errors import EventHandlerError
from event_handler.settings.load import load
from event_handler.settings.model import Option, StartSettings, options

EXIT_USAGE = 80  # the Go plugin's code for a wrong command line
PROGRAM = "teleport-event-handler"


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add one flag per field of the settings; values stay raw text, the settings convert them."""
    for name, option in reversed(options().items()):
        command = _flag(name, option)(command)
    return command


def _flag(name: str, option: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    default = StartSettings.model_fields[name].default
    shown = "" if default in ("", None, (), False) else f" [default: {default}]"
    text = f"{option.help}{shown} (${', $'.join(option.variables)})"
    short = ["-d"] if name == "debug" else []
    if option.kind == "flag":
        return click.option(f"--{option.flag}", *short, name, is_flag=False, flag_value="true", default=None, help=text)
    return click.option(f"--{option.flag}", name, default=None, help=text, multiple=option.kind == "list", metavar=option.kind.upper())


@click.group(help="Forwards the audit log of a Teleport cluster to a log collector.")
def cli() -> None:
    """The program."""


@cli.command(help="Print the version.")
def version() -> None:
    click.echo(f"{PROGRAM} v{__version__} python {platform.python_version()}")


@cli.command(help="Follow the audit log and deliver every event.")
@click.option("--config", "-c", "config", default="", metavar="FILE", help="TOML file with settings ($FDFWD_CONFIG)")
@_flags
def start(config: str, **given: Any) -> None:
    command_line = {name: value for name, value in given.items() if value not in (None, ())}
    loaded = load(command_line, os.environ, config)
    logs.configure(loaded.settings.debug)
    run(loaded.settings, loaded.warnings)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 80 wrong command line or configuration."""
    try:
        cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        click.echo(f"{PROGRAM}: error: {error.format_message()}", err=True)
        sys.exit(EXIT_USAGE)
    except EventHandlerError as error:
        click.echo(f"{PROGRAM}: error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
