"""`sinks`: lists the types of destinations, describes one, and sends a marked event to those that are configured."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time
from uuid import uuid4

import click
import orjson

from event_handler import redact
from event_handler.cli.command_line import Command
from event_handler.config.load import load
from event_handler.config.model import secrets
from event_handler.config.option import setting_of
from event_handler.config.per_sink import PerSink
from event_handler.config.spelling import allowed, shown
from event_handler.errors import SinkError, UsageError
from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Sink, Verdict
from event_handler.runtime.sinks import planned_sinks
from event_handler.setting import Options
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.registry import sink_type, sink_types

TEST_TYPE = "teleport-event-handler.test"  # no type of Teleport's, so that nobody takes it for an event of the cluster
LONGEST_TEST = 60.0  # seconds for one sink


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
    kind = sink_type(name)
    click.echo(f'{kind.summary}\n\n[sinks.NAME]\ntype = "{name}"\n')
    for model in (kind.options, PerSink):
        for field in sorted(model.model_fields, key=lambda field: _rank(model, field)):
            click.echo(_option(model, field))


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
            verdict = await asyncio.wait_for(sink.deliver([_marked()]), LONGEST_TEST)
        except TimeoutError:
            said, good = f"no answer within {LONGEST_TEST:.0f} s", False
        else:
            said, good = _in_words(verdict), isinstance(verdict, Delivered)
        finally:
            await sink.close()
        click.echo(f"{sink.name:<16} {'ok' if good else 'failed'}: {redact.credentials(said)}")
        works = works and good
    return works


def _marked() -> Event:
    now, uid = time(), str(uuid4())
    content = {
        "event": TEST_TYPE,
        "message": "sent by `teleport-event-handler sinks test`",
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "uid": uid,
    }
    return Event(TEST_TYPE, uid, now, 0, orjson.dumps(content))


def _in_words(verdict: Verdict) -> str:
    if isinstance(verdict, Delivered):
        return "the receiver took the event"
    if isinstance(verdict, Partial):
        return next(iter(verdict.rejected.values()), verdict.reason)
    return verdict.reason


def _rank(model: type[Options], field: str) -> tuple[bool, bool]:
    """What must be set first, what all sinks over HTTP have last."""
    return not setting_of(model, field).required, field in HttpOptions.model_fields


def _option(model: type[Options], field: str) -> str:
    setting, info = setting_of(model, field), model.model_fields[field]
    if setting.required:
        default = "required"
    elif setting.unset:
        default = f"default: {setting.unset}"
    elif info.default in ("", None, ()):
        default = "default: none"
    else:
        default = f"default: {shown(setting, info.default)}"
    range_ = allowed(setting.kind, info)
    more = f"; {range_}" if setting.kind in ("choice", "number", "duration") and range_ else ""
    return f"{field.replace('_', '-'):<22} {setting.kind:<9} {setting.help} ({default}{more})"
