"""`check`: goes through configuration, identity, cluster, storage and sinks, and says what to do about each fault."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

import click
import orjson

from event_handler import redact
from event_handler.cli.command_line import Command
from event_handler.cli.signing_in import config_of_start
from event_handler.config.load import load
from event_handler.config.model import secrets
from event_handler.errors import EventHandlerError
from event_handler.runtime.check import Finding, check
from event_handler.runtime.check.finding import Level, fault, ok, warning
from event_handler.telemetry import logs

CONFIGURATION_AREA = "configuration"
MARKS = {Level.OK: ("✓", "ok", "green"), Level.WARNING: ("!", "!", "yellow"), Level.FAULT: ("✗", "x", "red")}
INDENT = " " * 4


@click.command("check", cls=Command, help="Find out what is wrong, and what to do about it.")
@config_of_start
@click.option("--send", is_flag=True, help="send one marked event to each sink")
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
@click.pass_obj
def check_command(before: Mapping[str, str], /, config: str, send: bool, as_json: bool) -> None:
    findings = asyncio.run(_run(config or before["config"], send=send, quiet=as_json))
    counts = Counter(str(one.level) for one in findings)
    if as_json:
        found = {"findings": [asdict(one) for one in findings], **{str(level): counts[level] for level in Level}}
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        faults, warnings = counts[Level.FAULT], counts[Level.WARNING]
        click.echo(f"\n{faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    if counts[Level.FAULT]:
        raise click.exceptions.Exit(1)


async def _run(config: str, *, send: bool, quiet: bool) -> list[Finding]:
    """All findings, each printed as it is made unless `quiet`."""
    found: list[Finding] = []

    def add(finding: Finding) -> None:
        found.append(finding)
        if not quiet:
            click.echo("\n".join(lines(finding, unicode=_takes_unicode())))

    logs.configure(False, "console", "error")
    try:
        loaded = load({}, os.environ, config)
    except EventHandlerError as error:
        add(fault(CONFIGURATION_AREA, error, error.hint or "Correct it; docs/options.md tells what each option takes."))
        return found
    redact.know(secrets(loaded.settings))
    add(ok(CONFIGURATION_AREA, f"{config or 'the environment'} can be used"))
    for text in loaded.warnings:
        add(warning(CONFIGURATION_AREA, text, "Correct it, or leave it if it is meant so."))
    async for one in check(loaded.settings, send=send):
        add(one)
    return found


def lines(finding: Finding, *, unicode: bool = True) -> list[str]:
    """A finding as a mark with a sentence, and below what to do."""
    mark, plain, colour = MARKS[finding.level]
    first = f"{click.style(mark if unicode else plain, fg=colour)} {finding.area}: {finding.what}"
    return [first, f"{INDENT}{finding.next_step}"] if finding.next_step else [first]


def _takes_unicode() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "✓✗".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
