"""A report as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

BEHIND_FROM = 60.0  # seconds of lag that are worth a colour
EXPIRES_SOON = 86_400.0  # seconds
BAR = 30  # characters of a progress bar


def status_lines(report: dict[str, Any], earlier: dict[str, Any] | None = None) -> Iterator[str]:
    """The report as `/api/report` gives it; with an `earlier` one also rates."""
    state = click.style("works", fg="green") if report["ready"] else click.style("needs attention", fg="red")
    if report["standing_by"]:
        state = "stands by: another replica is at work"
    yield f"{click.style(report['cluster'], bold=True)}  {state}"
    left = report["credentials_expire"] - report["now"]
    expires = f"{stamp(report['credentials_expire'])} (in {span(left)})"
    yield f"  identity until   {click.style(expires, fg='yellow') if left < EXPIRES_SOON else expires}"
    for reading in report["readings"]:
        yield from _reading(reading, report)
    for sink in report["sinks"]:
        yield from _sink(sink, report, earlier)
    for replica in report.get("replicas", ()):
        yield from _replica(replica)


def _replica(replica: dict[str, Any]) -> Iterator[str]:
    state = click.style("works", fg="green") if replica["alive"] else click.style("gives no sign of life", fg="red")
    own = ", this one" if replica["own"] else ""
    yield f"  replica {click.style(replica['name'], bold=True)} (epoch {replica['epoch']}{own})  {state}"
    yield f"    claims         {', '.join((str(replica['units']), *replica['turns']))}"
    yield f"    lag            {'unknown' if replica['lag'] is None else span(replica['lag'])}"
    yield f"    delivered      {replica['delivered']:,} events"


def _reading(reading: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    yield f"  reading for      {', '.join(reading['sinks']) or 'no sink'}"
    if reading["connected"]:
        way = f"{reading['route']} at {reading['address']}"
        yield f"    signed in      by {way} since {stamp(reading['since'])}, server {reading['version']}"
    else:
        yield f"    {click.style('not connected', fg='red')}  {reading['failing'] or 'connecting'}"
        if reading["next_step"]:
            yield f"    next step      {reading['next_step']}"
    position = reading["position"]
    if position is None or position["until"] is None:
        return
    if position["caught_up"]:
        yield f"    read up to     {stamp(position['until'])}, which is all that there is"
        return
    yield f"    read up to     {stamp(position['until'])} {bar(progress(report, position))}"


def _sink(sink: dict[str, Any], report: dict[str, Any], earlier: dict[str, Any] | None) -> Iterator[str]:
    lag = "unknown" if sink["lag"] is None else span(sink["lag"])
    slow = sink["lag"] is None or sink["lag"] > BEHIND_FROM
    delivered = sink["audit"]["delivered"] + sink["recordings"]["delivered"]
    state = click.style("failing", fg="red") if sink["failing"] else click.style("works", fg="green")
    yield f"  {click.style(sink['name'], bold=True)} ({sink['type']})  {state}"
    rate = _rate(sink, delivered, report, earlier)
    yield f"    lag            {click.style(lag, fg='yellow') if slow else lag}"
    yield f"    delivered      {delivered:,} events{rate}"
    flying, allowed = (sum(load[name] for load in sink["load"]) for name in ("in_flight", "allowed"))
    yield f"    in flight      {flying} of {allowed} requests"
    if sink["dead_letters"]:
        yield f"    dead letters   {click.style(str(sink['dead_letters']), fg='red')}, see `dead-letter list`"
    if sink["recordings_waiting"]:
        yield f"    recordings     {sink['recordings_waiting']:,} wait"
    if sink["failing"]:
        yield f"    since          {stamp(sink['failing_since']) if sink['failing_since'] else 'now'}"
        yield f"    reason         {sink['failing']}"
        if sink["next_step"]:
            yield f"    next step      {sink['next_step']}"


def _rate(sink: dict[str, Any], delivered: int, report: dict[str, Any], earlier: dict[str, Any] | None) -> str:
    for before in (earlier or {}).get("sinks", ()):
        if before["name"] == sink["name"] and earlier and report["now"] > earlier["now"]:
            more = delivered - before["audit"]["delivered"] - before["recordings"]["delivered"]
            return f", {more / (report['now'] - earlier['now']):,.0f} a second"
    return ""


def progress(report: dict[str, Any], position: dict[str, Any]) -> float:
    """The part of the log that was read, from 0 to 1."""
    whole = report["now"] - report["start"]
    return min(1.0, max(0.0, (position["until"] - report["start"]) / whole)) if whole > 0 else 1.0


def bar(part: float) -> str:
    """A bar with a percentage."""
    full = int(part * BAR)
    return f"[{'#' * full}{'.' * (BAR - full)}] {part:.0%}"


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """As `2 d 3 h`, the two largest units."""
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    for unit, name, smaller, smaller_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= unit:
            return f"{left // unit} {name} {left % unit // smaller} {smaller_name}"
    return ""
