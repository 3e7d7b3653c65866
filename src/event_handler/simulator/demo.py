"""The demo: certificates, a simulated cluster, a collector, and the real handler, killed in mid-flight and started
again.

Ends with a table, and with exit code 0 only when nothing was lost. Everything lives in a temporary directory and on
loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from event_handler.simulator import starting
from event_handler.simulator.collector import Collector

try:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.table import Table
except ModuleNotFoundError as error:
    starting.without_extra(error)

EVENTS = 20_000
SESSIONS = 40
LIVE_RATE = 50  # events a second
LIVE_SECONDS = 12  # seconds that new events come
KILL_AT = 0.4  # share of the past events delivered when the handler is killed
GIVE_UP = 50.0  # seconds; the demo promises to end within a minute
PASSPHRASE = "only-for-the-demo"  # noqa: S105 - guards a key that lives for a minute
RECENT = 15.0  # seconds; older events are backlog and say nothing about the lag

console = Console()


@dataclass(frozen=True, slots=True)
class Expected:
    """What the cluster has: ids of its events, and per session how many events its recording has."""

    ids: set[str]
    recordings: dict[str, int]


async def run_once(*arguments: str, stdin: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate(stdin.encode())
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed: {errors.decode()}")


async def start_cluster(directory: Path, mode: str, keep: bool) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    options = [
        f"--directory={directory}",
        f"--mode={mode}",
        f"--events={EVENTS}",
        f"--sessions={SESSIONS}",
        f"--live={LIVE_RATE}",
    ]
    options += [
        "--duplicates=0.02",
        "--late-chunks=2",
        "--late-seconds=4",
        "--late-recordings=6",
        "--unavailable-every=9000",
    ]
    options += [] if keep else [f"--live-seconds={LIVE_SECONDS}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "event_handler.simulator", *options, stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is None:
        raise SystemExit("the simulated cluster has no output")
    ready = await process.stdout.readline()
    if not ready:  # it has told why
        raise SystemExit("the simulated cluster did not start")
    return process, json.loads(ready)


async def start_handler(directory: Path, cluster: dict[str, Any], url: str) -> asyncio.subprocess.Process:
    """The real command, with the file that `configure` made and what differs here on the command line."""
    options = [f"--config={directory / 'teleport-event-handler.toml'}", f"--storage={directory / 'storage'}"]
    options += [f"--teleport-addr={cluster['address']}", f"--teleport-identity={cluster['identity']}"]
    options += [f"--fluentd-url={url}/test.log", f"--fluentd-session-url={url}/session", "--skip-session-types="]
    options += ["--start-time=2020-01-01T00:00:00Z", "--window-size=8760h", "--timeout=500ms", "--poll-interval=500ms"]
    with (directory / "handler.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "event_handler", "start", *options, stderr=log
        )


def expected(directory: Path) -> Expected:
    known = json.loads((directory / "manifest.json").read_text())
    live = directory / "live.ids"
    added = live.read_text().split() if live.exists() else []
    return Expected({*known["events"], *added}, known["recordings"])


def missing(collector: Collector, all_of_it: Expected) -> tuple[set[str], set[str]]:
    """Events and recordings that have not (fully) arrived."""
    recordings = {sid for sid, count in all_of_it.recordings.items() if collector.sessions[sid] < count}
    return all_of_it.ids - collector.ids.keys(), recordings


async def watch(collector: Collector, bar: Progress, task: TaskID, until: int, deadline: float) -> None:
    """Move the bar until that many events have arrived."""
    while len(collector.ids) < until and monotonic() < deadline:
        bar.update(task, completed=len(collector.ids), recordings=len(collector.sessions))
        await asyncio.sleep(0.05)


async def finish(
    collector: Collector, bar: Progress, task: TaskID, cluster_directory: Path, deadline: float
) -> Expected:
    """Wait until new events have ended and everything has arrived, or time is over."""
    live_until = monotonic() + LIVE_SECONDS
    while True:
        all_of_it = expected(cluster_directory)
        bar.update(task, total=len(all_of_it.ids), completed=len(collector.ids), recordings=len(collector.sessions))
        complete = not any(missing(collector, all_of_it))
        if monotonic() > deadline or (complete and monotonic() > live_until):
            return all_of_it
        await asyncio.sleep(0.2)


def report(collector: Collector, all_of_it: Expected, seconds: float, rate: float) -> bool:
    """Print the table; return whether nothing was lost."""
    lost_events, lost_recordings = missing(collector, all_of_it)
    repeated = collector.ids.total() - len(collector.ids)
    fresh = [lag for lag in collector.lags if lag < RECENT]
    table = Table(title="Delivered, with one SIGKILL in mid-flight")
    table.add_column("what")
    table.add_column("result", justify="right")
    table.add_row("events", f"{len(collector.ids):,} of {len(all_of_it.ids):,}")
    table.add_row("recordings", f"{len(all_of_it.recordings) - len(lost_recordings)} of {len(all_of_it.recordings)}")
    table.add_row("backlog read at", f"{rate:,.0f} events/s")
    table.add_row("lag of new events (median)", f"{statistics.median(fresh):.1f} s" if fresh else "-")
    table.add_row(
        "lost",
        str(len(lost_events) + len(lost_recordings)),
        style="green" if not lost_events | lost_recordings else "red",
    )
    table.add_row("sent twice (in flight when killed)", str(repeated))
    table.add_row("time", f"{seconds:.0f} s")
    console.print(table)
    return not lost_events and not lost_recordings


async def demo(mode: str, keep: bool, directory: Path) -> bool:
    begun = monotonic()
    console.print(f"Certificates with [bold]teleport-event-handler configure {directory}[/bold]")
    await run_once("event_handler", "configure", str(directory), "--length=2048", "--force", stdin=PASSPHRASE)
    collector = Collector()
    url = await collector.start(directory / "server.crt", directory / "server.key", PASSPHRASE, directory / "ca.crt")
    cluster_directory = directory / "cluster"
    process, cluster = await start_cluster(cluster_directory, mode, keep)
    console.print(f"Simulated cluster at {cluster['address']} ({mode}), collector with mutual TLS at {url}")
    deadline = begun + GIVE_UP
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,.0f} events"),
    )
    handler = await start_handler(directory, cluster, url)
    try:
        with Progress(
            *columns, TextColumn("{task.fields[recordings]} recordings"), TimeElapsedColumn(), console=console
        ) as bar:
            task = bar.add_task("delivering", total=EVENTS, recordings=0)
            await watch(collector, bar, task, int(EVENTS * KILL_AT), deadline)
            handler.kill()
            await handler.wait()
            bar.console.print(f"[red]SIGKILL[/red] after {len(collector.ids):,} events; starting again")
            handler = await start_handler(directory, cluster, url)
            await watch(collector, bar, task, len(collector.ids) + 1, deadline)
            from_here, restarted = len(collector.ids), monotonic()
            await watch(collector, bar, task, int(EVENTS * 0.9), deadline)
            rate = (len(collector.ids) - from_here) / max(0.001, monotonic() - restarted)
            if keep:
                await stay(directory)
            all_of_it = await finish(collector, bar, task, cluster_directory, deadline)
        good = report(collector, all_of_it, monotonic() - begun, rate)
    finally:
        for running in (handler, process):
            if running.returncode is None:
                running.terminate()
        await asyncio.gather(handler.wait(), process.wait())
        await collector.stop()
    if not good:
        console.print((directory / "handler.log").read_text()[-4000:])
    return good


async def stay(directory: Path) -> None:
    console.print(f"Running with new events coming in; files and handler.log are in {directory}. Ctrl-C ends it.")
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--mode", choices=["bulk", "search"], default="bulk", help="which back end the cluster has")
    parser.add_argument("--keep", action="store_true", help="stay, with new events coming in, until Ctrl-C")
    options = parser.parse_args()
    with (
        starting.told(),
        tempfile.TemporaryDirectory(prefix="teleport-event-handler-demo-", ignore_cleanup_errors=True) as directory,
    ):
        sys.exit(0 if asyncio.run(demo(options.mode, options.keep, Path(directory))) else 1)


if __name__ == "__main__":
    main()
