"""`tail`: prints events as they happen, straight from the cluster, without touching any position."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from time import time

import click
import orjson

from event_handler.cli.command_line import Command
from event_handler.cli.moments import Moment, shown
from event_handler.cli.signing_in import config_of_start, settings_of_start, signed_in
from event_handler.config.model import StartSettings
from event_handler.errors import MalformedEventError
from event_handler.event import Event
from event_handler.pipeline.filters import Filter
from event_handler.sources.pages import Search
from event_handler.teleport.wire.raw import raw_events

SEARCH_EVERY = 1.0  # seconds between two searches
LOOK_AGAIN_AT = 10.0  # seconds of the log that are searched once more, for events that appear late
AHEAD_OF_US = 60.0  # seconds that the cluster's clock may be ahead of ours
KNOWN_IDS = 50_000  # of events that were printed; more than the seconds that are searched again ever have
NAMED_IN_A_LINE = (
    "user",
    "login",
    "server_hostname",
    "addr.remote",
    "db_name",
    "kubernetes_cluster",
    "reason",
    "error",
)
COLOURS = {"I": "green", "W": "yellow", "E": "red"}  # by the last letter of a code


@click.command("tail", cls=Command, help="Print events as they happen; no position is touched.")
@config_of_start
@click.option("--since", type=Moment(), default=None, metavar="TIME", help="begin there, as 1h for an hour ago")
@click.option("--types", default="", metavar="TYPES,...", help="only these types, also patterns and codes")
@click.option("--json", "as_json", is_flag=True, help="print whole events, one a line")
@click.option("--no-follow", is_flag=True, help="end when all up to now is printed")
@click.pass_obj
def tail(
    before: Mapping[str, str], /, config: str, since: float | None, types: str, as_json: bool, no_follow: bool
) -> None:
    settings = settings_of_start(before, config)
    wanted = Filter(tuple(kind.strip() for kind in types.split(",") if kind.strip()))
    asyncio.run(_print(settings, time() if since is None else since, wanted, as_json=as_json, follow=not no_follow))


async def _print(settings: StartSettings, since: float, wanted: Filter, *, as_json: bool, follow: bool) -> None:
    async for event in events_since(settings, since, wanted, follow=follow):
        click.echo(event.body.decode() if as_json else line_of(event))
        sys.stdout.flush()


async def events_since(settings: StartSettings, since: float, wanted: Filter, *, follow: bool) -> AsyncIterator[Event]:
    """Every event that is wanted from `since` on, once each, in the order in which the cluster gives them."""
    known: OrderedDict[bytes, None] = OrderedDict()
    async with signed_in(settings) as (client, _):
        search = Search(client, settings.batch)
        begin = since
        while True:
            async for wires, _ in search.pages(begin, time() + AHEAD_OF_US):
                for raw in raw_events(wires):
                    since = max(since, min(raw.time, time()))
                    try:
                        key = raw.dedup_key()
                        if key in known or not wanted.wants(raw.type, raw.code() if wanted.needs_code else ""):
                            continue
                        event = raw.event()
                    except (MalformedEventError, NotImplementedError):
                        continue  # `start` keeps it as a dead letter
                    known[key] = None
                    if len(known) > KNOWN_IDS:
                        known.popitem(last=False)
                    yield event
            if not follow:
                return
            begin = max(begin, since - LOOK_AGAIN_AT)
            await asyncio.sleep(SEARCH_EVERY)


def line_of(event: Event) -> str:
    """One line that a person can read: time, type, code, and who did it to what. Nothing in it moves the cursor."""
    content = orjson.loads(event.body)
    code = _plain(content.get("code", ""))
    facts = [f"{name.rpartition('.')[2]}={_plain(content[name])}" for name in NAMED_IN_A_LINE if content.get(name)]
    if content.get("success") is False:
        facts.insert(0, click.style("failed", fg="red"))
    kind = click.style(f"{_plain(event.type):<28}", bold=True)
    return f"{shown(event.time)}  {kind} {click.style(f'{code:<8}', fg=COLOURS.get(code[-1:]))} {' '.join(facts)}"


def _plain(value: object) -> str:
    """Printable text: an event may hold sequences that a terminal would obey."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
