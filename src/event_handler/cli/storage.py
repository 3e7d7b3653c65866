"""`storage`: shows the position that is remembered, and writes it in the Go plugin's format."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from urllib.parse import unquote

import click

from event_handler.checkpoint import DONE, Mode, Progress, day_of
from event_handler.cli.command_line import Command
from event_handler.config.load import load
from event_handler.config.model import StartSettings
from event_handler.errors import StateError, UsageError
from event_handler.go_plugin.export_state import export_state
from event_handler.go_plugin.read import rfc3339
from event_handler.ports import StateStore
from event_handler.state.directory import state_directory, states_below
from event_handler.state.sqlite import FILE, SqliteStore
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
    for number, directory in enumerate(state_directories(settings, cluster, sink)):
        if number:
            click.echo()
        store = SqliteStore.to_read(directory / FILE)
        try:
            for name, value in asyncio.run(_facts(store, directory)):
                click.echo(f"{name:<20} {value}")
        finally:
            store.close()


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
    found = state_directories(settings, cluster, sink)
    if len(found) > 1:
        names = ", ".join(_cluster(path) for path in found)
        raise UsageError(f"{settings.storage} has the state of several clusters: {names}", "Name one with --cluster.")
    target = to.absolute() if to else _plugin_directory(settings)
    store = SqliteStore(found[0], existing=True)
    try:
        state, kept = asyncio.run(export_state(store, target, force=force))
    finally:
        store.close()
    for warning in state.warnings:
        click.echo(f"warning: {warning}", err=True)
    if kept:
        click.echo(f"kept what was there in {kept}")
    recordings = len(state.sessions) + len(state.missing)
    click.echo(
        f"wrote {target}: {len(state.days)} days, {recordings} recordings that wait, start time {state.start_text}"
    )


def storage_settings(config: str, storage_directory: str | None, address: str | None = None) -> StartSettings:
    """Only the settings that tell where the state lies; the others of the file may be missing."""
    line = {"storage": storage_directory, "teleport_addr": (address,) if address else None}
    given = {name: value for name, value in line.items() if value is not None}
    return load(given, os.environ, config, only=frozenset(line)).settings


def state_directories(settings: StartSettings, cluster: str, sink: str) -> list[Path]:
    """The directories of the states that are meant, at least one."""
    root = Path(settings.storage)
    found = states_below(root, sink)
    if cluster:
        found = [path for path in found if path == state_directory(root, cluster, path.name)]
    if not found:
        whose = f" of the cluster {cluster}" * bool(cluster) + f" of the sink {sink}" * bool(sink)
        raise StateError(f"there is no state{whose} in {root}", "Check --storage; there is one after the first start.")
    return found


def _cluster(directory: Path) -> str:
    return unquote(directory.parent.name)


def _plugin_directory(settings: StartSettings) -> Path:
    if "teleport_addr" not in settings.model_fields_set:
        raise UsageError(
            "the plugin's directory is named by the address of Teleport", "Give --config, --teleport-addr or --to."
        )
    host, port = split_address(settings.teleport_addr[0].strip())
    return Path(settings.storage).absolute() / f"{host}_{port}"


async def _facts(store: StateStore, directory: Path) -> list[tuple[str, str]]:
    progress = await store.progress()
    begin = None if await store.is_new() else await store.begin(None)  # which raises when the state has lost it
    start = "not started yet" if begin is None else rfc3339(begin)
    facts = [
        ("cluster", _cluster(directory)),
        ("sink", directory.name),
        ("file", str(directory / FILE)),
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
