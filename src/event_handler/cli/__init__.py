"""The command line. Every flag of `start` comes from the settings model."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import click

from event_handler import about, redact
from event_handler.cli import standard, unexpected
from event_handler.cli.check import check_command
from event_handler.cli.command_line import Command, Group, app_options, in_words
from event_handler.cli.configure import configure_command
from event_handler.cli.dead_letters import dead_letter
from event_handler.cli.elasticsearch_template import elasticsearch_template
from event_handler.cli.replay import replay_command, verify_command
from event_handler.cli.sinks import sinks
from event_handler.cli.start import run
from event_handler.cli.status import status
from event_handler.cli.storage import storage
from event_handler.cli.tail import tail
from event_handler.config.load import load
from event_handler.config.model import secrets
from event_handler.config.options import click_options, given
from event_handler.config.values import TRUE
from event_handler.errors import EventHandlerError
from event_handler.telemetry import logs

EXIT_USAGE = 80  # the Go plugin's code for a wrong command line


@click.group(cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@app_options
@click.pass_context
def cli(context: click.Context, config: str, debug: str | None) -> None:
    """Forwards the audit log of a Teleport cluster to a log collector."""
    if context.invoked_subcommand is None:
        names = ", ".join(f'"{name}"' for name in ("version", "configure", "start"))
        raise click.UsageError(f"expected one of {names}", context)
    context.obj = {"config": config, "debug": debug}


@cli.command(cls=Command, help="Print version, commit and Python.")
@app_options
def version(**_: Any) -> None:
    click.echo(about.line())


@cli.command(cls=Command, help="Follow the audit log and deliver every event.")
@click.option("--config", "-c", "config", default="", metavar="FILE", help="TOML file with settings ($FDFWD_CONFIG)")
@click_options()
@click.pass_obj
def start(before: dict[str, str | None], /, config: str, **parameters: Any) -> None:
    parameters["debug"] = parameters["debug"] or before["debug"]
    loaded = load(given(parameters), os.environ, config or before["config"] or "")
    redact.know(secrets(loaded.settings))
    logs.configure(loaded.settings.debug, loaded.settings.log_format, loaded.settings.log_level)
    run(loaded.settings, loaded.warnings)


cli.add_command(check_command)
cli.add_command(configure_command)
cli.add_command(dead_letter)
cli.add_command(elasticsearch_template)
cli.add_command(replay_command)
cli.add_command(sinks)
cli.add_command(status)
cli.add_command(storage)
cli.add_command(tail)
cli.add_command(verify_command)


def main() -> None:
    """Entry point. Exit codes.

    0 done, 1 failed, 80 wrong command line or configuration, 130 interrupted; `configure`: 255.
    """
    standard.open_closed()
    try:
        code = cli.main(prog_name=about.PROGRAM, standalone_mode=False)
        standard.flush()
        if isinstance(code, int) and code:  # of a command that has said all there is to say
            sys.exit(code)
    except click.UsageError as error:
        usage, message = in_words(error)
        with suppress(OSError):  # the error is what counts
            click.echo(f"{usage}\n")
        _fail(message, EXIT_USAGE)
    except click.ClickException as error:
        _fail(error.format_message(), EXIT_USAGE)
    except EventHandlerError as error:
        for note in getattr(error, "__notes__", ()):
            logs.say(f"{about.PROGRAM}: warning: {note}")
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except Exception as error:
        if _wants_debug():
            logs.say("".join(traceback.format_exception(error)))
        _fail(unexpected.sentence(error), unexpected.exit_code(error))


def _wants_debug() -> bool:
    flags = {"-d", "--debug", "--debug=true"}
    return not flags.isdisjoint(sys.argv) or os.environ.get("FDFWD_DEBUG", "").lower() in TRUE


def _fail(message: str, exit_code: int) -> None:
    logs.say(f"{about.PROGRAM}: error: {message}")
    standard.let_go()
    sys.exit(exit_code)
