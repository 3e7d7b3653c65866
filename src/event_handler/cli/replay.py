"""`replay` delivers a span of the log once more, on purpose; `verify` compares it with what was delivered."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from time import monotonic

import click

from event_handler.cli.command_line import Command
from event_handler.cli.listening import local_directory
from event_handler.cli.moments import Moment, shown
from event_handler.cli.signing_in import config_of_start, settings_of_start, signed_in
from event_handler.config.components import check_names
from event_handler.config.given import Given
from event_handler.config.model import StartSettings
from event_handler.errors import EventHandlerError, StateError, UsageError
from event_handler.ports import StateStore
from event_handler.runtime.replay import Asked, CountingSink, Progress, replay
from event_handler.runtime.sinks import PlannedSink, planned_sinks
from event_handler.runtime.verify import Comparison, compare
from event_handler.state.places import places_in
from event_handler.state.postgresql.session import shown_place
from event_handler.state.sqlite import SqliteStore
from event_handler.telemetry.status_text import bar
from event_handler.teleport.rpc.client import Client

TELL_PROGRESS_EVERY = 1.0  # seconds between two progress lines
NAMED_ON_SCREEN = 20  # missing events that are printed

span_options = (
    click.option("--from", "since", type=Moment(), required=True, metavar="TIME", help="where the span begins"),
    click.option("--to", "until", type=Moment(), required=True, metavar="TIME", help="where the span ends"),
    click.option("--sink", default="", metavar="NAME", help="the sink [default: the only one]"),
)


@click.command("replay", cls=Command, help="Deliver a span of the log again; the normal position does not move.")
@config_of_start
@span_options[0]
@span_options[1]
@span_options[2]
@click.option("--types", default="", metavar="TYPES,...", help="only these types, also patterns and codes")
@click.option("--dry-run", is_flag=True, help="count what would be delivered")
@click.pass_obj
def replay_command(
    before: Mapping[str, str], /, config: str, since: float, until: float, sink: str, types: str, dry_run: bool
) -> None:
    settings = settings_of_start(before, config)
    chosen = tuple(kind.strip() for kind in types.split(",") if kind.strip())
    check_names(Given(types, "--types"), chosen, [])
    asked = Asked(*_span(since, until), chosen)
    plan = _chosen(settings, sink)
    if dry_run:
        asyncio.run(_count_only(settings, plan, asked))
    else:
        asyncio.run(_replay(settings, plan, asked))


@click.command("verify", cls=Command, help="Compare a span of the log with what was delivered; name what is missing.")
@config_of_start
@span_options[0]
@span_options[1]
@span_options[2]
@click.pass_obj
def verify_command(before: Mapping[str, str], /, config: str, since: float, until: float, sink: str) -> None:
    settings = settings_of_start(before, config)
    found = asyncio.run(_compare(settings, _chosen(settings, sink), *_span(since, until)))
    for line in comparison_lines(found):
        click.echo(line)
    if found.lost:
        raise EventHandlerError(
            f"{found.lost:,} events of the cluster were not delivered",
            "They may still be on their way: compare `status`. Deliver them with `replay`.",
        )


def comparison_lines(found: Comparison) -> list[str]:
    """A table by hours, and the first missing events."""
    lines = [f"{'hour (UTC)':<20} {'in cluster':>11} {'delivered':>11} {'filtered':>9} {'missing':>9}"]
    for _, hour in sorted(found.hours.items()):
        missing = "not known" if found.unknown(hour) else f"{hour.missing:,}"
        counts = f"{hour.in_cluster:>11,} {hour.delivered:>11,} {hour.filtered:>9,} {missing:>9}"
        lines.append(f"{shown(hour.begin):<20} {counts}")
    if any(found.unknown(hour) for hour in found.hours.values()):
        lines.append("not known: so many events were delivered since then that their ids are not kept any more")
    known = [one for one in found.missing if not found.unknown(found.hours[one.time // 3600 * 3600])]
    lines += [f"missing: {shown(one.time)} {one.type} {one.id}" for one in known[:NAMED_ON_SCREEN]]
    if found.lost > NAMED_ON_SCREEN:
        lines.append(f"and {found.lost - NAMED_ON_SCREEN:,} more")
    return lines


def _span(since: float, until: float) -> tuple[float, float]:
    if since >= until:
        raise UsageError("--from is not before --to", f"It is from {shown(since)} to {shown(until)} UTC now.")
    return since, until


def _chosen(settings: StartSettings, name: str) -> PlannedSink:
    planned = planned_sinks(settings)
    names = ", ".join(plan.sink.name for plan in planned)
    if not name and len(planned) == 1:
        return planned[0]
    for plan in planned:
        if plan.sink.name == name:
            return plan
    problem = f"there is no sink {name}" if name else "there are several sinks"
    raise UsageError(problem, f"Name one with --sink: {names}.")


async def _count_only(settings: StartSettings, plan: PlannedSink, asked: Asked) -> None:
    counting = CountingSink(plan.sink.name)
    counted = PlannedSink(counting, plan.filters, plan.transforms)
    async with signed_in(settings) as (client, _):
        done = await _run(client, settings, counted, SqliteStore(None), asked)
    await plan.sink.close()
    for kind, count in sorted(counting.types.items()):
        click.echo(f"{count:>11,} {kind}")
    click.echo(f"{done.delivered:>11,} events would be delivered to {plan.sink.name}")


async def _replay(settings: StartSettings, plan: PlannedSink, asked: Asked) -> None:
    async with signed_in(settings) as (client, cluster):
        directory = asked.directory(local_directory(settings.storage), cluster, plan.sink.name)
        if directory.exists():
            click.echo("an earlier run of this replay did not come to its end; it goes on from there", err=True)
        store = SqliteStore(directory, begin_known=True)
        try:
            await store.claim(cluster)
            done = await _run(client, settings, plan, store, asked)
            letters = await store.dead_letters()
        finally:
            store.close()
            await plan.sink.close()
    root = directory.parents[1]
    if letters:
        click.echo(f"{letters} events were refused; see `dead-letter list --storage {root}`, then remove it", err=True)
    else:
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
    click.echo(f"{done.delivered:,} events were delivered again to {plan.sink.name}")


async def _run(client: Client, settings: StartSettings, plan: PlannedSink, store: StateStore, asked: Asked) -> Progress:
    last = monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        if monotonic() - last >= TELL_PROGRESS_EVERY and sys.stderr.isatty():
            last = monotonic()
            part = (progress.reached - asked.since) / (asked.until - asked.since)
            click.echo(f"\r{bar(part)} {progress.delivered:,} events, at {shown(progress.reached)}", nl=False, err=True)

    done = await replay(
        client, plan, store, asked, page=settings.batch, max_bytes=settings.max_in_flight_bytes, tell=tell
    )
    if sys.stderr.isatty():
        click.echo(err=True)
    return done


async def _compare(settings: StartSettings, plan: PlannedSink, since: float, until: float) -> Comparison:
    async with signed_in(settings) as (client, cluster):
        places = await asyncio.to_thread(places_in, settings.storage, cluster, plan.sink.name)
        if not places:
            where = shown_place(settings.storage)
            raise StateError(f"there is no state of the sink {plan.sink.name} in {where}", "Check --storage.")
        store = await places[0].look()
        try:
            return await compare(client, store, plan.sink.name, plan.filters, since, until, settings.batch)
        finally:
            store.close()
            await plan.sink.close()
