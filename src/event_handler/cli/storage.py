"""`storage`: shows the position that is remembered, and writes it in the Go plugin's format."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

import click

from event_handler.checkpoint import DONE, Mode, Progress, day_of
from event_handler.cli.command_line import Command
from event_handler.config.load import load
from event_handler.config.model import StartSettings
from event_handler.errors import StateError, UsageError
from event_handler.go_plugin.export_state import export_state
from event_handler.go_plugin.read import PluginState, rfc3339
from event_handler.ports import StateStore
from event_handler.state.moving import move
from event_handler.state.places import DatabasePlace, Place, places_in
from event_handler.state.postgresql.session import shown_place
from event_handler.teleport.transport import split_address

config_option = click.option("--config", "-c", "config", default="", metavar="FILE", help="TOML file of `start`")
storage_option = click.option(
    "--storage", "storage_directory", metavar="DIR", help="directory for the state, as for `start`"
)
cluster_option = click.option("--cluster", default="", metavar="NAME", help="whose state, when there are several")
sink_option = click.option(
    "--sink", default="", metavar="NAME", help="state of that sink only: fluentd, file or elasticsearch"
)


@click.group("storage", help="Show the remembered position, or give it back to the Go plugin.")
def storage() -> None:
    """The group."""


@storage.command("show", cls=Command, help="Show the position of each sink, also while an event handler runs.")
@config_option
@storage_option
@cluster_option
@sink_option
@click.pass_obj
def show(before: Mapping[str, str], /, config: str, storage_directory: str | None, cluster: str, sink: str) -> None:
    settings = storage_settings(config or before["config"], storage_directory)
    for number, place in enumerate(states_of(settings, cluster, sink)):
        if number:
            click.echo()
        for name, value in asyncio.run(_facts(place)):
            click.echo(f"{name:<20} {value}")


@storage.command("export", cls=Command, help="Write the position in the Go plugin's format, to return to the plugin.")
@config_option
@storage_option
@cluster_option
@click.option(
    "--sink", default="fluentd", metavar="NAME", help="whose position [default: fluentd, where the plugin delivers to]"
)
@click.option("--teleport-addr", metavar="ADDR", help="host:port that the plugin will be given; names its directory")
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="DIR", help="directory to write [default: <storage>/<host>_<port>]"
)
@click.option("--force", is_flag=True, help="replace a newer state of the plugin (it is kept beside)")
@click.pass_obj
def export(
    before: Mapping[str, str],
    /,
    config: str,
    storage_directory: str | None,
    cluster: str,
    sink: str,
    teleport_addr: str | None,
    to: Path | None,
    force: bool,
) -> None:
    settings = storage_settings(config or before["config"], storage_directory, teleport_addr)
    place = _only(settings, cluster, sink)
    target = to.absolute() if to else _plugin_directory(settings)
    state, kept = asyncio.run(_export(place, target, force=force))
    for warning in state.warnings:
        click.echo(f"warning: {warning}", err=True)
    if kept:
        click.echo(f"kept what was there in {kept}")
    recordings = len(state.sessions) + len(state.missing)
    click.echo(
        f"wrote {target}: {len(state.days)} days, {recordings} recordings that wait, start time {state.start_text}"
    )


@storage.command("move", cls=Command, help="Carry states over to another storage, both ways, and compare them there.")
@click.option(
    "--from", "source", required=True, metavar="STORAGE", help="directory, or postgresql://user@host/database"
)
@click.option("--to", "target", required=True, metavar="STORAGE", help="where to; it must not have these states yet")
@cluster_option
@sink_option
def move_states(source: str, target: str, cluster: str, sink: str) -> None:
    if not (places := places_in(source, cluster, sink)):
        raise StateError(f"there is no state to move in {shown_place(source)}", "Check --from, --cluster and --sink.")
    for place in places:
        counts = asyncio.run(move(place, target))
        told = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in counts.items() if count)
        click.echo(f"{place.name}: {told or 'nothing yet'}")
    click.echo(f"moved to {shown_place(target)}; what is in {shown_place(source)} stays and is not used any more")


def storage_settings(config: str, storage_directory: str | None, address: str | None = None) -> StartSettings:
    """Only the settings that tell where the state lies; the others of the file may be missing."""
    line = {"storage": storage_directory, "teleport_addr": (address,) if address else None}
    given = {name: value for name, value in line.items() if value is not None}
    return load(given, os.environ, config, only=frozenset(line)).settings


def states_of(settings: StartSettings, cluster: str, sink: str) -> list[Place]:
    """The states that are meant, at least one."""
    found = places_in(settings.storage, cluster, sink)
    if not found:
        whose = f" of the cluster {cluster}" * bool(cluster) + f" of the sink {sink}" * bool(sink)
        raise StateError(
            f"there is no state{whose} in {shown_place(settings.storage)}",
            "Check --storage; there is one after the first start.",
        )
    return found


def _only(settings: StartSettings, cluster: str, sink: str) -> Place:
    found = states_of(settings, cluster, sink)
    if len(found) > 1:
        names = ", ".join(place.cluster for place in found)
        where = shown_place(settings.storage)
        raise UsageError(f"{where} has the state of several clusters: {names}", "Name one with --cluster.")
    return found[0]


async def _export(place: Place, target: Path, *, force: bool) -> tuple[PluginState, Path | None]:
    store = await place.work()
    try:
        return await export_state(store, target, force=force)
    finally:
        store.close()


def _plugin_directory(settings: StartSettings) -> Path:
    if "teleport_addr" not in settings.model_fields_set:
        raise UsageError(
            "the plugin's directory is named by the address of Teleport", "Give --config, --teleport-addr or --to."
        )
    host, port = split_address(settings.teleport_addr[0].strip())
    return Path(settings.storage).absolute() / f"{host}_{port}"


async def _facts(place: Place) -> list[tuple[str, str]]:
    store = await place.look()
    try:
        return await _facts_of(store, place)
    finally:
        store.close()


async def _facts_of(store: StateStore, place: Place) -> list[tuple[str, str]]:
    progress = await store.progress()
    begin = None if await store.is_new() else await store.begin(None)  # which raises when the state has lost it
    start = "not started yet" if begin is None else rfc3339(begin)
    facts = [
        ("cluster", place.cluster),
        ("sink", place.sink),
        ("database" if isinstance(place, DatabasePlace) else "file", place.shown),
        ("start time", start),
    ]
    if (mode := progress.mode) is not None:
        facts.append(("read by", {Mode.BULK: "bulk export", Mode.SEARCH: "search"}[mode]))
    if mode is Mode.SEARCH and progress.searched is not None:
        facts.append(("delivered up to", rfc3339(progress.searched)))
    if mode is Mode.BULK:
        first = progress.first_day or ("the start" if begin is None else day_of(begin))
        facts += [("days polled from", str(first)), *_chunks(progress)]
    waiting, untried = await store.waiting_recordings()
    facts.append(("recordings waiting", f"{waiting}, {untried} of them never tried"))
    facts.append(("dead letters", str(await store.dead_letters())))
    return facts


def _chunks(progress: Progress) -> Iterator[tuple[str, str]]:
    counts: dict[date, Counter[bool]] = {}
    for chunk, cursor in progress.chunks.items():
        counts.setdefault(chunk.day, Counter())[cursor == DONE] += 1
    for day, chunks in sorted(counts.items()):
        yield f"chunks of {day}", f"{chunks[True]} delivered, {chunks[False]} begun"
