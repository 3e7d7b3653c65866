"""`start` on the command line: every flag comes from the settings model."""

from __future__ import annotations

import os
from typing import Any

import click

from event_handler import redact
from event_handler.cli.command_line import Command
from event_handler.cli.start import run
from event_handler.config.load import load
from event_handler.config.model import secrets
from event_handler.config.options import click_options, given
from event_handler.telemetry import logs


@click.command("start", cls=Command, help="Follow the audit log and deliver every event.")
@click.option("--config", "-c", "config", default="", metavar="FILE", help="TOML file with settings ($FDFWD_CONFIG)")
@click_options()
@click.pass_obj
def start(before: dict[str, str | None], /, config: str, **parameters: Any) -> None:
    parameters["debug"] = parameters["debug"] or before["debug"]
    loaded = load(given(parameters), os.environ, config or before["config"] or "")
    redact.know(secrets(loaded.settings))
    logs.configure(loaded.settings.debug, loaded.settings.log_format, loaded.settings.log_level)
    run(loaded.settings, loaded.warnings)
