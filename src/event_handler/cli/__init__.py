"""The command line. Every flag of `start` comes from the settings model."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import click

from event_handler import about
from event_handler.cli import standard, unexpected
from event_handler.cli.command_line import Command, Group, app_options, in_words
from event_handler.config.values import TRUE
from event_handler.errors import EventHandlerError
from event_handler.telemetry import logs

COMMANDS = {  # beside `version`; where each is, for only the one that is called is imported
    "check": "check:check_command",
    "configure": "configure:configure_command",
    "dead-letter": "dead_letters:dead_letter",
    "elasticsearch-template": "elasticsearch_template:elasticsearch_template",
    "replay": "replay:replay_command",
    "sinks": "sinks:sinks",
    "start": "start_command:start",
    "status": "status:status",
    "storage": "storage:storage",
    "tail": "tail:tail",
    "verify": "replay:verify_command",
}
EXIT_USAGE = 80  # the Go plugin's code for a wrong command line


@click.group(
    cls=Group, lazy=COMMANDS, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
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
