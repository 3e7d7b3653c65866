"""`sinks`: lists the types of destinations, describes one, and sends a marked event to those that are configured."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import click

from event_handler import redact
from event_handler.cli.command_line import Command
from event_handler.config.load import load
from event_handler.config.model import secrets
from event_handler.config.sink_reference import rows
from event_handler.errors import SinkError, UsageError
from event_handler.ports import Sink
from event_handler.runtime.sinks import planned_sinks
from event_handler.runtime.trial import try_sink
from event_handler.sinks.registry import sink_type, sink_types


@click.group("sinks", help="List the destinations, describe one, or try those that are configured.")
def sinks() -> None:
    """The group."""


@sinks.command("list", cls=Command, help="List the types of sinks.")
def list_types() -> None:
    for name in sink_types():
        click.echo(f"{name:<16} {sink_type(name).summary}")


@sinks.command("describe", cls=Command, help="Print every option of a type, with its default.")
@click.argument("name", metavar="TYPE")
def describe(name: str) -> None:
    click.echo(f'{sink_type(name).summary}\n\n[sinks.NAME]\ntype = "{name}"\n')
    for row in rows(name):
        click.echo(f"{row.key:<22} {row.kind:<9} {row.help} (default: {row.default})")


@sinks.command("test", cls=Command, help="Send one marked event to each sink of a configuration, or to one of them.")
@click.option("--config", "-c", "config", default="", metavar="FILE", help="TOML file of `start`")
@click.argument("name", metavar="[NAME]", default="")
@click.pass_obj
def test(before: Mapping[str, str], /, config: str, name: str) -> None:
    settings = load({}, os.environ, config or before["config"]).settings
    redact.know(secrets(settings))
    planned = [plan.sink for plan in planned_sinks(settings)]
    chosen = [sink for sink in planned if not name or sink.name == name]
    if not chosen:
        raise UsageError(f"there is no sink {name}", f"There are {', '.join(sink.name for sink in planned)}.")
    if not asyncio.run(_try_all(chosen)):
        raise SinkError("not every sink took the event", "Its answer is above.")


async def _try_all(tried: list[Sink]) -> bool:
    works = True
    for sink in tried:
        try:
            good, said = await try_sink(sink)
        finally:
            await sink.close()
        click.echo(f"{sink.name:<16} {'ok' if good else 'failed'}: {said}")
        works = works and good
    return works
